"""Which folders of a tree are splits, however they are spelt, so that no split is ever taken for a person."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from occluded_reid.data.dataset import Split
from occluded_reid.data.images import RUBBISH, image_files
from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError

__all__ = ["split_folders", "split_role", "sub_folders"]

Role = Literal["train", "query", "gallery", "test", "validation"]

_ROLES: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "boundingboxtrain": "train",
    "query": "query",
    "queries": "query",
    "probe": "query",
    "probes": "query",
    "boundingboxquery": "query",
    "gallery": "gallery",
    "galleries": "gallery",
    "boundingboxgallery": "gallery",
    "boundingboxtest": "gallery",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "boundingboxval": "validation",
}
_MORE = re.compile("(set|split|images?|imgs?)$")  # train_set, query-images, …
_BESIDE = {"masks", "occlusion"}  # trees that may lie beside the splits, and mirror them
_BOXES = re.compile("bounding_?box_?(train|test)")  # Market-1501 and its like: nobody's name


def sub_folders(root: Path, left_out: LeftOut, *, below: str = "") -> list[Path]:
    """Return the sub-folders of a folder, sorted; hidden ones and those of other programs are counted as left out.

    Args:
        root: where to look.
        left_out: what is passed over is added here; links to folders are followed.
        below: what names are given after.

    Raises:
        DataError: the folder cannot be read.
    """
    found: list[Path] = []
    try:
        with os.scandir(root) as entries:
            here = sorted(entries, key=lambda entry: entry.name)
    except OSError as cause:
        raise DataError(f"the folder '{root}' cannot be read: {cause.strerror}. Look at its permissions.") from cause
    for entry in here:
        try:
            if not entry.is_dir():
                continue
        except OSError:  # a link to where nobody may look
            left_out.add(f"{below}{entry.name}", "which may not be followed", "links")
            continue
        if entry.name.startswith("."):
            left_out.add(f"{below}{entry.name}", "hidden", "folders")
        elif entry.name in RUBBISH:
            left_out.add(f"{below}{entry.name}", "which other programs have made", "folders")
        else:
            found.append(root / entry.name)
    return found


def split_folders(root: Path, folders: Iterable[Path], left_out: LeftOut, notes: list[str]) -> dict[Split, Path]:
    """Return the folder of each split, or nothing where every sub-folder is a person.

    Names of splits count in any case, with or without underscores: train, training, bounding_box_train; query, queries,
    probe; gallery, bounding_box_test; test (the gallery where there are queries); val, valid, validation. Where one of
    them is there, folders of other names beside it are nobody and left out.

    Args:
        root: of the data set.
        folders: its sub-folders.
        left_out: folders that are nobody are added here.
        notes: what else a user should know is added here.

    Raises:
        DataError: what the folders are cannot be told: two are one split, a split holds images and no folders of
            people, or splits lie where people should.
    """
    folders = list(folders)
    known = _by_role(folders)
    if not known:
        _refuse_splits_below(folders)
        return {}
    named = {path for paths in known.values() for path in paths}
    others = [path for path in folders if path not in named and path.name.lower() not in _BESIDE]
    for path in sorted(named):
        _require_people(root, path, others)
    if twice := next((paths for paths in known.values() if len(paths) > 1), None):
        raise DataError(
            f"'{root}' has {_listed(twice)}, which are names of one and the same split. Keep one of them, or list the "
            "images in a CSV file (csv=…) with a split column."
        )
    if len(named) == 1 and (people := [path for path in others if _holds_images(path)]):
        raise DataError(
            f"'{root}' has the folder '{next(iter(named)).name}', which is the name of a split, beside "
            f"{len(people)} folders of images such as '{people[0].name}'. If it is a person, rename it; if it is a "
            "split, put the others into splits of their own (train/, query/, gallery/) or elsewhere."
        )
    splits = _chosen(root, {role: paths[0] for role, paths in known.items()}, left_out, notes)
    for path in others:
        left_out.add(path.name, "beside the splits and so nobody's", "folders")
    return splits


def split_role(name: str) -> Role | None:
    """Return what a name says of a split, in any case and spelling, or None where it is no split's.

    Example:
        >>> [split_role(name) for name in ("Train", "bounding-box-test", "probe", "test_set", "val", "anna")]
        ['train', 'gallery', 'query', 'test', 'validation', None]
    """
    plain = re.sub(r"[\s_.-]", "", name).casefold()
    return _ROLES.get(plain) or _ROLES.get(_MORE.sub("", plain))


def _by_role(folders: Iterable[Path]) -> dict[Role, list[Path]]:
    known: dict[Role, list[Path]] = {}
    for path in folders:
        if role := split_role(path.name):
            known.setdefault(role, []).append(path)
    return known


def _chosen(root: Path, known: dict[Role, Path], left_out: LeftOut, notes: list[str]) -> dict[Split, Path]:
    splits: dict[Split, Path] = {}
    if (test := known.get("test")) is not None:
        inner = _by_role(_below(test))
        if {"query", "gallery"} <= set(inner) and not {"query", "gallery"} & set(known):
            known = {**known, "query": inner["query"][0], "gallery": inner["gallery"][0]}
        elif "query" in known and "gallery" not in known:
            known = {**known, "gallery": test}
            notes.append(f"{test.name}/ is taken for the gallery of {known['query'].name}/")
        else:
            left_out.add(test.name, "for which query/ and gallery/ are needed", "folders")
    if "validation" in known:
        why = "as validation people are taken out of training (validation=N)"
        left_out.add(known["validation"].name, why, "folders")
    if "train" in known:
        splits["train"] = known["train"]
    if "query" in known:
        splits["query"] = known["query"]
    if "gallery" in known:
        splits["gallery"] = known["gallery"]
    if not splits:
        raise DataError(
            f"'{root}' has {_listed(list(known.values()))} and neither train/ nor query/ and gallery/: no image "
            "could be trained on or searched for. Rename them to what they are, or list images in a CSV file (csv=…)."
        )
    return splits


def _require_people(root: Path, split: Path, others: list[Path]) -> None:
    """A split holds folders of people; images directly in it are of unknown people, or it is a person itself."""
    loose = len(image_files(split))
    if not loose or sub_folders(split, LeftOut()):
        return
    if boxes := [path for path in _below(root) if _BOXES.fullmatch(path.name.casefold())]:
        raise DataError(
            f"'{root}' has {_listed(boxes)}, so it is in the layout of Market-1501 and not in "
            "sub-folders of one person each. Load it as 'market1501' (with own=True for images of your own), or as the "
            "published data set that it is."
        )
    raise DataError(
        f"'{split}' has the name of a split and holds {loose} images, but no sub-folder for each person"
        + (f" (beside it is '{others[0].name}')" if others else "")
        + f". Wanted {split.name}/<identity>/…; if it is a person, rename the folder, or list images in a CSV file "
        "(csv=…)."
    )


def _refuse_splits_below(folders: Iterable[Path]) -> None:
    """Splits one level too low would become one person: two of them, or one that holds folders of people itself."""
    for folder in folders:
        inner = [path for paths in _by_role(_below(folder)).values() for path in paths]
        if len(inner) > 1 or any(_BOXES.fullmatch(path.name.casefold()) or _below(path) for path in inner):
            raise DataError(
                f"'{folder}' holds {_listed(inner)}, which are names of splits, where a person's images should be. If "
                "it is the data set, give that folder as the root; if not, list the images in a CSV file (csv=…)."
            )


def _below(folder: Path) -> list[Path]:
    """Sub-folders, or none where the folder may not be read: whoever loads it says so."""
    try:
        return sub_folders(folder, LeftOut())
    except DataError:
        return []


def _holds_images(folder: Path) -> bool:
    try:
        return bool(image_files(folder))
    except DataError:  # it may not be read
        return False


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(f"{path.name}/" for path in sorted(paths))
