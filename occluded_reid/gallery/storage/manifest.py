"""gallery.json: whose embeddings a gallery holds, in which slots, and how the table is laid out."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError, GalleryMismatchError
from occluded_reid.files import look, read_json, write_json

__all__ = ["FILE", "FORMAT_VERSION", "LABELS", "TABLE", "Manifest", "describe_slots", "fit_rows", "short_name"]

FORMAT = "occluded_reid.gallery"
FORMAT_VERSION = 2  # 2: a version counts when checksums/ acknowledges it
FILE = "gallery.json"
TABLE = "images"

LABELS = ("key", "identity", "camera", "time", "track", "path", "sha256", "metadata")
"""Columns beside the slots, as `where` may name them."""


class Manifest(BaseModel):
    """Content of gallery.json; written once, when the gallery is created.

    Attributes:
        format: marks the file as ours.
        format_version: raised when older libraries could no longer read the gallery.
        created: time of creation, ISO 8601.
        name: name of the model, for people; None for a gallery that is filled with embeddings alone.
        model: what `load_model` finds the model by: the name of one that comes with the library, or, of a gallery in a
            folder, where it lay from the root on; None where that is not known. Not written where it is None.
        fingerprint: fingerprint of the model; None where it is not known.
        slots: slot -> width as stored, in order.
        slots_in: slot -> width of the model's embeddings, where they are reduced on the way in.
        reduction: fingerprint of what reduces them.
        dtype: how embeddings are stored.
        precision: the numbers that the model computes them with, see `ReIDModel.embed_with`; None where that is not
            known, as in galleries made before it was kept, whose models knew float32 alone. Not written where it is
            None.
        matcher: type and options of the matcher that searches use.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["occluded_reid.gallery"] = "occluded_reid.gallery"
    format_version: int = FORMAT_VERSION
    created: str
    name: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    slots: dict[str, PositiveInt] = Field(min_length=1)
    slots_in: dict[str, PositiveInt] | None = None
    reduction: str | None = None
    dtype: Literal["float16", "float32"] = "float16"
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    matcher: dict[str, Any]

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read and check gallery.json.

        Raises:
            GalleryError: there is no gallery, its description is damaged, or a newer library has made it.
        """
        file = folder / FILE
        if look(folder, GalleryError) is None:
            raise GalleryError(f"there is no gallery '{folder}'. Make one with Gallery.create(), or correct the path.")
        found = look(file, GalleryError)
        if found is None or not stat.S_ISREG(found.st_mode):
            raise GalleryError(
                f"'{folder}' is no gallery: it has no {FILE}. Give the folder that Gallery.create() made."
            )
        return Manifest.parse(read_json(file, GalleryError), str(folder), str(file))

    @staticmethod
    def parse(content: Any, gallery: str, file: str) -> Manifest:
        """Check a manifest that was read from somewhere.

        Args:
            content: what gallery.json holds.
            gallery: what messages call the gallery.
            file: what they call the place that the content comes from.

        Raises:
            GalleryError: it is damaged, or a newer library has made it.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise GalleryError(
                f"'{file}' does not describe a gallery of this library. Give a folder made by Gallery.create()."
            )
        version = content.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise GalleryError(
                f"the gallery '{gallery}' has format {version}; this library reads formats up to {FORMAT_VERSION}. "
                "Update it: pip install --upgrade occluded_reid."
            )
        try:
            return Manifest.model_validate(content)
        except ValidationError as cause:
            first = cause.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise GalleryError(
                f"'{file}' is damaged: {where}: {first['msg'].lower()}. Restore the file from a copy, or index again."
            ) from cause

    def write(self, folder: Path) -> None:
        """Write gallery.json, whole or not at all."""
        write_json(folder / FILE, self.content(), GalleryError)

    def content(self) -> dict[str, Any]:
        """Return what is kept, as plain JSON."""
        return self.model_dump(
            mode="json", exclude={name for name in ("model", "precision") if getattr(self, name) is None}
        )

    @property
    def columns(self) -> list[str]:
        """Names of the slots' columns; the number, because a slot name may hold what SQL cannot."""
        return [f"slot_{number}" for number in range(len(self.slots))]

    @property
    def width(self) -> int:
        """Numbers of all slots of one image."""
        return sum(self.slots.values())

    def arrow_schema(self) -> pa.Schema:
        """Return the table's schema.

        `row` grows with every addition and is never used twice: it is the order of the gallery.
        """
        number = pa.float16() if self.dtype == "float16" else pa.float32()
        return pa.schema(
            [
                pa.field("row", pa.int64(), nullable=False),
                pa.field("key", pa.string(), nullable=False),
                pa.field("identity", pa.string()),
                pa.field("camera", pa.int64()),
                pa.field("time", pa.float64()),
                pa.field("track", pa.string()),
                pa.field("path", pa.string()),
                pa.field("sha256", pa.string()),
                pa.field("metadata", pa.string(), nullable=False),
                pa.field("visibility", pa.list_(pa.float32(), len(self.slots)), nullable=False),
                *(
                    pa.field(column, pa.list_(number, width), nullable=False, metadata={"slot": name})
                    for column, (name, width) in zip(self.columns, self.slots.items(), strict=True)
                ),
            ]
        )

    def describe(self) -> str:
        """Return "sorn@3f9a (global 3072, part_1..3 2048)"."""
        return f"{short_name(self.fingerprint)} ({describe_slots(self.slots)})"


def short_name(fingerprint: str | None) -> str:
    """Return a fingerprint for a message, or words where there is none."""
    return fingerprint or "an unnamed model"


def describe_slots(slots: Mapping[str, int]) -> str:
    """Return slots and widths, numbered neighbours of one width as a range.

    Example:
        >>> describe_slots({"global": 8, "part_1": 4, "part_2": 4, "part_3": 4, "head": 2})
        'global 8, part_1..3 4, head 2'
    """

    def run(item: tuple[int, tuple[str, int]]) -> tuple[str, int, int]:
        """Equal for neighbours "part_1", "part_2" … of one width: a number that grows with the place cancels out."""
        place, (name, width) = item
        stem, _, number = name.rpartition("_")
        return (stem, width, int(number) - place) if stem and number.isdecimal() else (name, width, -1)

    parts = []
    for (_, width, _), members in groupby(enumerate(slots.items()), run):
        names = [name for _, (name, _) in members]
        last = f"..{names[-1].rpartition('_')[2]}" if len(names) > 1 else ""
        parts.append(f"{names[0]}{last} {width}")
    return ", ".join(parts)


def fit_rows(rows: PartEmbeddings, manifest: Manifest, folder: Path, whose: str) -> PartEmbeddings:
    """Return rows with the slots in the gallery's order, on the CPU.

    Raises:
        GalleryMismatchError: the slots or their widths differ; both are named.
    """
    if rows.widths != manifest.slots:
        raise GalleryMismatchError(
            f"the gallery '{folder}' holds embeddings of {manifest.describe()}; {whose} the slots "
            f"({describe_slots(rows.widths)}). Embed with the model that built the gallery, or index the images again."
        )
    rows = rows if rows.names == tuple(manifest.slots) else rows.select(tuple(manifest.slots))
    return rows if all(e.device.type == "cpu" for e in rows.embeddings) else rows.to("cpu")
