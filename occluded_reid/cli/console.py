"""What the commands share: the console, progress bars, options for data and output."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from occluded_reid.cli.completing import complete_dataset, complete_model
from occluded_reid.cli.workers import this_worker

if TYPE_CHECKING:
    from occluded_reid.data.dataset import ReIDData, Split
    from occluded_reid.models import ReIDModel
    from occluded_reid.screen import Screen

__all__ = [
    "CameraRule",
    "DataOptions",
    "DataRoot",
    "DatasetName",
    "Device",
    "Holdout",
    "Json",
    "Masks",
    "ModelArgument",
    "Overrides",
    "PrecisionName",
    "PrecisionOption",
    "Preset",
    "Resume",
    "Seed",
    "SkipUnreadable",
    "TensorBoard",
    "Validation",
    "Weights",
    "WeightsMatch",
    "Workers",
    "bold",
    "camera_rule",
    "check_output_file",
    "check_output_folder",
    "check_picture",
    "check_share",
    "console",
    "keep_readable",
    "open_data",
    "print_json",
    "progress_bar",
    "read_data_options",
    "read_overrides",
    "read_weights",
    "read_widths",
    "say_notes",
    "set_precision",
]


class PrecisionName(StrEnum):
    """Numbers that a network computes with."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Folder of a trained model; the name of one that comes with the library, oreid_lite; or a network's "
        ".onnx or .xml file.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
DataRoot = Annotated[Path, typer.Option("--data", help="Folder of the data set.", show_default=False)]
DatasetName = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="Layout of that folder; see `occluded-reid list datasets`.",
        autocompletion=complete_dataset,
    ),
]
Masks = Annotated[
    Path | None, typer.Option("--masks", help="Folder of part masks: one PNG an image, mirroring the images' tree.")
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="An option of that data set's loader: --option queries=partial (repeatable)."),
]
Holdout = Annotated[
    int, typer.Option("--holdout", help="Set this many identities aside for testing, chosen by --seed.", min=0)
]
Validation = Annotated[
    int,
    typer.Option(
        "--validation",
        help="Take this many further identities out of training, chosen by --seed, to choose settings by.",
        min=0,
    ),
]
SkipUnreadable = Annotated[
    bool,
    typer.Option("--skip-unreadable", help="Leave out images that cannot be read, counted and named; else stop there."),
]
CameraRule = Annotated[
    bool | None,
    typer.Option(
        "--exclude-same-camera/--no-exclude-same-camera",
        help="Leave images of the query's person and camera out of the gallery, or keep them. Default: the rule of the "
        "data set; images of your own leave them out.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that draws.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Of a network's file: what it wants to be shown, 'imagenet', 'half', 'bytes' or 'openvino-retail'. "
        "Default: a guess, which is said. A saved model knows itself.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Replace a key of the recipe: --set optim.epochs=20 (repeatable).")
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="Backbone weights: 'hub', 'none', a file, or hf-hub:owner/name. Default: what the recipe says.",
    ),
]
WeightsMatch = Annotated[
    str | None,
    typer.Option(
        "--weights-match",
        help="How the file is laid out: 'auto', 'timm', 'torchreid', 'fast-reid', 'reid-strong-baseline', 'transreid', "
        "'clip-reid', or 'order' for other key names in timm's tensor order.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="Where to compute: 'cpu', 'cuda', 'cuda:1'; 'auto' is a GPU where there is one.")
]
PrecisionOption = Annotated[
    PrecisionName | None,
    typer.Option(
        "--precision",
        help="Numbers that the network computes with; refused where the processor or the GPU has no arithmetic for "
        "them. Default: those of the gallery where there is one, else float32.",
        show_default=False,
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", help="Processes that prepare batches; 0 prepares them in line.", min=0)
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --output.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs too (extra: tracking).")]


def console(*, quiet: bool = False) -> Screen:
    """Return a console; tables go to stderr when stdout must stay machine-readable."""
    from occluded_reid.screen import Screen

    return Screen(stderr=quiet)


def set_precision(network: ReIDModel, precision: PrecisionName | None) -> None:
    """Let a model compute with such numbers, or refuse them before anything else is done; None leaves it as it is.

    Raises:
        DeviceError: the processor or the GPU has no arithmetic for them.
    """
    from occluded_reid.models.precision import require_precision

    if precision is not None:
        require_precision(precision.value, network.device)
        network.embed_with(precision=precision.value)


def bold(text: object) -> str:
    """Return markup that shows a name in bold as it is, whatever brackets or controls a file's name may hold."""
    from occluded_reid.screen import cell

    return f"[bold]{cell(text)}[/bold]"


def check_output_folder(folder: Path | None) -> Path | None:
    """Refuse a folder that nothing can be written to before anything is computed for it; for the callback of options.

    It may be missing: it is made when there is something to write.
    """
    if folder is not None:
        try:
            there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        except OSError as cause:  # a name that is too long, a folder that may not be entered
            raise typer.BadParameter(f"'{folder}': {cause.strerror}. Give another folder to write to.") from cause
        if not there.is_dir():
            raise typer.BadParameter(f"'{there}' is a file; give a folder to write to.")
        if not os.access(there, os.W_OK | os.X_OK):
            raise typer.BadParameter(f"'{there}' may not be written to; give another folder.")
    return folder


def check_output_file(file: Path | None) -> Path | None:
    """Refuse a file that cannot be written before anything is computed for it; for the callback of options."""
    if file is not None:
        check_output_folder(file.absolute().parent)
        try:
            folder, other = file.is_dir(), file.exists() and not file.is_file()
        except OSError as cause:
            raise typer.BadParameter(f"'{file}': {cause.strerror}. Give another file to write.") from cause
        if folder:
            raise typer.BadParameter(f"'{file}' is a folder; give a file to write, such as '{file / 'found.json'}'.")
        if other:
            raise typer.BadParameter(f"'{file}' is a device or a pipe, and would be replaced; give a file to write.")
    return file


def check_picture(file: Path | None) -> Path | None:
    """Refuse a picture whose suffix names no format, or that cannot be written; for the callback of options."""
    if file is not None:
        from occluded_reid.errors import EvaluationError
        from occluded_reid.visualize.saving import require_picture_path

        try:
            require_picture_path(file)
        except EvaluationError as cause:
            raise typer.BadParameter(str(cause)) from cause
    return check_output_file(file)


def check_share(share: float) -> float:
    """Refuse a share that leaves no people on one side; 0 keeps none apart. For the callback of options."""
    if not 0 <= share < 1:
        raise typer.BadParameter(
            f"{share} of the people would leave no other people; give a share below 1: 0.5 is half."
        )
    return share


def print_json(content: Any) -> None:
    """Write one JSON document to stdout.

    Numbers that JSON has not (NaN, infinities) become null. Characters that a terminal would obey, or that the output's
    encoding has not, are escaped in JSON's own way, so that the document stays the same.
    """
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    text = json.dumps(_as_json(content), indent=2, ensure_ascii=encoding != "utf8", allow_nan=False)
    sys.stdout.write(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


# DEL, the C1 controls, marks and overrides of the writing direction, breaks of lines, halves of characters; json itself
# escapes what is below the space.
_CONTROLS = re.compile("[\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def _as_json(content: Any) -> Any:
    """What JSON can hold of it."""
    if isinstance(content, Mapping):
        return {key: _as_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_as_json(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback (done, total) that moves a bar on stderr; a line every half minute where that is no terminal."""
    from occluded_reid.screen import progress_bar as shared

    with shared(title) as move:
        yield move


def open_data(
    dataset: str,
    root: Path,
    masks: Path | None,
    holdout: int,
    seed: int,
    *,
    validation: int = 0,
    options: list[str] | None = None,
    readable: Sequence[Split] = (),
    say: bool = True,
    more: Mapping[str, Any] | None = None,
) -> ReIDData:
    """Load a data set as the common options say, and say on stderr what its loader noticed.

    Args:
        dataset: name of the layout.
        root: its folder.
        masks: folder of part masks.
        holdout: identities to set aside.
        seed: chooses them.
        validation: identities to set aside besides.
        options: ``key=value`` texts of --option.
        readable: splits of which images that cannot be read are left out.
        say: False where the command shows the notes itself.
        more: options of the loader that have been read already.
    """
    from occluded_reid.data.dataset import load_dataset

    own = {**read_data_options(options), **(more or {})}
    data = load_dataset(dataset, root, masks=masks, holdout=holdout, validation=validation, seed=seed, **own)
    data = keep_readable(data, readable)
    if say:
        say_notes(data)
    return data


def keep_readable(data: ReIDData, splits: Sequence[Split]) -> ReIDData:
    """Leave out images of some splits that cannot be read, with a bar; without splits nothing is read."""
    from occluded_reid.data.readable import without_unreadable

    if not splits:
        return data
    with progress_bar("looking for unreadable images") as move:
        return without_unreadable(data, splits, progress=move)


def say_notes(data: ReIDData) -> None:
    """Say on stderr what a loader noticed; of several processes the first one says it."""
    if this_worker().index == 0:
        for note in data.notes:
            console(quiet=True).say(f"note: {note}")


def camera_rule(data: ReIDData, exclude: bool | None) -> bool:
    """Return whether images of the query's person and camera are left out: as asked for, or by the data's own rule."""
    from occluded_reid.evaluation.protocol import Protocol

    return Protocol.of(data).exclude_same_camera if exclude is None else exclude


def read_data_options(texts: list[str] | None) -> dict[str, Any]:
    """Turn the ``key=value`` texts of --option into keywords of a loader; anything else is wrong usage.

    What the commands have options of their own for is not taken a second time.
    """
    from occluded_reid.config import parse_override
    from occluded_reid.errors import RecipeError

    options: dict[str, Any] = {}
    for text in texts or []:
        try:
            key, value = parse_override(text)
        except RecipeError as cause:
            raise typer.BadParameter(
                f"--option is '{text}'; give it as key=value: --option queries=partial."
            ) from cause
        if key in options:
            raise typer.BadParameter(f"--option {key} is given twice. Give it once.")
        if key in ("name", "root", "masks", "holdout", "validation", "seed"):
            raise typer.BadParameter(
                f"--option {key} is no option of a loader; the command line has its own place for it."
            )
        options[key] = value
    return options


def read_overrides(texts: list[str] | None) -> dict[str, Any]:
    """Turn ``key.path=value`` texts into a mapping."""
    from occluded_reid.config import parse_override

    changes: dict[str, Any] = {}
    for text in texts or []:
        key, value = parse_override(text)
        if key in changes:
            raise typer.BadParameter(f"{key} is given twice. Give it once.")
        changes[key] = value
    return changes


def read_weights(weights: str | None, weights_match: str | None) -> dict[str, Any]:
    """Return what --weights and --weights-match replace in a recipe."""
    from occluded_reid.config import is_hub

    changes: dict[str, Any] = {}
    if weights is not None:
        if weights not in ("hub", "none") and not is_hub(weights) and not Path(weights).exists():
            raise typer.BadParameter(
                f"--weights '{weights}' does not exist. Give 'hub', 'none', a file, or hf-hub:owner/name."
            )
        changes["model.backbone.weights"] = None if weights == "none" else weights
    if weights_match is not None:
        changes["model.backbone.weights_match"] = weights_match
    return changes


def read_widths(texts: list[str] | None) -> dict[str, int]:
    """Turn ``slot=width`` texts into a mapping; anything else is wrong usage."""
    widths: dict[str, int] = {}
    for text in texts or []:
        slot, _, width = text.rpartition("=")
        if not slot or not width.isdecimal() or slot in widths:
            raise typer.BadParameter(f"--reduce is '{text}'; give each slot once, with its width: --reduce global=256.")
        widths[slot] = int(width)
    return widths
