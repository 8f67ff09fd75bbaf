"""The Market-1501 layout: three folders, identity and camera in the file name."""

from __future__ import annotations

import re
from pathlib import Path

from occluded_reid.data.dataset import ReIDData, Sample, Split, mirrored, require_folder
from occluded_reid.data.images import image_files
from occluded_reid.errors import DataError
from occluded_reid.registry import DATASETS

__all__ = ["load_market1501"]

_FOLDERS: dict[Split, str] = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
_NAME = re.compile(r"(-?\d+)_c(\d+)")
_EXAMPLE = "0002_c1s1_000451_03.jpg"
_JUNK, _DISTRACTOR = -1, 0


@DATASETS.register("market1501")
def load_market1501(root: str | Path, *, train_only: bool | None = None) -> ReIDData:
    """Load ``bounding_box_train/``, ``query/`` and ``bounding_box_test/``, or only the first (then use a hold-out).

    Identity and camera come from names such as ``0002_c1s1_000451_03.jpg`` (camera 1 becomes number 0). Images of
    identity -1 are junk and dropped; those of 0000 are distractors: kept in the gallery, never trained on or asked for.
    Part masks in ``masks/`` and occluder masks in ``occlusion/`` beside the three folders, mirroring them, are attached
    where they exist (the synthetic set has them).

    Args:
        root: the folder that holds the three folders.
        train_only: True leaves queries and gallery alone, False insists on all three folders; None takes what is there.

    Raises:
        DataError: the folder is one too high, one too low, empty, lacks a folder, or holds no image with such a name.
    """
    root = require_folder(root)
    present = [split for split, folder in _FOLDERS.items() if (root / folder).is_dir()]
    if not present:
        raise DataError(_what_is_there(root))
    if train_only:
        wanted: list[Split] = ["train"]
    elif train_only is False:
        wanted = list(_FOLDERS)
    else:  # queries and a gallery are of no use without each other
        wanted = [*(("train",) if "train" in present else ()), *(("query", "gallery") if present != ["train"] else ())]
    missing = [_FOLDERS[split] for split in wanted if split not in present]
    if missing:
        raise DataError(
            f"'{root}' has no {'/ and no '.join(missing)}/, only {'/, '.join(_FOLDERS[split] for split in present)}/. "
            "Copy the whole data set, or load it with train_only=True and a holdout."
        )
    notes: list[str] = []
    splits = {split: tuple(_read(root, split, notes)) for split in wanted}
    if "query" not in splits:
        notes.append("only the training folder is loaded: queries and a gallery for evaluation come from holdout=N")
    return ReIDData(
        name=root.resolve().name or "market1501",
        root=root,
        train=splits.get("train", ()),
        query=splits.get("query", ()),
        gallery=splits.get("gallery", ()),
        distractors=frozenset(s.identity for s in splits.get("gallery", ()) if int(s.identity) == _DISTRACTOR),
        licence="Market-1501: for research, as its authors distribute it (data in this layout may have other terms)",
        citation="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015",
        notes=tuple(notes),
    )


def _read(root: Path, split: Split, notes: list[str]) -> list[Sample]:
    """Samples of one split; what is left out is told in the notes."""
    folder = _FOLDERS[split]
    files = image_files(root / folder)
    masks, occlusion = ((root / kind) if (root / kind).is_dir() else None for kind in ("masks", "occlusion"))
    samples: list[Sample] = []
    left_out: dict[str, list[str]] = {}
    for path in files:
        match = _NAME.match(path.name)
        if match is None or int(match[2]) < 1:
            left_out.setdefault(f"not named like {_EXAMPLE}", []).append(path.name)
        elif int(match[1]) == _JUNK:
            left_out.setdefault("junk, identity -1", []).append(path.name)
        elif int(match[1]) == _DISTRACTOR and split != "gallery":
            left_out.setdefault("distractors, which belong in the gallery", []).append(path.name)
        else:
            name = f"{folder}/{path.name}"
            mask, occluder = (mirrored(tree, name) if tree else None for tree in (masks, occlusion))
            samples.append(Sample(name, path, match[1], int(match[2]) - 1, mask, occluder))
    if not samples:
        raise DataError(
            f"'{root / folder}' holds {len(files)} images, none of them named like {_EXAMPLE} "
            "(identity, then _c and the camera from 1). Copy the data set again, or use the data set 'folder'."
        )
    notes += [f"{folder}: {len(names)} images left out, {why} ({names[0]})" for why, names in left_out.items()]
    return samples


def _what_is_there(root: Path) -> str:
    """Why nothing was found, and what to do: most often the root is a folder too high or too low."""
    wanted = "wanted the folder that holds bounding_box_train/ (and query/, bounding_box_test/)"
    if root.resolve().name in _FOLDERS.values():
        return f"'{root}' is one folder too low: {wanted}. Give '{root.resolve().parent}'."
    patterns = [f"{above}/{folder}" for above in ("*", "*/*") for folder in _FOLDERS.values()]
    below = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    if below:
        return f"'{root}' is a folder too high: {wanted}. Give '{below[0].parent}'."
    return (
        f"'{root}' is not in the layout of Market-1501: {wanted}. "
        "For id/… sub-folders or a CSV file use the data set 'folder'."
    )
