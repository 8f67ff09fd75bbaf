"""Building the indexes of a gallery from its table in a stream, and adding to them what was added since."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import BaseModel, ConfigDict

from occluded_reid.errors import GalleryError
from occluded_reid.files import write_json
from occluded_reid.gallery.index.gallery_index import (
    CURRENT,
    DESCRIPTION,
    FOLDER,
    NUMBERS,
    EffortEntry,
    GalleryIndex,
    IndexDescription,
    SlotEntry,
    require_slot_matcher,
)
from occluded_reid.gallery.index.measure import measure_efforts
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.gallery.storage import checksums
from occluded_reid.gallery.storage.links import remove_entry, require_no_link
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.gallery.storage.store import Store
from occluded_reid.gallery.storage.writer import Progress, no_progress
from occluded_reid.matchers import Matcher, SlotMatcher
from occluded_reid.registry import INDEXES
from occluded_reid.search.index.base import DamagedIndexError, SlotIndex
from occluded_reid.search.index.packed_rows import PackedRows, PackedWriter

__all__ = ["BuildRequest", "build", "merge", "usual_factory"]

_BUILD = "build-"
_TILE_NUMBERS = 1 << 22  # numbers read at a time: 16 MB in float32


class BuildRequest(BaseModel):
    """What to build.

    Attributes:
        type: registered kind of index.
        options: of that kind.
        matcher: type and options of the matcher that says which slots are visible and how they are compared.
        training_rows: rows that show a slot, drawn to train its index on.
        seed: of the drawing; kinds that draw have a seed among their options.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    type: str
    options: dict[str, Any]
    matcher: dict[str, Any]
    training_rows: int
    seed: int


def usual_factory(rows: int) -> str:
    """Return a sensible FAISS index for so many rows: cells of about √rows / 4 … 4 √rows, float16 codes for many.

    Example:
        >>> usual_factory(5_000), usual_factory(100_000), usual_factory(1_000_000)
        ('Flat', 'IVF1024,Flat', 'IVF4096,SQfp16')
    """
    if rows < 20_000:
        return "Flat"
    cells = 1 << max(8, round(np.log2(4 * np.sqrt(rows)) - 0.25))
    return f"IVF{cells},{'Flat' if rows < 500_000 else 'SQfp16'}"


def build(store: Store, matcher: Matcher, request: BuildRequest, progress: Progress = no_progress) -> None:
    """Build indexes over all rows of the version that is read, and make them the current ones.

    Peak memory: the sample that one slot is trained on, and the largest single index; rows are streamed.

    Args:
        store: the gallery, held for writing.
        matcher: says which slots are visible and how they are compared.
        request: what to build.
        progress: called with (rows copied or indexed, in all).
    """
    chosen, manifest, rows = require_slot_matcher(matcher), store.manifest, TableRows(store)
    slots = chosen.used(tuple(manifest.slots))
    meter = _Meter(progress, len(rows) * (1 + len(slots)))
    with _new_build(store.folder) as target:
        _copy(rows, target, manifest, meter)
        packed = PackedRows(target)
        entries = []
        for number, slot in enumerate(slots):
            index = INDEXES.create(request.type, manifest.slots[slot], metric=chosen.index_metric, **request.options)
            if len(rows):
                index.train(_sample(packed, chosen, slot, request))
            entries.append(_fill(index, packed, chosen, slot, target / f"slot_{number}", 0, meter))
        description = IndexDescription(
            type=request.type,
            options=request.options,
            rows=len(rows),
            trained=len(rows),
            matcher=chosen.config,
            slots=entries,
            version=store.version,
            built=_now(),
            seed=request.seed,
        )
        _describe(target, description, manifest, rows, chosen)


def merge(store: Store, matcher: Matcher, progress: Progress = no_progress) -> None:
    """Add what the current build lacks to a copy of it, without training again, and make that the current one.

    Rows that were removed since are left in the copy and passed over by searches; a new build is rid of them.

    Raises:
        GalleryError: there is no build, or it cannot be read.
        DamagedIndexError: it is damaged, or nobody can tell whether it is; build another one.
    """
    current = GalleryIndex.current(store.folder)
    if current is None:
        raise GalleryError(f"the gallery '{store.folder}' has no index to add to; build one with build_index().")
    chosen, manifest, rows = require_slot_matcher(matcher), store.manifest, TableRows(store)
    old = GalleryIndex(current, manifest)
    old.require_matcher(chosen)
    if not old.packed.checked:
        raise DamagedIndexError(
            f"the copy of the embeddings in '{current}' was made by an older release, without hashes: it is not copied."
        )
    extra = old.over(rows).extra
    meter = _Meter(progress, len(old) + len(extra) * (1 + len(old.slots)))
    with _new_build(store.folder) as target:
        with PackedWriter(target, manifest.slots, manifest.dtype) as writer:
            for _, tile in old.packed.tiles(_tile_rows(manifest)):
                writer.append(tile)
                meter.add(len(tile))
            for start in range(0, len(extra), _tile_rows(manifest)):
                tile = rows.take(extra[start : start + _tile_rows(manifest)])
                writer.append(tile)
                meter.add(len(tile))
        np.save(target / NUMBERS, np.concatenate([old.numbers, rows.numbers[extra]]))
        packed, entries = PackedRows(target), []
        kind = cast(type[SlotIndex], INDEXES.get(old.description.type))
        for entry in old.description.slots:
            index = kind.load(old.folder / entry.file, mmap=False)
            filled = _fill(index, packed, chosen, entry.slot, target / entry.file, len(old), meter)
            entries.append(filled.model_copy(update={"notes": entry.notes}))
        changed = {"slots": entries, "rows": len(packed), "version": store.version, "built": _now()}
        _describe(target, old.description.model_copy(update=changed), manifest, rows, chosen)


@contextmanager
def _new_build(folder: Path) -> Iterator[Path]:
    """Give a folder for a build; seal it and make it the current one on success, and remove every other build."""
    indexes = folder / FOLDER
    name = f"{_BUILD}{secrets.token_hex(4)}"
    target = indexes / name
    require_no_link(indexes)
    try:
        target.mkdir(parents=True)
        yield target
        checksums.write(target)
        checksums.seal(indexes / CURRENT, {"build": name})
    except OSError as cause:
        raise GalleryError(
            f"the indexes of the gallery '{folder}' could not be written: {cause.strerror or cause}. "
            "Free some space, or choose a folder that may be written to; the images are unharmed."
        ) from cause
    finally:
        # What a killed build has left goes too. Readers that have another build open keep its files until they close.
        current = GalleryIndex.current(folder)
        kept = None if current is None else current.name
        for other in indexes.iterdir() if indexes.is_dir() else ():
            if other.name.startswith(_BUILD) and other.name != kept:
                with suppress(OSError):
                    remove_entry(other)


def _copy(rows: TableRows, target: Path, manifest: Manifest, meter: _Meter) -> None:
    """Write all rows side by side, in the order of the gallery, with their numbers."""
    with PackedWriter(target, manifest.slots, manifest.dtype) as writer:
        for _, tile in rows.tiles(_tile_rows(manifest)):
            writer.append(tile)
            meter.add(len(tile))
    np.save(target / NUMBERS, rows.numbers)


def _sample(packed: PackedRows, matcher: SlotMatcher, slot: str, request: BuildRequest) -> np.ndarray:
    """Draw vectors of a slot from the rows that show it."""
    drawn = np.random.default_rng(request.seed).permutation(len(packed))
    step = max(1, _TILE_NUMBERS // sum(packed.slots.values()))
    parts: list[np.ndarray] = []
    for start in range(0, len(drawn), step):
        parts.append(matcher.index_vectors(packed.take(np.sort(drawn[start : start + step])), slot)[1])
        if sum(map(len, parts)) >= request.training_rows:
            break
    return np.concatenate(parts)[: request.training_rows]


def _fill(
    index: SlotIndex, packed: PackedRows, matcher: SlotMatcher, slot: str, file: Path, first: int, meter: _Meter
) -> SlotEntry:
    """Add the rows from `first` on that show a slot, and write the index."""
    step = max(1, _TILE_NUMBERS // sum(packed.slots.values()))
    starts = range(first, len(packed), step)
    later = ((start, packed.take(np.arange(start, min(start + step, len(packed))))) for start in starts)
    for start, tile in packed.tiles(step) if first == 0 else later:
        numbers, vectors = matcher.index_vectors(tile, slot)
        if len(numbers):
            index.add(vectors, numbers + start)
        meter.add(len(tile))
    index.save(file)
    return SlotEntry(slot=slot, rows=len(index), file=file.name, notes=index.notes)


def _describe(
    target: Path, description: IndexDescription, manifest: Manifest, rows: TableRows, matcher: SlotMatcher
) -> None:
    """Write index.json, with what each effort finds on a sample of the rows."""
    write_json(target / DESCRIPTION, description.model_dump(mode="json"), GalleryError)
    efforts = [
        EffortEntry(candidates=e.candidates, effort=e.effort, queries=e.queries, **asdict(e.recall))
        for e in measure_efforts(GalleryIndex(target, manifest, sealed=False), rows, matcher, description.seed)
    ]
    measured = description.model_copy(update={"efforts": efforts})
    write_json(target / DESCRIPTION, measured.model_dump(mode="json"), GalleryError)


def _tile_rows(manifest: Manifest) -> int:
    return max(1, _TILE_NUMBERS // manifest.width)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Meter:
    """Adds up what several passes have done, and tells one callback."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)
