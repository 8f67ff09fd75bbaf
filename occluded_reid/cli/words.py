"""What a command line names, looked at before a command begins: paths that are not there, and places not to write to.

A path that does not exist is a wrong word, as a misspelt option is: exit code 2, before anything is computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from occluded_reid.cli.console import check_output_file, check_output_folder

__all__ = ["require_words"]

# Parameters by name, whichever command has them.
_MODELS = ("model", "models", "start")
_READ = {
    "data": "Give the folder of the data set",
    "masks": "Give the folder of the part masks",
    "tuned": "Give the file that `occluded-reid tune` has written",
    "keys_from": "Give a text file with a key in each line",
    "images": "Give files or folders of images",
    "first": "Give the file of an image",
    "second": "Give the file of an image",
    "calibration": "Give the file that `occluded-reid calibrate` has written",
}
_FOLDERS = ("output", "report", "save")
_FILES = ("embeddings", "picture")
_OCCLUDERS = ("generated", "pedestrians")
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")


def require_words(context: Any) -> None:
    """Refuse what a command was given before it begins.

    Args:
        context: of the command, its parameters read.

    Raises:
        BadParameter: a path does not exist, cannot be written to, or a word is none that is known.
    """
    values = {name: value for name, value in context.params.items() if value is not None}
    for name, complaint in _complaints(context.command.name, values):
        hint = next((p.opts[0] for p in context.command.params if p.name == name and p.opts[0].startswith("-")), name)
        raise typer.BadParameter(complaint, ctx=context, param_hint=f"'{hint}'")


def _complaints(command: str, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from occluded_reid.config import PACKAGED, is_hub, is_packaged

    if "gallery" in values:
        yield from _gallery_complaints(command, str(values["gallery"]))
    for name in _MODELS:
        for path in _several(values.get(name)):
            if not (is_packaged(path) or is_hub(path) or _exists(path)):
                yield (
                    name,
                    f"'{path}' does not exist; wanted the folder of a saved model. Training writes it: OUTPUT/model. "
                    f"Or name one that comes with the library: {', '.join(PACKAGED)}.",
                )
    for name, wanted in _READ.items():
        for path in _several(values.get(name)):
            if not _exists(path):
                yield name, f"'{path}' does not exist. {wanted}."
            elif name == "images" and command == "search" and Path(path).is_dir():
                yield name, f"'{path}' is a folder; give images to search for, such as {Path(path) / '*.jpg'}."
    if "root" in values and command in ("verify", "extract-cuhk03") and not _exists(values["root"]):
        yield "root", f"'{values['root']}' does not exist. Give the folder of the data set."
    written: list[tuple[str, Any, Any]] = [
        (name, values[name], check_output_folder) for name in _FOLDERS if name in values
    ]
    written += [(name, values[name], check_output_file) for name in _FILES if name in values]
    if command == "synthesize":
        written.append(("root", values["root"], check_output_folder))
    if command == "extract-cuhk03" and "out" in values:
        written.append(("out", values["out"], check_output_folder))
    for name, path, check in written:
        yield from _unwritable(name, path, check)
    occluders = values.get("occluders", "generated")
    if occluders not in _OCCLUDERS and not _exists(occluders):
        yield "occluders", f"'{occluders}' is no folder. Give {' or '.join(map(repr, _OCCLUDERS))}, or a folder."
    device = values.get("device", "auto")
    if not _DEVICE.fullmatch(device):
        yield "device", f"'{device}' is no device; give 'auto', 'cpu', 'cuda' or one of several, 'cuda:1'."


def _gallery_complaints(command: str, gallery: str) -> Iterator[tuple[str, str]]:
    if "://" in gallery:  # an address; its server answers for it
        return
    if command == "index":
        yield from _unwritable("gallery", Path(gallery), check_output_folder)
        yield from _not_for_a_gallery(Path(gallery))
    elif not _exists(gallery):
        yield "gallery", f"there is no gallery '{gallery}'. Make one with `occluded-reid index`, or correct the path."


def _not_for_a_gallery(folder: Path) -> Iterator[tuple[str, str]]:
    """Say so where a gallery would be made among other things, before a model is loaded for it."""
    try:
        taken = folder.is_dir() and not (folder / "gallery.json").exists() and any(folder.iterdir())
    except OSError:  # it may not be looked into: the command says so
        return
    if taken:
        yield (
            "gallery",
            f"'{folder}' holds something and is no gallery. Give a gallery, or a folder that is empty or missing.",
        )


def _unwritable(name: str, path: Path, check: Any) -> Iterator[tuple[str, str]]:
    try:
        check(path)
    except typer.BadParameter as refused:
        yield name, refused.message


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _exists(path: Any) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a folder on the way may not be entered, or the name is too long: the command says which
        return True
