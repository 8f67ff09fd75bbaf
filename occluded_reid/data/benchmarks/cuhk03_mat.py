"""The files of CUHK03 as its authors pack them: images inside ``cuhk-03.mat``, splits in two more files of MATLAB."""

from __future__ import annotations

import importlib
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import SPLITS, Split, require_folder
from occluded_reid.data.images import image_files
from occluded_reid.errors import DataError, MissingExtraError
from occluded_reid.files import absolute, atomic_write, read_json, write_json

__all__ = ["KINDS", "TESTSETS", "config_file", "extract_cuhk03", "image_folder", "packed", "read_config"]

KINDS = ("detected", "labeled")
"""Boxes of a detector, and boxes drawn by hand."""

TESTSETS = "cuhk03_testsets.json"
"""Written last by the extraction: the people of the 20 classic test sets, and how many images there must be."""

_MAT = "cuhk-03.mat"
_PLACES = ("cuhk03_release", ".")
_IMAGES_OF_A_PERSON = 10  # cells for each person: five under each of the pair's two cameras
_AGAIN = "Download or copy it again."

Progress = Callable[[int, int], None]


def image_folder(kind: str) -> str:
    """Return the folder that images of a kind are extracted to."""
    return f"images_{kind}"


def config_file(kind: str) -> str:
    """Return the name of the file with the new protocol's split."""
    return f"cuhk03_new_protocol_config_{kind}.mat"


def packed(root: Path) -> Path | None:
    """Return ``cuhk-03.mat`` below a folder, or None where there is none."""
    return _first(root, _MAT)


@checked(DataError)
def extract_cuhk03(root: str | Path, out: str | Path | None = None, *, progress: Progress | None = None) -> Path:
    """Write the images of ``cuhk-03.mat`` as PNG files, once; `load_dataset("cuhk03", …)` reads those.

    Written are ``images_detected/`` and ``images_labeled/`` with files named after camera pair, person, view and image
    (``1_001_1_01.png``) and, last, the 20 classic test sets as JSON; splits of the new protocol that lie in `root` are
    copied beside them. Files that are there already are not written again: an extraction that was broken off goes on,
    and one that is whole returns at once. One image at a time is in memory.

    Args:
        root: the folder with ``cuhk03_release/cuhk-03.mat`` or ``cuhk-03.mat``.
        out: where to write; by default `root`.
        progress: called with (people done, people in all); both kinds of boxes count.

    Returns:
        The folder to give to `load_dataset`.

    Raises:
        DataError: there is no such file, it holds something else, or the folder cannot be written.
        MissingExtraError: h5py is not installed.
    """
    folder = require_folder(root)
    target = folder if out is None else absolute(out, DataError)
    mat = packed(folder)
    if mat is None:
        raise DataError(
            f"'{folder}' has neither {_PLACES[0]}/{_MAT} nor {_MAT}. Give the folder that CUHK03 was extracted to; "
            "images that lie there as files need no extraction."
        )
    if not _whole(target):
        h5py = _h5py()
        try:
            with h5py.File(mat, "r") as file:
                _extract(file, mat, target, progress)
        except (OSError, RuntimeError) as cause:
            raise DataError(f"'{mat}' cannot be read as a MATLAB file of version 7.3: {cause}. {_AGAIN}") from cause
    for kind in KINDS:
        source = _first(folder, config_file(kind))
        if source is not None and not (target / source.name).exists():
            with atomic_write(target / source.name, DataError) as temporary:
                shutil.copyfile(source, temporary)
    return target


def read_config(path: Path) -> dict[Split, list[str]]:
    """Return the image names of each split of the new protocol.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path, variable_names=["filelist", *(f"{s}_idx" for s in SPLITS)], squeeze_me=True)
        names = [str(name) for name in np.atleast_1d(content["filelist"])]
        rows = {split: np.atleast_1d(content[f"{split}_idx"]).astype(np.int64) - 1 for split in SPLITS}
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError, zlib.error) as cause:
        raise DataError(
            f"'{path}' cannot be read as a split of CUHK03 (filelist, train_idx, query_idx, gallery_idx): "
            f"{type(cause).__name__}: {cause}. {_AGAIN}"
        ) from cause
    for split, index in rows.items():
        if index.ndim != 1 or ((index < 0) | (index >= len(names))).any():
            raise DataError(f"{split}_idx of '{path}' points beyond its list of {len(names)} images. {_AGAIN}")
    return {split: [names[row] for row in index] for split, index in rows.items()}


def _extract(file: Any, mat: Path, target: Path, progress: Progress | None) -> None:
    pairs = {kind: [_people(file, ref, kind, mat) for ref in _references(file, kind, mat).ravel()] for kind in KINDS}
    testsets = [_testset(file[ref], mat) for ref in _references(file, "testsets", mat).ravel()]
    total = sum(len(people) for some in pairs.values() for people in some)
    done = 0
    written = dict.fromkeys(KINDS, 0)
    for kind, some in pairs.items():
        for pair, people in enumerate(some, start=1):
            for number, cells in enumerate(people, start=1):
                for name, pixels in _images(file, cells, f"{pair}_{number:03d}", mat):
                    _write(target / image_folder(kind) / name, pixels)
                    written[kind] += 1
                done += 1
                if progress is not None:
                    progress(done, total)
    write_json(target / TESTSETS, {"images": written, "testsets": testsets}, DataError)


def _references(holder: Any, name: str, mat: Path) -> np.ndarray:
    """A cell array of MATLAB: references to what its cells hold."""
    found = holder.get(name)
    cells = np.asarray(found) if getattr(found, "shape", None) else np.empty(0)
    if cells.dtype != object or not cells.size:
        raise DataError(f"'{mat}' has no cells '{name}'; wanted those of CUHK03: detected, labeled, testsets. {_AGAIN}")
    return cells


def _people(file: Any, reference: Any, kind: str, mat: Path) -> np.ndarray:
    """The cells of a camera pair, (people, 10): HDF5 has MATLAB's columns as rows."""
    cells = np.asarray(file[reference])
    if cells.dtype != object or cells.ndim != 2 or cells.shape[0] != _IMAGES_OF_A_PERSON:
        raise DataError(
            f"a camera pair of '{kind}' in '{mat}' is {cells.dtype} {cells.shape}; wanted {_IMAGES_OF_A_PERSON} cells "
            f"for each person. {_AGAIN}"
        )
    return cells.T


def _testset(content: Any, mat: Path) -> list[list[int]]:
    """The people of a classic test set: camera pair and number, both from 1."""
    rows = np.asarray(content)
    if rows.ndim != 2 or rows.shape[0] != 2 or not np.issubdtype(rows.dtype, np.number):
        raise DataError(f"a test set of '{mat}' is {rows.dtype} {rows.shape}; wanted pairs and numbers. {_AGAIN}")
    return [[int(pair), int(number)] for pair, number in rows.T]


def _images(file: Any, cells: np.ndarray, person: str, mat: Path) -> Iterator[tuple[str, np.ndarray]]:
    """File name and pixels of a person's images; empty cells are passed over."""
    for place, reference in enumerate(cells):
        pixels = np.asarray(file[reference])
        if pixels.ndim < 3 or not pixels.size:
            continue
        if pixels.dtype != np.uint8 or pixels.shape[0] != 3:
            raise DataError(
                f"image {place + 1} of person {person} in '{mat}' is {pixels.dtype} {pixels.shape}; wanted 8-bit RGB. "
                f"{_AGAIN}"
            )
        view = 1 if place < _IMAGES_OF_A_PERSON // 2 else 2
        yield f"{person}_{view}_{place + 1:02d}.png", pixels.T


def _write(path: Path, pixels: np.ndarray) -> None:
    if not path.exists():  # files are written whole or not at all
        with atomic_write(path, DataError) as temporary:
            Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def _whole(target: Path) -> bool:
    """Whether an extraction was finished there and its images still are."""
    if not (target / TESTSETS).is_file():
        return False
    wanted = read_json(target / TESTSETS, DataError).get("images", {})
    folders = {kind: target / image_folder(kind) for kind in KINDS}
    there = {kind: len(image_files(place)) if place.is_dir() else 0 for kind, place in folders.items()}
    return bool(wanted == there)


def _first(root: Path, name: str) -> Path | None:
    return next((root / place / name for place in _PLACES if (root / place / name).is_file()), None)


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as cause:
        raise MissingExtraError(
            f"{_MAT} is read with h5py, which is not installed: pip install 'occluded-reid[cuhk03]'"
        ) from cause
