"""Changing labels of images that are in a gallery: other columns of the same rows, in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.storage.manifest import LABELS
from occluded_reid.gallery.storage.records import Record, record_of
from occluded_reid.gallery.storage.store import ROW_ID, Store

__all__ = ["relabel_rows"]

_NUMBERS = 1 << 24  # numbers of the rows that are held at a time: 32 MB in float16


def relabel_rows(store: Store, records: Sequence[Record], columns: Sequence[str]) -> int:
    """Give images other labels; rows keep their number, and so their place, and what indexes know of them.

    Args:
        store: held for writing.
        records: an image each, with the labels that it is to have.
        columns: which of those labels.

    Returns:
        How many images have other labels now.

    Raises:
        GalleryError: an image is not in the gallery any more, or the folder cannot be written; nothing is changed then.
    """
    stored = _stored(store, [record.key for record in records])
    changing: list[Record] = []
    for record in records:
        if record.key not in stored:
            raise GalleryError(f"'{record.key}' is not in the gallery '{store.folder}' any more. Leave it out.")
        before = stored[record.key]
        after = replace(before, **{name: getattr(record, name) for name in columns})
        if after != before:
            changing.append(after)
    if changing:
        store.rewrite(_tables(store, changing, columns), f"relabel {len(changing)}")
    return len(changing)


def _stored(store: Store, keys: Sequence[str]) -> dict[str, Record]:
    ids = store.find(["key"], [keys]).column(ROW_ID).to_numpy()
    return {row["key"]: record_of(row) for row in store.take(ids, LABELS).to_pylist()}


def _tables(store: Store, records: Sequence[Record], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Whole rows with other labels, some at a time; read when they are asked for, since addresses move meanwhile."""
    schema = store.manifest.arrow_schema()
    size = max(1, _NUMBERS // store.manifest.width)
    for first in range(0, len(records), size):
        wanted = {record.key: record for record in records[first : first + size]}
        found = store.find(["key"], [list(wanted)])
        table = store.take(np.asarray(found.column(ROW_ID)), schema.names)
        keys = table.column("key").to_pylist()
        for name in columns:
            values = pa.array([getattr(wanted[key], name) for key in keys], schema.field(name).type)
            table = table.set_column(table.schema.get_field_index(name), schema.field(name), values)
        yield table.cast(schema)
