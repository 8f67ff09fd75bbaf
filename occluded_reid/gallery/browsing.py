"""Looking into a gallery and putting labels right: list, get, info, relabel."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from occluded_reid.arguments import is_several
from occluded_reid.data.times import time_text
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.cameras import CameraTable, given_cameras
from occluded_reid.gallery.filters.where import Where, to_sql
from occluded_reid.gallery.images import Source
from occluded_reid.gallery.near_keys import near_keys
from occluded_reid.gallery.storage.manifest import LABELS, Manifest, describe_slots, short_name
from occluded_reid.gallery.storage.records import Labels, Record, make_records
from occluded_reid.gallery.storage.relabel import relabel_rows
from occluded_reid.gallery.storage.store import ROW_ID, Store, to_embeddings
from occluded_reid.gallery.storage.table import TableReader
from occluded_reid.gallery.values import require_keys

__all__ = ["KEEP", "Browsing", "CameraCount", "GalleryImage", "GalleryInfo", "Keep"]

_SHOWN = 5
_CAMERAS_SHOWN = 20

Origins = list[list[Source]]  # here, where `list` is not yet a method


class Keep(Enum):
    """What `relabel` leaves as it is."""

    KEEP = "keep"

    def __repr__(self) -> str:
        return "KEEP"


KEEP = Keep.KEEP
"""Leaves a label as it is; None makes it unknown."""


@dataclass(frozen=True)
class GalleryImage:
    """One image of a gallery.

    Attributes:
        key: its unique name in the gallery.
        identity: who it is, or None where it was not given.
        camera: number of the camera, or None.
        camera_name: its name, where the gallery knows one.
        time: when, in the unit it was added with, or None.
        track: name of the track, or None.
        path: file of the image as it was added, or None.
        sha256: of the image, or None where an embedding was added.
        metadata: whatever else was added with it.
        embeddings: its one row of slots, where it was asked for.
    """

    key: str
    identity: str | None = None
    camera: int | None = None
    camera_name: str | None = None
    time: float | None = None
    track: str | None = None
    path: str | None = None
    sha256: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    embeddings: PartEmbeddings | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the embeddings as plain values for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "embeddings"}


@dataclass(frozen=True)
class CameraCount:
    """How many images of a gallery a camera has taken.

    Attributes:
        number: of the camera; None stands for images whose camera is not known.
        name: of the camera, where the gallery knows one.
        images: how many.
    """

    number: int | None
    name: str | None
    images: int

    def __str__(self) -> str:
        called = "unknown" if self.number is None else self.name or str(self.number)
        return f"{called}: {self.images:,}"


@dataclass(frozen=True)
class GalleryInfo:
    """What a gallery holds.

    Attributes:
        path: its folder or address.
        model: name and fingerprint of the model whose embeddings it holds; None where it was not given.
        slots: slot -> width as stored.
        slots_in: slot -> width of the model's embeddings, where they are reduced on the way in.
        dtype: how embeddings are stored.
        precision: the numbers that the model computes them with; None where it was not given.
        matcher: type and options of the matcher of its searches.
        created: when, ISO 8601.
        version: number of the version that was looked at.
        versions: how many versions can be opened; None where none are kept.
        images: how many.
        identities: how many people have a name.
        unidentified: images without an identity.
        tracks: how many tracks there are.
        times: earliest and latest time, where any is known.
        cameras: images of each camera, by number, those of unknown ones last; cameras that are only named have 0.
        bytes: size of its files; None where it lies in no folder.
        index: the state of its index, or None where there is none.
        calibrated: whether it keeps a calibration.
    """

    path: str
    model: str | None
    slots: dict[str, int]
    slots_in: dict[str, int] | None
    dtype: str
    precision: str | None
    matcher: dict[str, Any]
    created: str
    version: int
    versions: int | None
    images: int
    identities: int
    unidentified: int
    tracks: int
    times: tuple[float, float] | None
    cameras: tuple[CameraCount, ...]
    bytes: int | None = None
    index: dict[str, Any] | None = None
    calibrated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        cameras = [{"number": c.number, "name": c.name, "images": c.images} for c in self.cameras]
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "cameras": cameras}

    def lines(self) -> list[str]:
        """Return it as lines of text."""
        reduced = f", reduced from {describe_slots(self.slots_in)}" if self.slots_in else ""
        computed = f"computed in {self.precision}, kept " if self.precision else ""
        kept = f" (that can be opened: {self.versions})" if self.versions is not None else ""
        lines = [
            f"{self.path}: {self.images:,} images",
            f"model: {short_name(self.model)}",
            f"slots: {describe_slots(self.slots)}{reduced}, {computed}as {self.dtype}",
            f"matcher: {self.matcher.get('type')}",
            f"people: {self.identities:,} with a name; {self.unidentified:,} images without",
            f"tracks: {self.tracks:,}",
            f"cameras: {self._cameras()}",
            "times: " + (" to ".join(map(time_text, self.times)) if self.times else "none"),
            f"version: {self.version}{kept}, created {self.created}",
        ]
        lines += [f"size: {self.bytes / 1e6:,.1f} MB"] if self.bytes is not None else []
        built = "none; searches compare with every image" if self.index is None else _index_line(self.index)
        return [*lines, f"index: {built}", f"calibration: {'kept' if self.calibrated else 'none'}"]

    def _cameras(self) -> str:
        known = [camera for camera in self.cameras if camera.number is not None]
        without = sum(camera.images for camera in self.cameras if camera.number is None)
        more = ", …" if len(known) > _CAMERAS_SHOWN else ""
        each = f" ({', '.join(map(str, known[:_CAMERAS_SHOWN]))}{more})" if known else ""
        return f"{len(known):,}{each}; {without:,} images without"


def _index_line(index: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in index.items() if isinstance(value, str | int | float))


class Browsing(ABC):
    """The part of a gallery that shows what it holds and corrects it."""

    path: Path
    manifest: Manifest

    @abstractmethod
    def _read(self) -> TableReader:
        """Return the version that is read."""

    @abstractmethod
    def _opened(self) -> Store:
        """Return the store of a gallery that is open."""

    @abstractmethod
    def _writable(self) -> Store:
        """Return the store of a gallery that may be written to."""

    @abstractmethod
    def _written(self) -> None:
        """Do what follows a write."""

    def list(self, where: Where | None = None, *, limit: int | None = None, offset: int = 0) -> Sequence[GalleryImage]:
        """Return images in the order of the gallery: that in which they were added.

        Memory: 16 bytes for each image that the filter leaves, and what is returned.

        Args:
            where: what they must fulfil, as for `search`; None takes all.
            limit: at most so many.
            offset: leave out so many at the beginning.

        Raises:
            GalleryError: the filter is not understood, or limit or offset is no whole number from 0 on.

        Example:
            ``gallery.list({"camera": "hall", "identity": None}, limit=20)``
        """
        for name, value in (("limit", limit), ("offset", offset)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise GalleryError(f"{name} is {value!r}; give a whole number from 0 on.")
        cameras, reader = self._opened().cameras(), self._read()
        numbers, ids = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for batch in reader.scan(["row"], self._condition(cameras.in_where(where))):
            numbers.append(batch.column("row").to_numpy())
            ids.append(batch.column(ROW_ID).to_numpy())
        order = np.argsort(np.concatenate(numbers), kind="stable")
        chosen = np.concatenate(ids)[order][offset : None if limit is None else offset + limit]
        return [_image(row, cameras) for row in reader.take(chosen, LABELS).to_pylist()]

    def get(self, key: str) -> GalleryImage:
        """Return an image by its key: its labels, and its row of slots as `embeddings`.

        Raises:
            GalleryError: there is no such image.
        """
        cameras, reader = self._opened().cameras(), self._read()
        ids = _find(reader, [key])
        table = reader.take(ids, [*LABELS, "visibility", *self.manifest.columns])
        row = table.select(list(LABELS)).to_pylist()[0]
        return _image(row, cameras, to_embeddings(table, self.manifest))

    def info(self) -> GalleryInfo:
        """Return what the gallery holds: model, slots, counts, cameras, size, versions, and the state of its index.

        Memory: the distinct identities, tracks and cameras.
        """
        named, reader = self._opened().cameras(), self._read()
        identities: Counter[Any] = Counter()
        cameras: Counter[Any] = Counter()
        tracks: set[Any] = set()
        low, high, images = np.inf, -np.inf, 0
        for batch in reader.scan(["identity", "camera", "track", "time"]):
            images += batch.num_rows
            for counter, column in ((identities, "identity"), (cameras, "camera")):
                counted = batch.column(column).value_counts()
                for value, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
                    counter[value] += count
            tracks.update(batch.column("track").unique().to_pylist())
            times = batch.column("time").drop_null().to_numpy(zero_copy_only=False)
            low, high = min(low, times.min(initial=np.inf)), max(high, times.max(initial=-np.inf))
        cameras.update(dict.fromkeys(named.names, 0))
        known = sorted(number for number in cameras if number is not None)
        counts = [CameraCount(number, named.names.get(number), cameras[number]) for number in known]
        if cameras[None]:
            counts.append(CameraCount(None, None, cameras[None]))
        manifest = self.manifest
        return GalleryInfo(
            path=str(self.path),
            model=manifest.fingerprint,
            slots=dict(manifest.slots),
            slots_in=None if manifest.slots_in is None else dict(manifest.slots_in),
            dtype=manifest.dtype,
            precision=manifest.precision,
            matcher=dict(manifest.matcher),
            created=manifest.created,
            version=reader.version,
            images=images,
            identities=len(identities.keys() - {None}),
            unidentified=identities[None],
            tracks=len(tracks - {None}),
            times=(float(low), float(high)) if low <= high else None,
            cameras=tuple(counts),
            **self._state(),
        )

    def relabel(
        self,
        keys: Sequence[str] | str,
        *,
        identity: Sequence[str | int | None] | str | int | Keep | None = KEEP,
        camera: Sequence[int | str | None] | int | str | Keep | None = KEEP,
        time: Sequence[float | datetime | None] | float | datetime | Keep | None = KEEP,
        track: Sequence[str | int | None] | str | int | Keep | None = KEEP,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | Keep | None = KEEP,
        wait: float = 0.0,
    ) -> int:
        """Say anew who is on images, which camera took them, and when; embeddings and order stay what they are.

        All of them are changed or none; older versions of the gallery still hold what was said before. The same again
        changes nothing.

        Args:
            keys: of the images.
            identity: one for each image or one for all, as for `add`; None makes it unknown; what is not given stays.
            camera: likewise, by number or name.
            time: likewise.
            track: likewise.
            metadata: likewise; it takes the place of all that was there.
            wait: seconds to wait for another writer.

        Returns:
            How many images have other labels now.

        Raises:
            GalleryLockedError: another writer is at work.
            GalleryError: a key is not in the gallery or stands there twice, or a label has the wrong type; nothing is
                changed then.

        Example:
            ``gallery.relabel(["p1/1.jpg", "p1/2.jpg"], identity="anna")``
        """
        store, named = (
            self._writable(),
            [*keys] if is_several(keys) else require_keys(keys),
        )
        given = {"identity": identity, "camera": camera, "time": time, "track": track, "metadata": metadata}
        labels = {name: None if value is KEEP else value for name, value in given.items()}
        changed = [name for name, value in given.items() if value is not KEEP]
        if not changed:
            raise GalleryError("relabel was given nothing to say: give identity, camera, time, track or metadata.")
        twice = [repr(key) for key, count in Counter(map(str, named)).items() if count > 1]
        if twice:
            raise GalleryError(f"{', '.join(twice[:_SHOWN])} stand(s) twice among the keys. Give each key once.")
        _find(self._read(), named)  # before a name of a camera is kept for what is then refused
        records = self._records(len(named), named, labels, wait)
        with store.writing(wait):
            count = relabel_rows(store, records, changed)
            if count:
                self._written()
            return count

    def _rows_of(self, keys: Sequence[str]) -> tuple[PartEmbeddings, Origins]:
        """Return the stored rows of images, and what says which images they are."""
        reader = self._read()
        ids = _find(reader, keys)
        columns = ["key", "sha256", "path"]
        table = reader.take(ids, [*columns, "visibility", *self.manifest.columns])
        known = table.select(columns).to_pylist()
        sources = [[Source(row["key"], row["sha256"] or "", row["path"])] for row in known]
        return to_embeddings(table, self.manifest), sources

    def _records(self, count: int, keys: Sequence[str], labels: Labels, wait: float) -> Sequence[Record]:
        """Check labels; then names of cameras that are new get a number, which is kept before any row has it."""
        store, cameras = self._writable(), given_cameras(labels["camera"])
        listed = cameras if isinstance(cameras, Sequence) and not isinstance(cameras, str | bytes) else [cameras]
        names = dict.fromkeys(camera for camera in listed if isinstance(camera, str))

        def records(numbers: Mapping[str, int]) -> Sequence[Record]:
            def number(camera: Any) -> Any:
                return numbers.get(camera, 0) if isinstance(camera, str) else camera

            column = [number(c) for c in listed] if listed is cameras else number(cameras)
            return make_records(count, keys, {**labels, "camera": column})

        known = store.cameras()
        found = records(known.numbers)
        if names.keys() <= known.numbers.keys():
            return found
        return records(store.name_cameras(dict(names), wait).numbers)

    def _condition(self, where: Where | None) -> str | None:
        """Return a filter as the store takes it."""
        return to_sql(where)

    def _state(self) -> dict[str, Any]:
        """Return what `info` says of files: versions, bytes, index, calibrated."""
        return {"versions": None}


def _find(reader: TableReader, keys: Sequence[str]) -> np.ndarray:
    """Return the addresses of images, in the order of their keys.

    Raises:
        GalleryError: a key is no text, or is not in the gallery.
    """
    for number, key in enumerate(keys):
        if not isinstance(key, str) or (not key.isprintable() and _unwritable(key)):
            raise GalleryError(f"keys: number {number} is {key!r}; give a text that UTF-8 can hold.")
    found = reader.find(["key"], [sorted(set(keys))])
    place = dict(zip(found.column("key").to_pylist(), found.column(ROW_ID).to_pylist(), strict=True))
    missing = [key for key in keys if key not in place]
    if missing:
        more = ", …" if len(missing) > _SHOWN else ""
        raise GalleryError(
            f"{len(missing)} of {len(keys)} keys are not in the gallery '{reader.folder}': "
            f"{', '.join(map(repr, missing[:_SHOWN]))}{more}.{near_keys(reader, missing[0])} "
            "Gallery.list() (`occluded-reid gallery list`) names the keys."
        )
    return np.array([place[key] for key in keys], dtype=np.uint64)


def _unwritable(text: str) -> bool:
    return text.encode(errors="ignore").decode() != text


def _image(row: Mapping[str, Any], cameras: CameraTable, embeddings: PartEmbeddings | None = None) -> GalleryImage:
    name = cameras.names.get(row["camera"]) if cameras.numbers and row["camera"] is not None else None
    content = {**row, "metadata": _metadata(row)}
    return GalleryImage(**content, camera_name=name, embeddings=embeddings)


def _metadata(row: Mapping[str, Any]) -> Any:
    try:
        return json.loads(row["metadata"])
    except (TypeError, ValueError) as cause:
        raise GalleryError(
            f"the metadata of '{row['key']}' are no JSON: the gallery is damaged. Restore it from a copy; "
            "Gallery.verify() names the file."
        ) from cause
