"""Folders of images whose names say who it is and which camera saw it: 0002_c1s1_000451_03.jpg."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from occluded_reid.data.benchmark import Benchmark, Layout
from occluded_reid.data.dataset import ReIDData, Sample, Split, mirrored, require_folder
from occluded_reid.data.images import image_files
from occluded_reid.data.layouts import archives_beside, explain_folder
from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError

__all__ = [
    "FOLDERS",
    "PATTERN",
    "load_market_style",
    "market_layouts",
    "never_asked",
    "read_market_images",
    "splits_to_read",
    "with_notes",
]

FOLDERS: dict[Split, str] = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
"""Where the images of each split are."""

PATTERN = r"(-?\d+)_c(\d+)"
"""What a file name begins with: the identity, and the camera from 1."""

_NAME = re.compile(PATTERN)
_NOBODY: frozenset[int] = frozenset()


def market_layouts(example: str) -> tuple[Layout, ...]:
    """Return the three folders as a layout, whole and in the parts that are of use alone."""
    test: tuple[Split, ...] = ("query", "gallery")
    return (
        Layout("as downloaded", {split: (folder,) for split, folder in FOLDERS.items()}, example=example),
        Layout("queries and gallery alone", {split: (FOLDERS[split],) for split in test}, example=example),
        Layout("training images alone", {"train": (FOLDERS["train"],)}, example=example),
    )


def load_market_style(
    root: str | Path,
    benchmark: Benchmark,
    *,
    train_only: bool | None = None,
    junk: Collection[int] = _NOBODY,
    nobody: Collection[int] = _NOBODY,
) -> ReIDData:
    """Load ``bounding_box_train/``, ``query/`` and ``bounding_box_test/``, or only the first (then use a hold-out).

    Part masks in ``masks/`` and occluder masks in ``occlusion/`` beside the three folders, mirroring them, are attached
    where they exist.

    Args:
        root: the folder that holds the three folders.
        benchmark: what is known about the data set; its first layout has an example of a name.
        train_only: True leaves queries and gallery alone, False insists on all three folders; None takes what is there.
        junk: identities that are dropped everywhere.
        nobody: identities that are kept in the gallery and nowhere else: distractors.

    Raises:
        DataError: the folder is one too high, one too low, empty, lacks a folder, or holds no image with such a name.
    """
    root = require_folder(root)
    wanted = splits_to_read(root, benchmark, train_only)
    example = benchmark.layouts[0].example
    notes: list[str] = []
    splits: dict[Split, tuple[Sample, ...]] = {}
    for split in wanted:
        passed = LeftOut()
        files = image_files(root / FOLDERS[split], left_out=passed)
        keep = nobody if split == "gallery" else ()
        samples, said = read_market_images(root, files, example, junk=junk, misplaced=set(nobody) - set(keep))
        if not samples:
            raise DataError(_nothing_in(root, FOLDERS[split], len(files), example))
        splits[split] = tuple(samples)
        notes += [*(f"{FOLDERS[split]}: {note}" for note in said), *passed.notes(f"{FOLDERS[split]}: ")]
    if "query" not in splits:
        notes.append("only the training folder is loaded: queries and a gallery for evaluation come from holdout=N")
    gallery = splits.get("gallery", ())
    return ReIDData(
        name=benchmark.name,
        root=root,
        train=splits.get("train", ()),
        query=splits.get("query", ()),
        gallery=gallery,
        distractors=frozenset(sample.person for sample in gallery if int(sample.person) in nobody),
        licence=benchmark.licence,
        citation=benchmark.citation,
        notes=with_notes(benchmark, notes),
        benchmark=benchmark,
    )


def splits_to_read(root: Path, benchmark: Benchmark, train_only: bool | None = None) -> list[Split]:
    """Return the splits whose folders are there; queries and a gallery are of no use without each other.

    Raises:
        DataError: no folder is there, or one is missing that is needed.
    """
    present = [split for split, folder in FOLDERS.items() if (root / folder).is_dir()]
    if not present:
        raise DataError(explain_folder(root, benchmark.title, benchmark.layouts))
    if train_only:
        wanted: list[Split] = ["train"]
    elif train_only is False:
        wanted = list(FOLDERS)
    else:
        wanted = [*(("train",) if "train" in present else ()), *(("query", "gallery") if present != ["train"] else ())]
    missing = [FOLDERS[split] for split in wanted if split not in present]
    if missing:
        raise DataError(
            f"'{root}' has no {'/ and no '.join(missing)}/, only {'/, '.join(FOLDERS[split] for split in present)}/."
            f"{archives_beside(root)} Copy the whole data set, or load it with train_only=True and a holdout."
        )
    return wanted


def read_market_images(
    root: Path,
    files: Iterable[Path],
    example: str,
    *,
    junk: Collection[int] = _NOBODY,
    misplaced: Collection[int] = _NOBODY,
) -> tuple[list[Sample], list[str]]:
    """Turn image files into samples by their names.

    Args:
        root: of the data set, which the files lie below; masks are looked for in trees beside them.
        files: image files.
        example: name of an image, for the notes.
        junk: identities that are dropped.
        misplaced: identities that are distractors and do not belong among these images; dropped too.

    Returns:
        The samples, and a note for each reason why images were left out.
    """
    masks, occlusion = ((root / kind) if (root / kind).is_dir() else None for kind in ("masks", "occlusion"))
    samples: list[Sample] = []
    left_out = LeftOut()
    for path in files:
        match = _NAME.match(path.name)
        if match is None or int(match[2]) < 1:
            left_out.add(path.name, f"not named like {example}", "images")
        elif int(match[1]) in junk:
            left_out.add(path.name, f"junk, identity {int(match[1])}", "images")
        elif int(match[1]) in misplaced:
            left_out.add(path.name, "distractors, which belong in the gallery", "images")
        else:
            name = path.relative_to(root).as_posix()
            mask, occluder = (mirrored(tree, name) if tree else None for tree in (masks, occlusion))
            samples.append(Sample(name, path, match[1], int(match[2]), mask, occluder))
    return samples, left_out.notes()


def never_asked(data: ReIDData) -> frozenset[str]:
    """Return the identities of the gallery that are never a query, nor trained on: distractors without a number."""
    known = {sample.person for sample in (*data.query, *data.train)}
    return frozenset(sample.person for sample in data.gallery) - known


def with_notes(benchmark: Benchmark, notes: Iterable[str]) -> tuple[str, ...]:
    """Return the notes of a loader, after what its authors said when they withdrew the data."""
    withdrawn = [f"{benchmark.title} is withdrawn: {benchmark.withdrawn}"] if benchmark.withdrawn else []
    return (*withdrawn, *notes)


def _nothing_in(root: Path, folder: str, files: int, example: str) -> str:
    if not files:
        return (
            f"'{root / folder}' is empty, although the folder is there: the data set is only half copied or extracted."
            f"{archives_beside(root)} Copy or extract it again."
        )
    return (
        f"'{root / folder}' holds {files} images, none of them named like {example} "
        "(identity, then _c and the camera from 1). Copy the data set again, or use the data set 'folder'."
    )
