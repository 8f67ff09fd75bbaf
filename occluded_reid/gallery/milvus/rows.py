"""Rows of a gallery as a server holds them, and as the embedded table does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters.where import MILVUS_KNOWN
from occluded_reid.gallery.milvus.schema import BYTES, VISIBILITY
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.gallery.storage.store import ROW_ID

__all__ = [
    "MESSAGE_NUMBERS",
    "NAMED",
    "hashed",
    "joined",
    "label_row",
    "messages",
    "numbered",
    "padded",
    "parts",
    "stored",
    "to_lists",
    "to_matrix",
    "to_table",
]

MESSAGE_NUMBERS = 1 << 22
"""Numbers of one message: 16 MB in float32, a quarter of what a server takes by default."""
NAMED = 4096
"""Rows that are named in one expression."""

_MESSAGE_TEXT = 1 << 24  # bytes of labels in one message


def to_table(found: Sequence[Any], columns: Sequence[str], manifest: Manifest) -> pa.Table:
    """Return labels and visibility as the embedded table has them, unknown values as null, and the row address."""
    schema, arrays = manifest.arrow_schema(), {}
    for column in columns:
        values = [row[column] for row in found]
        if column == VISIBILITY:
            matrix = np.array(values, dtype=np.float32).reshape(len(values), max(2, len(manifest.slots)))
            arrays[column] = to_lists(matrix[:, : len(manifest.slots)], schema.field(column).type)
        else:
            if known := MILVUS_KNOWN.get(column):
                values = [value if row[known] else None for value, row in zip(values, found, strict=True)]
            arrays[column] = pa.array(values, schema.field(column).type)
    return pa.table({**arrays, ROW_ID: pa.array([row["row"] for row in found], pa.uint64())})


def joined(*expressions: str | None) -> str | None:
    """Return the expression that all of these hold."""
    given = [expression for expression in expressions if expression]
    return " and ".join(f"({expression})" for expression in given) if len(given) > 1 else next(iter(given), None)


def stored(columns: Sequence[str]) -> list[str]:
    """What must be read to know these columns."""
    return sorted({"row", *columns, *(MILVUS_KNOWN[column] for column in columns if column in MILVUS_KNOWN)})


def label_row(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return labels as a server holds them.

    Raises:
        GalleryError: a text is longer than a server takes; its key is named.
    """
    written: dict[str, Any] = {"row": number}
    for name, value in row.items():
        if isinstance(value, str) and len(value.encode()) > BYTES:
            raise GalleryError(
                f"{name} of '{row['key'][:80]}' has {len(value.encode()):,} bytes; a server keeps up to {BYTES:,}. "
                "Shorten it, or keep it elsewhere under the key."
            )
        if name in MILVUS_KNOWN:
            written[MILVUS_KNOWN[name]] = value is not None
        written[name] = value if value is not None else {"camera": 0, "time": 0.0}.get(name, "")
    return written


def messages(rows: Sequence[Mapping[str, Any]], width: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Cut rows into messages that a server takes."""
    first, text = 0, 0
    for i, row in enumerate(rows):
        size = sum(len(value.encode()) for value in row.values() if isinstance(value, str))
        if i > first and ((i - first + 1) * width > MESSAGE_NUMBERS or text + size > _MESSAGE_TEXT):
            yield rows[first:i]
            first, text = i, 0
        text += size
    if rows:
        yield rows[first:]


def hashed(key: str) -> str:
    """Return the primary key of a key: 128 bits in hexadecimal digits, which need no quoting and spread evenly."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def numbered(column: str, numbers: np.ndarray) -> str:
    """Return the expression that a column holds one of these numbers."""
    return f"{column} in {numbers.tolist()}"


def parts(numbers: np.ndarray, size: int = NAMED) -> list[np.ndarray]:
    """Cut numbers into parts that one expression may name."""
    size = max(1, min(size, NAMED))
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]


def to_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of lists as float32 (n, width)."""
    chunks = [c.flatten().to_numpy(zero_copy_only=False).astype(np.float32) for c in column.chunks]
    flat = np.concatenate(chunks) if chunks else np.empty(0, np.float32)
    return np.asarray(flat.reshape(len(column), -1))


def padded(matrix: np.ndarray) -> np.ndarray:
    """Return at least two columns, because newer servers take no shorter vectors; zeros change no distance."""
    return np.pad(matrix, ((0, 0), (0, max(0, 2 - matrix.shape[1]))))


def to_lists(matrix: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return (n, width) numbers as a column of the embedded table."""
    numbers = np.ascontiguousarray(matrix).reshape(-1).astype(kind.value_type.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers, kind.value_type), kind.list_size)
