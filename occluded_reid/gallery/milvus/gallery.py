"""MilvusGallery: images of people on a server, to add to, to remove from and to search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.base import Answer, GalleryBase, Query
from occluded_reid.gallery.build import matcher_of, require_fit
from occluded_reid.gallery.filters.where import Where, to_milvus
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.milvus.address import MilvusAddress
from occluded_reid.gallery.milvus.candidates import CandidateSearch, milvus_metric
from occluded_reid.gallery.milvus.collections import Collections
from occluded_reid.gallery.milvus.effort import MilvusEffort
from occluded_reid.gallery.milvus.exact import exact_answer, hits_of_numbers
from occluded_reid.gallery.milvus.server import MilvusServer
from occluded_reid.gallery.milvus.store import MilvusStore
from occluded_reid.gallery.milvus.upkeep import missing, remove_orphans
from occluded_reid.gallery.search.efforts import EffortLike
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.gallery.storage.erase import EraseResult
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.matchers import Matcher, SlotMatcher
from occluded_reid.search.device import choose_device

__all__ = ["MilvusGallery"]


class MilvusGallery(GalleryBase):
    """A gallery at ``milvus://host:port/collection``, made by `Gallery.create` and opened by `Gallery.open`.

    It adds, removes and searches as a gallery in a folder does; the differences:

    - Everybody sees what is acknowledged at once; there are no older versions. Several programs may write.
    - Commits are as durable as the server's log. A group of images is there as a whole or not at all.
    - A search asks the server for candidates of each slot (`effort`), which the matcher scores here; ``"exact"`` reads
      the whole gallery through this machine instead, in bounded memory.
    - Text for `where` is an expression of Milvus.

    Attributes:
        path: the address, without a password.
        manifest: model, slots, dtype and matcher, kept in the collection's description.
        matcher: the distance of its searches.
    """

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
    def create(
        address: str | Path,
        manifest: Manifest,
        matcher: Matcher,
        model: EmbeddingModel | None = None,
        *,
        device: str = "auto",
    ) -> MilvusGallery:
        """Make an empty gallery on a server, whole or not at all, and open it; `Gallery.create` prepares the manifest.

        Args:
            address: ``milvus://host:port/collection``; see `MilvusAddress`.
            manifest: slots, dtype and matcher; numbers are stored as float32, rounded to float16 where it says so.
            matcher: the distance of its searches.
            model: embeds the images that are added.
            device: where exact searches multiply.

        Raises:
            GalleryError: there is one already, or the server does not answer.
            MissingExtraError: pymilvus is not installed.
        """
        with _connected(address) as server:
            metric = milvus_metric(matcher) if isinstance(matcher, SlotMatcher) else "COSINE"
            Collections(server).create(manifest, metric)
            return MilvusGallery(server, manifest, matcher, model, device=device)

    @staticmethod
    def open(
        address: str | Path,
        *,
        model: EmbeddingModel | None = None,
        matcher: Matcher | None = None,
        device: str = "auto",
    ) -> MilvusGallery:
        """Open the gallery at an address.

        Args:
            address: ``milvus://host:port/collection``; see `MilvusAddress`.
            model: the model that built it, for adding and searching images.
            matcher: another distance than the one it was created with.
            device: where exact searches multiply.

        Raises:
            GalleryError: there is no gallery, a newer library has made it, or the server does not answer.
            GalleryMismatchError: the model is not the one that built it.
            MissingExtraError: pymilvus is not installed.
        """
        with _connected(address) as server:
            collections, place = Collections(server), cast(Any, str(server.address))
            manifest = collections.manifest()
            if model is not None:
                require_fit(place, manifest, model)
            chosen = matcher or matcher_of(place, manifest, model)
            collections.load(manifest)
            return MilvusGallery(server, manifest, chosen, model, device=device)

    @staticmethod
    def exists(address: str | Path) -> bool:
        """Whether there is a gallery at an address; what it holds is not looked at.

        Raises:
            GalleryError: the server does not answer.
            MissingExtraError: pymilvus is not installed.
        """
        server = MilvusServer(MilvusAddress.parse(str(address)))
        try:
            return Collections(server).exists()
        finally:
            server.close()

    def search(
        self,
        query: Query | None = None,
        k: int = 10,
        *,
        effort: EffortLike = "auto",
        **options: Any,
    ) -> list[list[Hit]]:
        """Find the k nearest images of each query, as `Gallery.search` does.

        Args:
            query: images, or embeddings of which each row is a query.
            k: how many hits.
            effort: "auto" asks each slot for 100 candidates, or 4 k where that is more; a pair (candidates, search)
                says how many, and how hard an index looks for them: cells that IVF visits, or the list that HNSW keeps
                (a flat index misses nothing). "exact" reads every image through this machine.
            options: as of `Gallery.search`.

        Raises:
            GalleryError: as there; or the server does not answer.
        """
        return super().search(query, k, effort=effort, **options)

    def build_index(self, spec: str = "Flat") -> None:
        """Build the index of every slot anew, on the server; searches wait meanwhile.

        Args:
            spec: "Flat" (misses nothing, and is what a new gallery has), "IVFx,Flat", "IVFx,SQ8", "IVFx,PQm" or
                "HNSWx", as for a gallery in a folder.

        Raises:
            GalleryError: the string is not one of these, or the server cannot build it.
        """
        self._writable()
        if not isinstance(self.matcher, SlotMatcher):
            raise GalleryError(f"{self.matcher!r} is no SlotMatcher, so that slots cannot be searched one by one.")
        self._collections.build_index(self.manifest, spec, milvus_metric(self.matcher))
        self._index = None

    def erase(self, keys: Sequence[str] | str) -> EraseResult:
        """Remove images for good, as far as a server gives that.

        They are found no more when this returns. The server then rewrites the segments that held them (`compact` can
        wait for it), and drops the old files and its log when its own garbage collection comes to them; by default that
        is some hours to days (`dataCoord.gc`, retention of the log).

        Returns:
            How many images are gone; a server has no versions, and no caches of crops.

        Raises:
            GalleryError: a key is not in the gallery; nothing is removed then.
        """
        count = self.remove(keys)
        self._collections.compact(self.manifest)
        return EraseResult(images=count, versions_dropped=0, indexes_dropped=(), crops_forgotten=0)

    def compact(self, wait: float = 0.0) -> bool:
        """Remove what broken writes have left, and have the server rewrite segments without what was removed.

        Args:
            wait: seconds to wait until the server has done it; it goes on when this returns.

        Returns:
            Whether the server was done.
        """
        self._writable()
        remove_orphans(self._rows)
        return self._collections.compact(self.manifest, wait)

    def verify(self) -> list[str]:
        """Compare the collections: every image must lie in every slot.

        Returns:
            A line for each slot that lacks images; empty where all is well.
        """
        self._opened()
        return missing(self._rows)

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
            raise GalleryError(
                f"'{self.path}' is on a server, which keeps no neighbour lists: hits cannot be re-ranked there. "
                "Leave out rerank, or search a gallery in a folder."
            )
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
        if wanted == "exact" or (wanted == "auto" and not self._fits()):
            return None
        if not self._fits():
            raise GalleryError(
                f"{self.matcher!r} does not compare slots as the gallery's indexes do ({self.manifest.matcher}). "
                "Search with effort='exact', or open the gallery with its own matcher."
            )
        if wanted == "auto":
            return MilvusEffort(max(100, 4 * request.k))
        if isinstance(wanted, tuple):
            return MilvusEffort(*wanted)
        raise GalleryError(
            f"effort is {wanted!r}; a gallery on a server takes 'auto', 'exact', or a pair (candidates a slot, "
            "cells or list length of the index)."
        )

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
