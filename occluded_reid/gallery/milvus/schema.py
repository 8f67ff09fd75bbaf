"""The collections of a gallery on a server: one of labels, and one for each slot.

A server older than 2.4 keeps one vector a row, and newer ones four by default, fewer than SGAM's slots: so every server
gets a collection for each slot. A row of a slot never changes: it lies under its number `row`, which is never used
twice. The collection of labels says under each key which row counts; it is written last and removed from first, so that
an image is there as a whole or not at all. What a broken write leaves in a slot's collection counts nowhere.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters.where import MILVUS_KNOWN
from occluded_reid.gallery.milvus.address import MilvusAddress
from occluded_reid.gallery.storage.manifest import FORMAT_VERSION, LABELS, Manifest

__all__ = [
    "BYTES",
    "EMBEDDING",
    "ID",
    "PARTITIONS",
    "VISIBILITY",
    "describe",
    "labels_schema",
    "require_widths",
    "slot_collection",
    "slot_schema",
    "to_manifest",
]

BYTES = 65_535
"""Longest text of a label, in bytes of UTF-8."""
ID = "id"
"""Primary key of the labels: a hash of the key, which itself may hold anything."""
EMBEDDING = "embedding"
VISIBILITY = "visibility"

_VERSION = 1
_WIDEST = 32_768
PARTITIONS = 16
"""Parts of a slot's collection, over which the server spreads the cameras: a filter by camera looks into one alone."""


def slot_collection(collection: str, number: int) -> str:
    """Return the name of the collection that holds a slot."""
    return f"{collection}__slot_{number}"


def require_widths(manifest: Manifest) -> None:
    """Raise GalleryError where a slot is wider than a server takes."""
    for name, width in manifest.slots.items():
        if width > _WIDEST:
            raise GalleryError(
                f"slot '{name}' has {width:,} numbers; Milvus takes up to {_WIDEST:,}. Reduce it, or use a folder."
            )


def describe(manifest: Manifest, slot: str | None = None) -> str:
    """Return the description of a collection: the manifest beside what it is, as JSON."""
    content = {"occluded_reid": _VERSION, "slot": slot, "layout": manifest.content()}
    return json.dumps(content, ensure_ascii=True, sort_keys=True)


def to_manifest(description: str, address: MilvusAddress) -> Manifest:
    """Return the manifest that a collection of labels describes.

    Raises:
        GalleryError: the collection is no gallery, or a newer library has made it.
    """
    try:
        content = json.loads(description)
        version, manifest = content["occluded_reid"], content["layout"]
    except (ValueError, KeyError, TypeError) as cause:
        raise GalleryError(
            f"the collection '{address.collection}' of the Milvus server {address.server} is no gallery of this "
            "library. Give the name that Gallery.create() was given."
        ) from cause
    if content.get("slot") is not None:
        raise GalleryError(
            f"the collection '{address.collection}' of the Milvus server {address.server} holds one slot of a gallery; "
            f"open '{address.collection.rpartition('__slot_')[0]}'."
        )
    if version > _VERSION or manifest.get("format_version", 0) > FORMAT_VERSION:
        raise GalleryError(
            f"a newer library has made the gallery '{address}'. Update this one: pip install --upgrade occluded_reid."
        )
    try:
        return Manifest.model_validate(manifest)
    except ValidationError as cause:
        first = cause.errors()[0]
        raise GalleryError(
            f"the description of the gallery '{address}' is damaged: "
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}. Index the images again."
        ) from cause


def labels_schema(manifest: Manifest) -> Any:
    """Return the schema of the labels; a server wants a vector in every collection, so visibility is one."""
    from pymilvus import DataType

    schema = _schema(describe(manifest))
    schema.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("row", DataType.INT64)
    schema.add_field(VISIBILITY, DataType.FLOAT_VECTOR, dim=max(2, len(manifest.slots)))
    return _with_labels(schema)


def slot_schema(manifest: Manifest, number: int) -> Any:
    """Return the schema of one slot, with all labels, so that the server can filter while it searches."""
    from pymilvus import DataType

    name, width = list(manifest.slots.items())[number]
    schema = _schema(describe(manifest, name))
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field(VISIBILITY, DataType.FLOAT)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=max(2, width))
    return _with_labels(schema, partition_key="camera")


def _schema(description: str) -> Any:
    from pymilvus import MilvusClient

    return MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=description)


def _with_labels(schema: Any, partition_key: str | None = None) -> Any:
    from pymilvus import DataType

    for name in LABELS:
        if name == "camera":
            schema.add_field(name, DataType.INT64, is_partition_key=name == partition_key)
        elif name == "time":
            schema.add_field(name, DataType.DOUBLE)
        else:
            schema.add_field(name, DataType.VARCHAR, max_length=BYTES)
    for name in MILVUS_KNOWN.values():
        schema.add_field(name, DataType.BOOL)
    return schema
