"""Which key somebody may have meant who gave one that a gallery does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from occluded_reid.gallery.storage.table import TableReader
from occluded_reid.registry import did_you_mean

__all__ = ["near_keys"]

_SHOWN = 3
_COMPARED = 20_000  # keys among which a misspelt one is looked for: letter by letter, that takes a second


def near_keys(reader: TableReader, key: str) -> str:
    """Return " Did you mean 'tuesday/a.jpg'?" for keys of the same file in other folders, else for one spelt alike.

    Keys are paths below some folder: which one, and with which prefix, is what is forgotten first. One pass over the
    keys.

    Args:
        reader: the version that is read.
        key: what it does not hold.

    Returns:
        The hint, with a blank before it, or an empty text.
    """
    name = PurePosixPath(key.replace("\\", "/")).name
    alike: list[str] = []
    compared: list[str] = []
    for batch in reader.scan(["key"]):
        column = batch.column("key")
        if name:
            alike += column.filter(_named(column, name)).to_pylist()
        if len(compared) < _COMPARED:
            compared += column.slice(0, _COMPARED - len(compared)).to_pylist()
    if not alike:
        return did_you_mean(key, compared)
    nearest = sorted(alike, key=lambda other: (-_shared(key, other), len(other), other))[:_SHOWN]
    more = ", …" if len(alike) > _SHOWN else ""
    return f" Did you mean {' or '.join(map(repr, nearest))}{more}?"


def _named(column: pa.Array, name: str) -> pa.Array:
    """Whether keys are this name, or end with it behind a slash."""
    return pc.or_(pc.equal(column, name), pc.ends_with(column, pattern=f"/{name}"))


def _shared(key: str, other: str) -> int:
    """How many parts of two paths are equal, from the last one on."""
    ours: Sequence[str] = key.replace("\\", "/").split("/")
    pairs = zip(reversed(ours), reversed(other.split("/")), strict=False)
    return next((number for number, (left, right) in enumerate(pairs) if left != right), len(ours))
