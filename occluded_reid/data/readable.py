"""Leaving images that cannot be read out of a data set, counted and named, instead of stopping at the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import SPLITS, ReIDData, Split
from occluded_reid.data.images import open_image
from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError, ImageError

__all__ = ["without_unreadable"]

_THREADS = 4
_CHUNK = 256
_NAMED = 20


@checked(DataError)
def without_unreadable(
    data: ReIDData, splits: Collection[Split] = SPLITS, *, progress: Callable[[int, int], None] | None = None
) -> ReIDData:
    """Decode every image of some splits once, and return the data set without those that cannot be read.

    A note counts and names them. Who is held out does not change by it: take identities out before, as `load_dataset`
    does. Masks are not looked at: one that is wrong must be mended.

    Args:
        data: the data set.
        splits: which are read; the others stay as they are.
        progress: called with (images read, images to read).

    Raises:
        DataError: of a split none can be read.
    """
    files = list(dict.fromkeys(sample.path for split in splits for sample in data.split(split)))
    lost: set[Path] = set()
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            lost |= {path for path, good in zip(chunk, pool.map(_readable, chunk), strict=True) if not good}
            if progress is not None:
                progress(start + len(chunk), len(files))
    if not lost:
        return data
    left_out = LeftOut()
    named: set[str] = set()
    kept = {split: data.split(split) for split in SPLITS}
    for split in splits:
        kept[split] = tuple(sample for sample in data.split(split) if sample.path not in lost)
        gone = [sample.name for sample in data.split(split) if sample.path in lost]
        if gone and not kept[split]:
            raise DataError(
                f"none of the {len(gone)} images of '{data.name}' in {split} can be read, the first is '{gone[0]}'. "
                "Copy the data set again."
            )
        for name in gone:
            if name not in named:
                named.add(name)
                left_out.add(name, "cannot be read", "images")
    notes = (*data.notes, *left_out.notes(named=_NAMED))
    return replace(data, train=kept["train"], query=kept["query"], gallery=kept["gallery"], notes=notes)


def _readable(path: Path) -> bool:
    try:
        open_image(path)
    except ImageError:
        return False
    return True
