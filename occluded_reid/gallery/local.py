"""A gallery in a folder: searching it, keeping its index, and looking after its files."""

from __future__ import annotations

import logging
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occluded_reid.arguments import checked
from occluded_reid.calibration.calibration import CALIBRATION_FILE, Calibration
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.files import look
from occluded_reid.gallery.address import require_folder
from occluded_reid.gallery.base import Answer
from occluded_reid.gallery.build import make, matcher_of, read_reduction, require_fit
from occluded_reid.gallery.gallery import Gallery
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
from occluded_reid.gallery.storage.manifest import FILE, Manifest
from occluded_reid.gallery.storage.store import Snapshot, Store
from occluded_reid.gallery.storage.table import DroppedVersionError
from occluded_reid.gallery.storage.verify import VerifyReport, verify_store
from occluded_reid.gallery.storage.writer import Progress, no_progress
from occluded_reid.gallery.values import require_keys
from occluded_reid.matchers import Matcher
from occluded_reid.moved import find_renamed
from occluded_reid.search.device import IndexDevice, choose_device, require_device_text
from occluded_reid.search.index.factory import Estimate, estimate
from occluded_reid.search.projection import Reduction
from occluded_reid.search.rerank.neighbors import NeighbourLists

__all__ = ["LocalGallery"]

_ATTEMPTS = 5  # to search while others drop versions

_log = logging.getLogger("occluded_reid")


class LocalGallery(Gallery):
    """A gallery in a folder: with checksums, versions, a writer's lock, and an index.

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

    _place = "in a folder"

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
        self.device = choose_device(require_device_text(device))
        self._index_device = IndexDevice.of(device, self.device)
        self._known: tuple[tuple[int, Path | None], Searcher] | None = None
        self._making = threading.Lock()
        self._damaged: set[Path | None] = set()  # builds that a search has found so
        self._listed: tuple[bytes, NeighbourLists] | None = None
        # With a version that it was read from, and when that was made.
        self._memory: tuple[int, str, RowMemory] | None = None

    @staticmethod
    def _make(
        path: str | Path,
        manifest: Manifest,
        matcher: Matcher,
        model: EmbeddingModel | None,
        reduction: Reduction | None,
        device: str,
    ) -> LocalGallery:
        folder = require_folder(path)
        make(folder, manifest, reduction)
        store = Store(folder, manifest)
        return LocalGallery(folder, manifest, store, matcher, model, reduction=reduction, device=device)

    @staticmethod
    def _find(
        path: str | Path, model: EmbeddingModel | None, matcher: Matcher | None, version: int | None, device: str
    ) -> LocalGallery:
        folder = require_folder(path)
        manifest = Manifest.read(folder)
        if model is not None:
            require_fit(folder, manifest, model)
        chosen = matcher or matcher_of(folder, manifest, model)
        store = Store(folder, manifest, version)
        pinned, reduction = version is not None, read_reduction(folder, manifest)
        return LocalGallery(folder, manifest, store, chosen, model, reduction=reduction, device=device, pinned=pinned)

    @staticmethod
    def _is_there(path: str | Path) -> bool:
        found = look(require_folder(path) / FILE, GalleryError)
        return found is not None and stat.S_ISREG(found.st_mode)

    def versions(self) -> list[GalleryVersion]:
        """Return the versions that `open` can open, oldest first."""
        return kept_versions(self._opened())

    @checked(GalleryError, only=("progress",))
    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Read every file of every version; see `Gallery.verify`."""
        return verify_store(self._opened(), progress)

    @checked(GalleryError, only=("progress",))
    def compact(self, keep_versions: int = 2, *, wait: float = 0.0, progress: Progress | None = None) -> CompactResult:
        """Drop old versions and leftovers; see `Gallery.compact`."""
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
        """Delete images for good; see `Gallery.erase`."""
        store, wanted = self._writable(), require_keys(keys)
        with store.writing(wait):
            result = erase_keys(store, wanted, caches, wait, progress)
            self._written()
            return result

    @checked(GalleryError)
    def estimate_index(self, factory: str | None = None) -> Estimate:
        """Say what an index takes; see `Gallery.estimate_index`."""
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
        """Build an index of each slot; see `Gallery.build_index`."""
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
        """Find and keep the distances from which on a hit is no match; see `Gallery.calibrate`."""
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
        """Keep a calibration; see `Gallery.keep_calibration`."""
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
        """Compute the nearest images of each image; see `Gallery.build_neighbours`."""
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


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Find classes under the names that they had before."""
        return find_renamed(__name__, name)
