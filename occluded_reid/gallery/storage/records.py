"""What is known about an image beside its slots, and the table rows that both make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from occluded_reid.arguments import is_several, shown
from occluded_reid.data.times import seconds_of
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.storage.manifest import LABELS, Manifest
from occluded_reid.gallery.values import finite, is_text

__all__ = ["Labels", "Record", "make_records", "record_of", "same_rows", "to_table"]

_DEEPEST = 100  # brackets of metadata within each other
_NO_UTF8 = ", and that UTF-8 can hold: rename a file whose name is no UTF-8"

Labels = Mapping[str, Any]
"""Arguments of `Gallery.add` by name: a sequence with a value for each image, or one value for all."""


@dataclass(frozen=True)
class Record:
    """The labels of one image, as the table's columns of the same names hold them; metadata is JSON."""

    key: str
    identity: str | None = None
    camera: int | None = None
    time: float | None = None
    track: str | None = None
    path: str | None = None
    sha256: str | None = None
    metadata: str = "{}"

    def differs(self, other: Record, *, ignore: tuple[str, ...], unsaid: bool = False) -> bool:
        """Whether any label differs but those to ignore, and, with `unsaid`, those that this record leaves unknown."""
        return any(
            getattr(self, f.name) != getattr(other, f.name)
            for f in fields(self)
            if f.name not in ignore and not (unsaid and getattr(self, f.name) == f.default)
        )


def make_records(count: int, keys: Sequence[str], labels: Labels) -> list[Record]:
    """Check labels and return a record for each image.

    Raises:
        GalleryError: a label has another length than the images, or a value has the wrong type; its key and place are
            named.
    """
    columns = {"keys": _column("keys", keys, count)}
    columns.update({name: _column(name, values, count) for name, values in labels.items()})
    records = []
    for number in range(count):
        key = columns["keys"][number]
        if not is_text(key) or not key:
            why = _NO_UTF8 if key and isinstance(key, str) else ""
            raise GalleryError(f"keys: number {number} is {key!r}; give a text that is not empty{why}.")
        values = {
            name: _checked(name, column[number], key, number) for name, column in columns.items() if name != "keys"
        }
        records.append(Record(key, **values))
    return records


def record_of(row: Mapping[str, Any]) -> Record:
    """Return a table row's labels as a record."""
    return Record(**{name: row[name] for name in LABELS})


def same_rows(left: PartEmbeddings, right: PartEmbeddings, manifest: Manifest) -> np.ndarray:
    """Whether pairs of rows are the same within what batch size and storage do to the last digits, (N,)."""
    tolerance = 2e-3 if manifest.dtype == "float16" else 1e-4
    same = ((left.visibility - right.visibility).abs() <= 1e-4).all(1)
    for a, b in zip(left.embeddings, right.embeddings, strict=True):
        same &= (a.float() - b.float()).abs().amax(1) <= tolerance * b.float().abs().amax(1)
    return same.numpy()


def to_table(records: Sequence[Record], rows: PartEmbeddings, numbers: Sequence[int], manifest: Manifest) -> pa.Table:
    """Return table rows.

    Args:
        records: N labels.
        rows: N rows of slots.
        numbers: N values of the column `row`.
        manifest: of the gallery.

    Raises:
        GalleryError: an embedding does not fit into float16; its key is named.
    """
    schema = manifest.arrow_schema()
    columns: dict[str, pa.Array] = {"row": pa.array(numbers, pa.int64())}
    for name in LABELS:
        columns[name] = pa.array([getattr(record, name) for record in records], schema.field(name).type)
    columns["visibility"] = _lists(rows.visibility.float().numpy())
    for column, name, slot in zip(manifest.columns, rows.names, rows.embeddings, strict=True):
        stored = slot.to(torch.float16 if manifest.dtype == "float16" else torch.float32)
        # The largest number of a row tells whether it overflows, or vanishes altogether.
        largest = slot.abs().amax(1)
        kept = largest.to(stored.dtype)
        lost = ~kept.isfinite() | ((kept == 0) & (largest > 0))
        if bool(lost.any()):
            first = int(lost.nonzero()[0])
            raise GalleryError(
                f"slot '{name}' of '{records[first].key}' does not fit into {manifest.dtype}: its largest number is "
                f"{float(largest[first]):.3g}. Create the gallery with dtype='float32'."
            )
        columns[column] = _lists(stored.numpy())
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _lists(matrix: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1)), matrix.shape[1])


def _column(name: str, values: Any, count: int) -> Sequence[Any]:
    if not is_several(values):
        if name == "keys":
            raise GalleryError(f"keys is {values!r}; give a sequence with a text for each of the {count} images.")
        return [values] * count
    column = list(values)
    if len(column) != count:
        raise GalleryError(
            f"{name} has {len(column)} values for {count} images; give one for each image, or one for all."
        )
    return column


def _checked(name: str, value: Any, key: str, number: int) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()  # of finer ones Python makes a number without a unit
    elif isinstance(value, np.generic):
        value = value.item()
    plain = not isinstance(value, bool)
    wanted = "a mapping that JSON can hold"
    if name == "metadata":
        if value is None or isinstance(value, Mapping):
            try:
                text = json.dumps(dict(value or {}), sort_keys=True, ensure_ascii=False, allow_nan=False)
                text.encode()
            except (TypeError, ValueError, RecursionError) as cause:
                raise GalleryError(f"metadata of '{key}' cannot be kept as JSON: {cause}. Give {wanted}.") from cause
            if _depth(text) <= _DEEPEST:
                return text
            wanted += f", at most {_DEEPEST} deep"
    elif value is None:
        return None
    elif name == "camera":
        wanted = "a whole number, a name or None"
        if isinstance(value, int) and plain and abs(value) < 1 << 63:
            return value
    elif name == "time":
        wanted = "a finite number, a datetime or None"
        seconds = seconds_of(value) if isinstance(value, datetime) else value
        if isinstance(seconds, int | float) and plain and finite(seconds):
            return float(seconds) + 0.0  # -0.0 would be another text in a filter than 0.0
    else:
        wanted = "a text or None" if name == "path" else "a text, a whole number or None"
        if isinstance(value, int) and plain and name != "path" and abs(value) < 1 << 63:
            return str(value)
        if is_text(value):
            return value
    raise GalleryError(f"{name} of '{key}' is {shown(value)}; give {wanted} (it is number {number}, counted from 0).")


def _depth(text: str) -> int:
    """How deep JSON nests, at most: brackets within its texts are counted as well."""
    steps = np.fromiter(((sign in "{[") - (sign in "}]") for sign in text if sign in "{[]}"), np.int64)
    return int(np.cumsum(steps).max(initial=0))
