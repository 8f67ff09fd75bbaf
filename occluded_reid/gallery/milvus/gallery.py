"""MilvusGallery: images of people on a server, to add to, to remove from and to search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from occluded_reid.arguments import checked
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.base import Answer
from occluded_reid.gallery.build import matcher_of, require_fit
from occluded_reid.gallery.filters.where import Where, to_milvus
from occluded_reid.gallery.gallery import Gallery
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.index.upkeep import IndexInfo
from occluded_reid.gallery.milvus.address import MilvusAddress
from occluded_reid.gallery.milvus.candidates import CandidateSearch, milvus_metric
from occluded_reid.gallery.milvus.collections import Collections
from occluded_reid.gallery.milvus.effort import MilvusEffort
from occluded_reid.gallery.milvus.exact import exact_answer, hits_of_numbers
from occluded_reid.gallery.milvus.server import MilvusServer
from occluded_reid.gallery.milvus.store import MilvusStore
from occluded_reid.gallery.milvus.upkeep import missing, remove_orphans
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.gallery.storage.erase import EraseResult
from occluded_reid.gallery.storage.maintenance import CompactResult
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.gallery.storage.verify import VerifyReport
from occluded_reid.gallery.storage.writer import Progress
from occluded_reid.gallery.values import require_whole
from occluded_reid.matchers import Matcher, SlotMatcher
from occluded_reid.search.device import choose_device
from occluded_reid.search.projection import Reduction

__all__ = ["MilvusGallery"]


class MilvusGallery(Gallery):
    """A gallery at ``milvus://host:port/collection``, made by `Gallery.create` and opened by `Gallery.open`.

    It adds, removes and searches as a gallery in a folder does; the differences:

    - Everybody sees what is acknowledged at once; there are no older versions. Several programs may write.
    - Commits are as durable as the server's log. A group of images is there as a whole or not at all.
    - A search with ``effort="exact"``, the default everywhere, reads the whole gallery through this machine, in bounded
      memory. ``"auto"`` asks the server for 100 candidates of each slot, or 4 k where that is more, which the matcher
      scores here; a pair (candidates, search) says how many, and how hard an index looks for them: cells that IVF
      visits, or the list that HNSW keeps (a flat index misses nothing).
    - `erase`, `compact`, `verify` and `build_index` are the server's; versions, reductions, calibrations and neighbour
      lists are for galleries in a folder, and raise `UnsupportedError` here.
    - Text for `where` is an expression of Milvus.

    Attributes:
        path: the address, without a password.
        manifest: model, slots, dtype and matcher, kept in the collection's description.
        matcher: the distance of its searches.
    """

    _place = "on a Milvus server"

    def __init__(
        self,
        server: MilvusServer,
        manifest: Manifest,
        matcher: Matcher,
        model: EmbeddingModel | None,
        *,
        device: str = "auto",
    ) -> None:
        rows = MilvusStore(server, manifest)
        # The address stands for the folder in messages, and the rows have the methods of the embedded store.
        super().__init__(cast(Any, rows.folder), manifest, cast(Any, rows), matcher, model, pinned=False)
        self.device = choose_device(device)
        self._rows, self._collections = rows, Collections(server)
        self._index: list[dict[str, Any]] | None = None

    def _condition(self, where: Where | None) -> str | None:
        return to_milvus(where)

    @staticmethod
    def _make(
        path: str | Path,
        manifest: Manifest,
        matcher: Matcher,
        model: EmbeddingModel | None,
        reduction: Reduction | None,  # noqa: ARG004 - `create` has refused it
        device: str,
    ) -> MilvusGallery:
        with _connected(path) as server:
            metric = milvus_metric(matcher) if isinstance(matcher, SlotMatcher) else "COSINE"
            Collections(server).create(manifest, metric)
            return MilvusGallery(server, manifest, matcher, model, device=device)

    @staticmethod
    def _find(
        path: str | Path, model: EmbeddingModel | None, matcher: Matcher | None, version: int | None, device: str
    ) -> MilvusGallery:
        if version is not None:
            raise MilvusGallery._refused(
                MilvusGallery._shown(path), f"version={version}", "A server keeps no older versions; leave it out."
            )
        with _connected(path) as server:
            collections, place = Collections(server), cast(Any, str(server.address))
            manifest = collections.manifest()
            if model is not None:
                require_fit(place, manifest, model)
            chosen = matcher or matcher_of(place, manifest, model)
            collections.load(manifest)
            return MilvusGallery(server, manifest, chosen, model, device=device)

    @staticmethod
    def _shown(path: str | Path) -> str:
        return str(MilvusAddress.parse(str(path)))  # without a password

    @staticmethod
    def _is_there(path: str | Path) -> bool:
        server = MilvusServer(MilvusAddress.parse(str(path)))
        try:
            return Collections(server).exists()
        finally:
            server.close()

    @checked(GalleryError, only=("progress",))
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
        """Build the index of every slot anew, on the server; searches wait meanwhile.

        Args:
            factory: "Flat" (None; misses nothing, and is what a new gallery has), "IVFx,Flat", "IVFx,SQ8", "IVFx,PQm"
                or "HNSWx", as for a gallery in a folder.
            type: "faiss"; the server knows no other kind.
            options: none.
            training_rows: the server chooses them; another number than the usual one is refused.
            seed: likewise.
            wait: not needed, as there is no lock.
            progress: called with (slots done, slots in all).

        Raises:
            GalleryError: the string is not one of these, or the server cannot build it.
            UnsupportedError: another argument than these was given.
        """
        self._writable()
        given = {"type": (type, "faiss"), "training_rows": (training_rows, 200_000), "seed": (seed, 0)}
        odd = [f"{name}={value!r}" for name, (value, usual) in given.items() if value != usual]
        if odd or options:
            asked = ", ".join([*odd, *([f"options={dict(options)!r}"] if options else [])])
            raise self._refusal(f"build_index({asked})", "Give a factory alone; the server does the rest itself.")
        if not isinstance(self.matcher, SlotMatcher):
            raise GalleryError(f"{self.matcher!r} is no SlotMatcher, so that slots cannot be searched one by one.")
        self._collections.build_index(self.manifest, factory or "Flat", milvus_metric(self.matcher))
        self._index = None
        if progress is not None:
            progress(len(self.manifest.slots), len(self.manifest.slots))
        return self.index

    @property
    def index(self) -> IndexInfo:
        """What the index of the first slot is; the server keeps all of them up to date itself."""
        self._opened()
        told = self._collections.indexes(self.manifest)[0]
        known: dict[str, Any] = {
            name: told[name] for name in ("index_type", "metric_type", "nlist", "m", "M") if name in told
        }
        return IndexInfo("milvus", known, rows=len(self), new=0, removed=0, bytes=None, efforts=(), notes={})

    def _state(self) -> dict[str, Any]:
        return {"versions": None, "index": self.index.to_dict()}

    @checked(GalleryError, only=("progress",))
    def erase(
        self,
        keys: Sequence[str] | str,
        *,
        caches: Sequence[str | Path] = (),
        wait: float = 0.0,
        progress: Progress | None = None,
    ) -> EraseResult:
        """Remove images for good, as far as a server gives that.

        They are found no more when this returns. The server then rewrites the segments that held them (`compact` can
        wait for it), and drops the old files and its log when its own garbage collection comes to them; by default that
        is some hours to days (`dataCoord.gc`, retention of the log).

        Args:
            keys: of images.
            caches: none: what they know of images on a server is not looked up.
            wait: not needed, as there is no lock.
            progress: called with (images gone, images to go).

        Returns:
            How many images are gone; a server has no versions.

        Raises:
            GalleryError: a key is not in the gallery; nothing is removed then.
            UnsupportedError: caches were given; nothing is removed then.
        """
        if caches:
            instead = "Leave out caches, and delete those folders: they are filled again when crops are next made."
            raise self._refusal("erase(caches=…)", instead)
        count = self.remove(keys, wait=wait)
        if progress is not None:
            progress(count, count)
        self._collections.compact(self.manifest)
        return EraseResult(images=count, versions_dropped=0, indexes_dropped=(), crops_forgotten=0)

    @checked(GalleryError, only=("progress",))
    def compact(self, keep_versions: int = 2, *, wait: float = 0.0, progress: Progress | None = None) -> CompactResult:
        """Remove what broken writes have left, and have the server rewrite segments without what was removed.

        Args:
            keep_versions: at least 1; a server has no older versions, so that none is dropped.
            wait: seconds to wait until the server has done it; it goes on when this returns.
            progress: called with (steps done, steps in all).

        Returns:
            Whether the server was done, in `finished`; it does not tell what its files take.
        """
        self._writable()
        require_whole("keep_versions", keep_versions)
        remove_orphans(self._rows)
        done = self._collections.compact(self.manifest, wait)
        if progress is not None:
            progress(1, 1)
        return CompactResult(None, None, (), finished=done)

    @checked(GalleryError, only=("progress",))
    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Compare the collections: every image must lie in every slot; the server looks after its own files.

        Args:
            progress: called with (steps done, steps in all).

        Returns:
            A report that names each slot which lacks images.
        """
        self._opened()
        lost = missing(self._rows)
        if progress is not None:
            progress(1, 1)
        return VerifyReport(str(self.path), None, None, (), lost)

    def drop(self) -> None:
        """Delete the whole gallery from the server, and close it."""
        self._opened()
        self._collections.drop(self.manifest)
        self.close()

    def close(self) -> None:
        """Hang up; closing twice does no harm."""
        if self._store is not None:
            self._rows.server.close()
        super().close()

    def _answers(self, ask: Callable[[Answer], list[list[Hit]]]) -> list[list[Hit]]:
        return ask(self._answer)

    def _answer(self, request: SearchRequest) -> list[list[Hit]]:
        self._opened()
        if request.rerank is not None:
            raise self._refusal("rerank=", "A server keeps no neighbour lists; leave it out.")
        effort = self._effort(request)
        if effort is None:
            return exact_answer(self._rows, self.matcher, request, self.device)
        matcher = cast(SlotMatcher, self.matcher)
        if self._index is None:
            self._index = self._collections.indexes(self.manifest)
        best, few = CandidateSearch(self._rows, matcher, request, effort, self._index).run()
        hits = hits_of_numbers(self._rows, matcher, request.rows, best)
        if len(few):  # rows that share no slot with a query are on no list; they follow in the order of the gallery
            for q, exact in zip(
                few.tolist(), exact_answer(self._rows, matcher, request.part(few), self.device), strict=True
            ):
                hits[q] = exact
        return hits

    def _effort(self, request: SearchRequest) -> MilvusEffort | None:
        """Return the effort to search with; None reads everything."""
        wanted = request.effort
        if isinstance(wanted, float):
            raise self._refusal(
                f"effort={wanted!r}",
                "Give 'auto', 'exact', or a pair (candidates a slot, cells or list length of the index).",
            )
        if wanted == "exact" or (wanted == "auto" and not self._fits()):
            return None
        if not self._fits():
            raise GalleryError(
                f"{self.matcher!r} does not compare slots as the gallery's indexes do ({self.manifest.matcher}). "
                "Search with effort='exact', or open the gallery with its own matcher."
            )
        return MilvusEffort(max(100, 4 * request.k)) if wanted == "auto" else MilvusEffort(*wanted)

    def _fits(self) -> bool:
        """Whether the server's indexes compare as this matcher does."""
        return isinstance(self.matcher, SlotMatcher) and milvus_metric(self.matcher) == self._collections.metric(
            self.manifest
        )


@contextmanager
def _connected(address: str | Path) -> Iterator[MilvusServer]:
    """Connect; hang up where what follows fails."""
    server = MilvusServer(MilvusAddress.parse(str(address)))
    try:
        yield server
    except BaseException:
        server.close()
        raise
