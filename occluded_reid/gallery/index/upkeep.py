"""Which index a gallery is to have, and when it is brought up to date."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from occluded_reid.arguments import shown
from occluded_reid.errors import DeviceError, GalleryError, OccludedReIDError, RegistryError
from occluded_reid.files import read_json, write_json
from occluded_reid.gallery.index.build import BuildRequest, build, merge, usual_factory
from occluded_reid.gallery.index.gallery_index import NOT_USED, EffortEntry, GalleryIndex, lost, require_slot_matcher
from occluded_reid.gallery.storage.store import Store
from occluded_reid.gallery.values import require_whole
from occluded_reid.matchers import Matcher
from occluded_reid.registry import INDEXES, MATCHERS, check_options
from occluded_reid.search.device import IndexDevice
from occluded_reid.search.index.base import DamagedIndexError, SlotIndex

if TYPE_CHECKING:
    from occluded_reid.gallery.search.search import Searcher

__all__ = ["WANTED", "IndexInfo", "index_is_lost", "keep_request", "maintain_index", "open_index", "wanted_index"]

WANTED = "wanted_index.json"
"""What to build; it outlives the index, so that an index that an erasure has dropped comes back."""

_CPU = IndexDevice()
_NEW = 0.2  # part of the index by which a gallery may grow before its new rows are added to it
_LEAST_NEW = 10_000  # exhaustive search over fewer rows costs nothing that one would notice
_GONE = 0.5  # part of the index that may be removed before it is built anew
_GROWN = 4.0  # times as many rows as it was trained for

_log = logging.getLogger("occluded_reid")


@dataclass(frozen=True)
class IndexInfo:
    """What a gallery's index is and finds; it prints as text.

    Attributes:
        type: registered kind.
        options: what it was made with.
        rows: images in it.
        new: images of the gallery that it lacks; they are searched exhaustively.
        removed: images in it that the gallery no longer has.
        bytes: on disk, the copy of the embeddings included; None where a server keeps it.
        efforts: what was found of the exact answer, the cheapest first.
        notes: what was built otherwise than asked for, and why: slot -> notes.
    """

    type: str
    options: dict[str, Any]
    rows: int
    new: int
    removed: int
    bytes: int | None
    efforts: tuple[EffortEntry, ...]
    notes: dict[str, list[str]]

    @staticmethod
    def of(searcher: Searcher) -> IndexInfo:
        """Describe the index that a searcher uses."""
        index = searcher.index
        if index is None:
            raise GalleryError("the gallery has no index; build one with build_index().")
        told = index.description
        return IndexInfo(
            type=told.type,
            options=told.options,
            rows=len(index),
            new=searcher.unindexed,
            removed=searcher.removed,
            bytes=sum(file.stat().st_size for file in index.folder.rglob("*") if file.is_file()),
            efforts=tuple(told.efforts),
            notes={entry.slot: entry.notes for entry in told.slots if entry.notes},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**vars(self), "efforts": [effort.model_dump() for effort in self.efforts]}

    def __str__(self) -> str:
        made = ", ".join(f"{name}={value}" for name, value in self.options.items())
        size = "" if self.bytes is None else f", {self.bytes / 1e6:,.0f} MB"
        lines = [
            f"{self.type} ({made}): {self.rows:,} images, {self.new:,} new and {self.removed:,} removed since{size}"
        ]
        lines += [f"  {slot}: {note}" for slot, notes in self.notes.items() for note in notes]
        lines += [f"  {entry}" for entry in self.efforts]
        return "\n".join(lines)


def wanted_index(
    store: Store,
    matcher: Matcher,
    type: str,
    factory: str | None,
    options: Mapping[str, Any] | None,
    training_rows: int,
    seed: int,
) -> BuildRequest:
    """Return what to build, checked: as asked for, or as the gallery has it, or what is usual.

    Raises:
        GalleryError: training_rows or the seed is no whole number, or too small.
        UnknownNameError: no such kind of index is registered.
        UnknownOptionError: it takes no such option.
    """
    training_rows, seed = require_whole("training_rows", training_rows), require_whole("seed", seed, 0)
    known = _kept(store.folder)
    if factory is None and options is None and known is not None and known.type == type:
        return known.model_copy(update={"matcher": matcher.config, "training_rows": training_rows, "seed": seed})
    given = dict(options or {})
    if type == "faiss":
        given["factory"] = factory or given.get("factory") or usual_factory(len(store))
    elif factory is not None:
        raise GalleryError(
            f"factory={factory!r} is an option of type='faiss'; give '{type}' its options as options={{…}}."
        )
    kind = INDEXES.get(type)
    _require_kind(type, kind)
    check_options(kind, {"metric": "inner_product", **given}, f"index '{type}'", skip=1)
    slots = require_slot_matcher(matcher).used(tuple(store.manifest.slots))
    for width in {store.manifest.slots[slot] for slot in slots}:  # refused, if at all, before anything is read
        kind(width, metric="inner_product", **given)
    return BuildRequest(type=type, options=given, matcher=matcher.config, training_rows=training_rows, seed=seed)


def _require_kind(name: str, kind: object) -> None:
    """Refuse a registered index that no gallery could build, keep and search.

    Raises:
        GalleryError: it is no `SlotIndex`, or lacks some of its methods; they are named.
    """
    if not (isinstance(kind, type) and issubclass(kind, SlotIndex)):
        raise GalleryError(f"the index '{name}' is {shown(kind)}; register a subclass of SlotIndex.")
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise GalleryError(
            f"the index '{name}' ({kind.__name__}) lacks {', '.join(missing)}, which a gallery needs to build, keep "
            "and search it. Define them; SlotIndex says what each does."
        )


def keep_request(store: Store, request: BuildRequest) -> None:
    """Write down what the gallery is to have from now on."""
    with store.ledger.side_file(WANTED) as file:
        write_json(file, request.model_dump(mode="json"), GalleryError)


def open_index(folder: Path | None, store: Store, device: IndexDevice = _CPU) -> GalleryIndex | None:
    """Open the current index; one that cannot be read is left out with a warning, as the next write builds it again.

    Args:
        folder: of the build; None where there is none.
        store: the gallery.
        device: where it is to be.

    Raises:
        DeviceError: the index cannot be on the device that was asked for.
    """
    if folder is None:
        return None
    try:
        try:
            return GalleryIndex(folder, store.manifest, device.name)
        except DeviceError as cause:
            if device.required:
                raise
            _log.info("The index stays on the CPU: %s", cause)
            return GalleryIndex(folder, store.manifest)
    except (GalleryError, RegistryError) as cause:
        _log.warning(NOT_USED, store.folder, cause)
        return None


def index_is_lost(folder: Path) -> bool:
    """Whether a gallery is to have an index and has none that can be read; the log says why."""
    return lost(folder, wanted=(folder / WANTED).is_file())


def maintain_index(store: Store, matcher: Matcher) -> None:
    """Bring the index up to date after a write: build what is missing, add what is new, build anew what is worn out.

    Call it while the store is being written. What was written before counts whatever happens here: a fault is a warning
    in the log, and searches go on with the index that there is.

    Args:
        store: the gallery, at the version that was written.
        matcher: of the gallery as it was opened; the index keeps to the one that it was built for.
    """
    try:
        request = _kept(store.folder)
        if request is None or not len(store):
            return
        own = matcher if matcher.config == request.matcher else _matcher_of(request)
        index = open_index(GalleryIndex.current(store.folder), store)
        # Rows are numbered upwards, so that counting tells what is new and what is gone without reading the rows.
        new = 0 if index is None else store.count(f"`row` > {int(index.numbers.max(initial=-1))}")
        gone = 0 if index is None else len(index) + new - len(store)
        if index is None or gone > max(_GONE * len(index), _LEAST_NEW) or _outgrown(index, len(store)):
            build(store, own, request)
        elif new > max(_NEW * len(index), _LEAST_NEW):
            try:
                merge(store, own)
            except DamagedIndexError as cause:  # nothing of it goes into another one
                _log.warning("The index is built anew: %s", cause)
                build(store, own, request)
    except OccludedReIDError as cause:
        _log.warning("What was written is safe, but the index could not be brought up to date: %s", cause)


def _outgrown(index: GalleryIndex, rows: int) -> bool:
    return rows > _GROWN * max(index.description.trained, _LEAST_NEW)


def _matcher_of(request: BuildRequest) -> Matcher:
    return MATCHERS.create(request.matcher["type"], **request.matcher["options"])


def _kept(folder: Path) -> BuildRequest | None:
    if not (folder / WANTED).is_file():
        return None
    try:
        return BuildRequest.model_validate(read_json(folder / WANTED, GalleryError))
    except ValidationError as cause:
        raise GalleryError(f"'{folder / WANTED}' is damaged; restore it from a copy, or remove it.") from cause
