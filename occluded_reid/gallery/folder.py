"""A gallery in a folder: searching it, keeping its index, and looking after its files."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from occluded_reid.arguments import checked
from occluded_reid.calibration.calibration import CALIBRATION_FILE, Calibration
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import DeviceError, GalleryError, GalleryLockedError
from occluded_reid.gallery.base import Answer, GalleryBase
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.index.build import build, usual_factory
from occluded_reid.gallery.index.gallery_index import GalleryIndex
from occluded_reid.gallery.index.upkeep import (
    IndexInfo,
    index_is_lost,
    keep_request,
    maintain_index,
    open_index,
    wanted_index,
)
from occluded_reid.gallery.search.efforts import EffortLike, require_effort
from occluded_reid.gallery.search.memory import RowMemory
from occluded_reid.gallery.search.reranking import neighbours_mark, open_neighbours, save_neighbours
from occluded_reid.gallery.search.search import Searcher
from occluded_reid.gallery.storage.checksums import files_of
from occluded_reid.gallery.storage.erase import EraseResult, erase_keys
from occluded_reid.gallery.storage.maintenance import CompactResult, GalleryVersion, compact, kept_versions
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.gallery.storage.store import Snapshot, Store
from occluded_reid.gallery.storage.table import DroppedVersionError
from occluded_reid.gallery.storage.verify import VerifyReport, verify_store
from occluded_reid.gallery.storage.writer import Progress, no_progress
from occluded_reid.gallery.values import require_keys
from occluded_reid.matchers import Matcher
from occluded_reid.search.device import choose_device
from occluded_reid.search.index.factory import Estimate, estimate
from occluded_reid.search.projection import Reduction
from occluded_reid.search.rerank.neighbors import NeighbourLists

__all__ = ["FolderGallery"]

_ATTEMPTS = 5  # to search while others drop versions

_log = logging.getLogger("occluded_reid")


class FolderGallery(GalleryBase):
    """What a gallery in a folder can do; `Gallery` makes and opens it.

    Args:
        path: the folder.
        manifest: content of its gallery.json.
        store: a version of its table.
        matcher: the distance of its searches.
        model: embeds images; None loads the one that the gallery was made with when it is needed.
        reduction: makes embeddings smaller on their way in.
        device: where searches multiply.
        pinned: opened at an older version, for reading only.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        store: Store,
        matcher: Matcher,
        model: EmbeddingModel | None,
        *,
        reduction: Reduction | None = None,
        device: str = "auto",
        pinned: bool = False,
    ) -> None:
        super().__init__(path, manifest, store, matcher, model, reduction=reduction, pinned=pinned)
        if not isinstance(device, str):
            raise DeviceError(f"device is of type {type(device).__name__}; give a text such as 'cpu' or 'cuda:1'.")
        first = device.partition(",")[0]
        self.device = choose_device(first)
        place = "cpu" if self.device.type == "cpu" else device
        self._index_device = f"auto {self.device}" if device == "auto" and place != "cpu" else place
        self._known: tuple[tuple[int, Path | None], Searcher] | None = None
        self._making = threading.Lock()
        self._damaged: set[Path | None] = set()  # builds that a search has found so
        self._listed: tuple[bytes, NeighbourLists] | None = None
        # With a version that it was read from, and when that was made.
        self._memory: tuple[int, str, RowMemory] | None = None

    def versions(self) -> list[GalleryVersion]:
        """Return the versions that `open` can open, oldest first: number, time, images, and what made it."""
        return kept_versions(self._opened())

    @checked(GalleryError, only=("progress",))
    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Read every file of every version and compare it with the sha256 that was taken before the version counted.

        LanceDB reads a flipped bit without a word; this names the file that it is in: the table's, gallery.json's, an
        index's, or a checksum's own. Nothing is changed. Memory: the list of the files.

        Args:
            progress: called with (bytes read, bytes in all).

        Returns:
            A report; `report.ok` tells whether all is well, and `report.raise_if_damaged()` insists on it.

        Raises:
            GalleryError: the gallery is of format 1, which has no checksums yet.
        """
        return verify_store(self._opened(), progress)

    @checked(GalleryError, only=("progress",))
    def compact(self, keep_versions: int = 2, *, wait: float = 0.0, progress: Progress | None = None) -> CompactResult:
        """Put small files together without hidden rows, and delete old versions and what crashed writers have left.

        With ``keep_versions=1`` no byte is left of images that were removed or replaced.
        Who searches a version that is dropped goes on to the newest one, and who has opened it by its number gets an
        error that says so; the version before the compaction stays by default. Every file is verified before, so that
        damage is never copied.

        Args:
            keep_versions: how many of the newest versions stay, the compacted one among them.
            wait: seconds to wait for another writer.
            progress: called with (bytes verified, bytes in all).

        Returns:
            The bytes before and after, and the versions that are left.

        Raises:
            GalleryLockedError: another writer is at work.
            GalleryError: keep_versions is below 1, the folder cannot be written, or the gallery is damaged.
        """
        return compact(self._writable(), keep_versions, wait, progress)

    @checked(GalleryError, only=("caches", "progress"))
    def erase(
        self,
        keys: Sequence[str] | str,
        *,
        caches: Sequence[str | Path] = (),
        wait: float = 0.0,
        progress: Progress | None = None,
    ) -> EraseResult:
        """Delete images for good: no byte of their rows is left in any file of the gallery.

        They go from the newest version and from every older one, and so do all rows that `remove` or a replacement had
        hidden. **Older versions can no longer be opened afterwards**, the index is dropped and built anew, the
        neighbour lists are dropped (`build_neighbours` computes them again), and every piece of the table that held
        such a row is written anew. Where the process dies in between, the next writer finishes it. It cannot reach
        copies of the folder, nor what the disk itself keeps of deleted files.

        Args:
            keys: of images in any version, those hidden by `remove` included.
            caches: folders that were given to `preprocess.cache_crops`: what they know of these images goes, too. A
                cache knows images by their pixels; where an image no longer lies where it was, the cache is emptied.
            wait: seconds to wait for another writer.
            progress: called with (bytes verified, bytes in all): damage must not be copied into new files.

        Returns:
            How many images, versions, indexes and cached crops are gone.

        Raises:
            GalleryLockedError: another writer is at work.
            GalleryError: a key is in no version, or the gallery is damaged; nothing is erased then.
            DataError: a cache cannot be used.
        """
        store, wanted = self._writable(), require_keys(keys)
        with store.writing(wait):
            result = erase_keys(store, wanted, caches, wait, progress)
            self._written()
            return result

    @checked(GalleryError)
    def estimate_index(self, factory: str | None = None) -> Estimate:
        """Say what a FAISS index of every slot takes before it is built: disk, memory, images to train on.

        The copy of the embeddings that candidates are scored from is counted among the bytes on disk. Every slot is
        taken for visible in every image, so that it is rather less.

        Args:
            factory: as for `build_index`.

        Raises:
            UnknownOptionError: the factory is not understood, or does not fit a slot.
        """
        manifest, rows = self.manifest, len(self)
        needed = estimate(factory or usual_factory(rows), rows, manifest.slots)
        copy = rows * (manifest.width * (2 if manifest.dtype == "float16" else 4) + 4 * len(manifest.slots))
        return replace(needed, disk=needed.disk + copy)

    @checked(GalleryError, but=("training_rows", "seed", "wait"))
    def build_index(
        self,
        factory: str | None = None,
        *,
        type: str = "faiss",
        options: Mapping[str, Any] | None = None,
        training_rows: int = 200_000,
        seed: int = 0,
        wait: float = 0.0,
        progress: Progress | None = None,
    ) -> IndexInfo:
        """Build an index of each slot, so that searches with ``effort="auto"`` or a wanted recall look at few rows.

        Built from the table in a stream, sealed with checksums, and made the current one at the end: readers that are
        searching go on with the one before. From then on additions, removals and erasures keep it up to date: new rows
        are searched exhaustively until there are many of them, then they are added to it. What each effort finds of the
        exact answer is measured on a sample of the gallery's own images.

        It takes the disk space of the embeddings once more (a copy that candidates are scored from) and that of the
        indexes; `estimate_index` says how much. Peak memory: the largest single index, and its training sample.

        Args:
            factory: which FAISS index, such as "Flat", "IVF1024,Flat", "IVF4096,SQfp16" or "HNSW32"; None is that of
                the gallery's index, or a usual one for so many images.
            type: registered kind of index.
            options: of that kind.
            training_rows: images drawn to train each slot on.
            seed: of the drawing of those images; a kind that draws more has a seed among its options.
            wait: seconds to wait for another writer.
            progress: called with (steps done, steps in all).

        Raises:
            GalleryLockedError: another writer is at work.
            GalleryError: the matcher does not compare slot by slot, or the folder cannot be written.
            UnknownOptionError: the factory is not understood.
        """
        store = self._writable()
        with store.writing(wait):
            request = wanted_index(store, self.matcher, type, factory, options, training_rows, seed)
            if request.type == "faiss":
                _log.info("Building %s", self.estimate_index(request.options["factory"]))
            build(store, self.matcher, request, progress or no_progress)
            keep_request(store, request)
            return IndexInfo.of(self._searcher())

    @checked(GalleryError, only=("query", "gallery"))
    def calibrate(self, query: EmbeddedSet, gallery: EmbeddedSet, *, wait: float = 0.0, **options: Any) -> Calibration:
        """Find the distances from which on a hit is no match, and keep them for ``search(threshold="calibrated")``.

        Args:
            query: labelled images of people that the model has not been trained on.
            gallery: other images of the same people, and of others; not of this gallery, whose people are unknown.
            wait: seconds to wait for another writer.
            options: as of `Calibration.fit`: the wanted false-match rate, and whether per search or per comparison.

        Raises:
            CalibrationError: there is too little to calibrate with, or an option makes no sense.
            GalleryMismatchError: the embeddings have other slots than the gallery.
        """
        asked, others = (
            EmbeddedSet(self._fit(side.embeddings, "these embeddings have"), side.identity, side.camera, side.paths)
            for side in (query, gallery)
        )
        mark, reduction = self.manifest.fingerprint, self.manifest.reduction
        found = Calibration.fit(asked, others, self.matcher, fingerprint=mark, reduction=reduction, **options)
        self.keep_calibration(found, wait=wait)
        return found

    @checked(GalleryError, only=("calibration",))
    def keep_calibration(self, calibration: Calibration, *, wait: float = 0.0) -> None:
        """Keep a calibration for ``search(threshold="calibrated")``.

        Raises:
            CalibrationError: it was made for another model, matcher or reduction.
        """
        self._require(calibration)
        store = self._writable()
        with store.writing(wait), store.ledger.side_file(CALIBRATION_FILE) as file:
            calibration.save(file)

    @property
    def calibration(self) -> Calibration | None:
        """The calibration that the gallery keeps, if any."""
        file = Path(self.path) / CALIBRATION_FILE
        return Calibration.load(file) if file.is_file() else None

    @checked(GalleryError, only=("k1", "progress"))
    def build_neighbours(
        self,
        k1: int = 20,
        *,
        effort: EffortLike = "auto",
        wait: float = 0.0,
        progress: Progress | None = None,
    ) -> None:
        """Compute the nearest images of each image, for ``search(rerank=True)``; 8 bytes for each of them on disk.

        That is one search for each image: with an index, milliseconds each. Images that are added later have no list
        until this is done again; a search then makes one from among its candidates.

        Args:
            k1: neighbours of an image.
            effort: how hard to look for them, as for `search`.
            wait: seconds to wait for another writer.
            progress: called with (images done, images in all).

        Raises:
            GalleryLockedError: another writer is at work.
            GalleryError: the folder cannot be written.
        """
        store = self._writable()
        with store.writing(wait):
            lists = self._searcher().neighbours(self.matcher, k1, require_effort(effort), progress or no_progress)
            save_neighbours(store.folder, lists)
            with self._making:
                self._known = None

    @property
    def index(self) -> IndexInfo | None:
        """What the index is, how many images it lacks, and what its efforts find; None where there is none."""
        searcher = self._searcher()
        return None if searcher.index is None else IndexInfo.of(searcher)

    def close(self) -> None:
        """Let go of the table and the index; closing twice does no harm."""
        with self._making:
            self._known = self._listed = self._memory = None
        super().close()

    def _read(self) -> Snapshot:
        store = self._opened()
        try:
            return store.snapshot()
        except DroppedVersionError:
            if self._pinned:
                raise
            store.refresh()
            return store.snapshot()

    def _searcher(self) -> Searcher:
        """Return what searches of the version that is read have in common, made when version or index change."""
        store = self._opened()
        with self._making:
            for _ in range(_ATTEMPTS):
                snapshot, current = store.snapshot(), GalleryIndex.current(self.path)
                if self._known is not None and self._known[0] == (snapshot.version, current):
                    return self._known[1]
                if self._known is not None and self._known[1].lost:
                    self._damaged.add(self._known[0][1])
                usable = current is not None and current not in self._damaged
                index = open_index(current, store, self._index_device) if usable else None
                if index is not None or GalleryIndex.current(self.path) == current:  # else a writer has replaced it
                    break
            lost = index is None and (current is not None or (len(snapshot) > 0 and index_is_lost(self.path)))
            searcher = Searcher(
                snapshot,
                index,
                self.device,
                lost=lost,
                lists=self._neighbours,
                memory=self._remembered(snapshot.version),
            )
            self._known = ((snapshot.version, current), searcher)
            return searcher

    def _neighbours(self) -> NeighbourLists | None:
        """Return the neighbour lists that the gallery keeps; they are read, and compared with their checksums, once."""
        mark = neighbours_mark(self.path)
        if mark is None:
            return None
        if self._listed is None or self._listed[0] != mark:
            self._listed = mark, open_neighbours(self.path)
        return self._listed[1]

    def _remembered(self, version: int) -> RowMemory | None:
        """Return what was read of this gallery before, if the version that it was read from is in its history still."""
        ledger = self._opened().ledger
        try:
            if self._memory is not None and ledger.read(self._memory[0]).time != self._memory[1]:
                self._memory = None  # another copy of the gallery lies in its place
        except GalleryError:  # dropped since: nobody can tell
            self._memory = None
        try:
            kept = RowMemory(self.manifest) if self._memory is None else self._memory[2]
            self._memory = version, ledger.read(version).time, kept
        except GalleryError:  # a gallery of format 1 has no history
            return None
        return kept

    def _answers(self, ask: Callable[[Answer], list[list[Hit]]]) -> list[list[Hit]]:
        """Answer from one version; where that is dropped meanwhile, from the newest instead, all over again."""
        for _ in range(_ATTEMPTS):
            try:
                searcher = self._searcher()
                return ask(partial(searcher.answer, matcher=self.matcher))
            except DroppedVersionError as cause:
                if self._pinned:
                    raise
                _log.info("The gallery '%s' goes on to its newest version: %s", self.path, cause)
                self._opened().refresh()
        raise GalleryLockedError(f"the gallery '{self.path}' changes faster than it can be searched. Try again.")

    def _state(self) -> dict[str, Any]:
        index = self.index
        return {
            "versions": len(self.versions()),
            "bytes": sum((self.path / name).stat().st_size for name in files_of(self.path)),
            "index": None if index is None else index.to_dict(),
            "calibrated": (self.path / CALIBRATION_FILE).is_file(),
        }

    def _written(self) -> None:
        """Bring the index up to date after a write, if there is one and it is worth it."""
        maintain_index(self._opened(), self.matcher)
