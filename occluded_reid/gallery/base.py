"""What every gallery does, wherever its rows lie: add, remove, search."""

from __future__ import annotations

import logging
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace as with_values
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

import numpy as np
import torch

from occluded_reid.arguments import checked, shown
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import CalibrationError, GalleryError, GalleryMismatchError, ImageError
from occluded_reid.files import absolute
from occluded_reid.forked import require_own_process, require_threads
from occluded_reid.gallery.browsing import Browsing
from occluded_reid.gallery.build import other_precision
from occluded_reid.gallery.cameras import given_cameras
from occluded_reid.gallery.filters.where import Where
from occluded_reid.gallery.hit import AddResult, Hit
from occluded_reid.gallery.images import (
    EmbeddingModel,
    Source,
    as_list,
    identify,
    origins_of,
    tracklets_of,
    tracks_of_rows,
)
from occluded_reid.gallery.known_model import known_model
from occluded_reid.gallery.search.efforts import EffortLike, require_effort
from occluded_reid.gallery.search.own_images import without_own_files
from occluded_reid.gallery.search.query import mean_queries, mean_query
from occluded_reid.gallery.search.request import GroupBy, SearchRequest, cameras_of, identities_of, require_k
from occluded_reid.gallery.search.reranking import require_rerank
from occluded_reid.gallery.search.thresholds import Answer, Threshold, answer_within
from occluded_reid.gallery.storage.manifest import Manifest, fit_rows
from occluded_reid.gallery.storage.records import Labels
from occluded_reid.gallery.storage.store import Store
from occluded_reid.gallery.storage.table import TableReader
from occluded_reid.gallery.storage.writer import Progress, Writer, remove_keys
from occluded_reid.gallery.values import finite, require_keys, require_seconds, require_whole
from occluded_reid.matchers import Matcher
from occluded_reid.pixels import Channels, ImageLike, Images
from occluded_reid.search.projection import Reduction
from occluded_reid.search.rerank.bridge import Bridge
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

__all__ = ["Answer", "GalleryBase", "Images", "Query"]

_LOG = logging.getLogger("occluded_reid")

Query: TypeAlias = "PartEmbeddings | Images | Sequence[Sequence[ImageLike]] | Sequence[PartEmbeddings]"
"""What is searched for: a query for each image or row, or for each list of images of one person."""


class GalleryBase(Browsing):
    """Embedded images that can be added to, removed from and searched; where they lie is a subclass's business.

    Args:
        path: folder or address, for messages.
        manifest: model, slots, dtype and matcher of the gallery.
        store: its rows.
        matcher: the distance of its searches.
        model: embeds images; None loads the one that the gallery was made with when it is needed.
        reduction: makes embeddings smaller on their way in.
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
        pinned: bool = False,
    ) -> None:
        self.path, self.manifest, self.matcher, self.reduction = path, manifest, matcher, reduction
        self._store: Store | None = store
        self._model = model
        self._finding = threading.Lock()
        self._pinned = pinned
        self._precision_said = False
        self._owner = os.getpid()
        caution = getattr(model, "caution", None)  # a model of somebody else's need not know itself
        if caution is not None:
            caution()

    @abstractmethod
    def _answers(self, ask: Callable[[Answer], list[list[Hit]]]) -> list[list[Hit]]:
        """Call `ask` with what answers a checked request of at least one query, each time from the same version."""

    def _read(self) -> TableReader:
        """Return the version that is read, which no write of another thread moves."""
        return self._opened()

    def _written(self) -> None:
        """Do what follows a write, while the store is still held for writing."""

    @checked(GalleryError, only=("replace", "skip_unreadable", "progress"))
    def add(
        self,
        images: PartEmbeddings | Images,
        *,
        keys: Sequence[str] | None = None,
        identity: Sequence[str | int | None] | str | int | None = None,
        camera: Sequence[int | str | None] | int | str | None = None,
        time: Sequence[float | datetime | None] | float | datetime | None = None,
        track: Sequence[str | int | None] | str | int | None = None,
        path: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        batch_size: int = 64,
        replace: bool = False,
        skip_unreadable: bool = False,
        channels: Channels = "rgb",
        progress: Progress | None = None,
        wait: float = 0.0,
    ) -> AddResult:
        """Add images or embeddings; what the gallery holds already is skipped, so that a broken run is simply repeated.

        Images are committed in groups of up to 1,024, embeddings of up to 8,192, each whole or not at all: where an
        error stops the call, the groups before it stay and nothing of its own group is added. A label that is None
        contradicts nothing: who has been named by `relabel` since stays named when the same images are added again.

        Args:
            images: N images, which the gallery's model embeds: paths, bytes of files, PIL images, uint8 arrays
                (H, W, 3), or tensors, as `occluded_reid.pixels.to_rgb` reads them; or N embeddings.
            keys: N unique names. By default the path as it is given, for an image in memory the sha256 of its pixels;
                embeddings need keys.
            identity: who, a text for each image or one for all; a whole number is kept as its text (7 as "7"); None
                where it is not known.
            camera: number or name of the camera, likewise. A name gets a number when it is first used, and keeps it for
                ever in this gallery; a text that writes a number ("1", "1.0", "01") is that number.
            time: when, in any one unit, likewise; a `datetime` is kept as seconds since 1970, in UTC unless it says
                otherwise.
            track: name of the track, likewise; a whole number is kept as its text.
            path: file of each image, where it is not the path that is added (which is kept from the root on).
            metadata: a mapping for each image, of what JSON can hold.
            batch_size: images that the model embeds at a time.
            replace: replace an image whose key is there with other embeddings or labels, instead of refusing it; labels
                that are not given are unknown afterwards.
            skip_unreadable: leave out images that cannot be read or have no pixels, such as a crop beside its frame,
                and name them in the result by path, key, or place ("images[3]").
            channels: the order of colours in arrays and tensors; "bgr" is OpenCV's. Files and PIL images say their own.
            progress: called with (images done, images in all).
            wait: seconds to wait for another writer; 0 refuses at once, and holds the gallery for the whole call. Where
                a time is given, images are embedded while others may write, and the gallery is held for each commit:
                so several processes can add images side by side.

        Returns:
            How many were added, skipped and replaced.

        Raises:
            GalleryLockedError: another writer is at work; it is named.
            GalleryError: a key is taken by other content, labels do not fit, or the folder cannot be written.
            GalleryMismatchError: embeddings have other slots than the gallery, or the model computes in another
                precision than the one that the gallery was made with.
            ImageError: an image cannot be read, or has no pixels; it is named.
            ShapeError: an array or a tensor has another type or shape than an image; it is named.
        """
        store = self._writable()
        require_whole("batch_size", batch_size)
        wait = require_seconds(wait)
        labels: Labels = {"identity": identity, "camera": camera, "time": time, "track": track, "metadata": metadata}
        if isinstance(images, PartEmbeddings):
            if keys is None:
                raise GalleryError("embeddings were given without keys; give a unique key for each of them.")
            rows = self._fit(images, "these embeddings have")
            records = self._records(len(rows), keys, {**labels, "path": path}, wait)
            with store.writing(wait):
                result = Writer(store, records, replace, progress, self._fit).add_rows(rows)
                self._written()
                return result
        model = self.model
        if (difference := other_precision(self.manifest, model)) is not None:
            raise GalleryMismatchError(
                f"the gallery '{self.path}' {difference}. Let it compute as the gallery does "
                "(model.embed_with(precision=…), --precision), or make a gallery of its own."
            )
        pictures = as_list(images, channels)
        if keys is None:
            keys = [_key(image, number, skip_unreadable) for number, image in enumerate(pictures)]
        if path is None:  # from the root on, so that a picture is found from wherever it is asked for
            path = [absolute(image).as_posix() if isinstance(image, str | Path) else None for image in pictures]
        records = self._records(len(pictures), keys, {**labels, "path": path}, wait)
        shared = wait > 0
        with nullcontext() if shared else store.writing():
            writer = Writer(store, records, replace, progress, self._fit, wait if shared else None)
            result = writer.add_images(pictures, model, batch_size, skip_unreadable)
            with store.writing(wait):  # where it is held already, it is not let go of in between
                self._written()
        return result

    def remove(self, keys: Sequence[str] | str, *, wait: float = 0.0) -> int:
        """Hide images from now on; older versions of the gallery still hold them.

        Args:
            keys: of the images.
            wait: seconds to wait for another writer.

        Returns:
            How many images were hidden.

        Raises:
            GalleryLockedError: another writer is at work.
            GalleryError: a key is not in the gallery (then nothing is removed), or the folder cannot be written.
        """
        store, wanted = self._writable(), require_keys(keys)
        with store.writing(wait):
            count = remove_keys(store, wanted)
            self._written()
            return count

    @checked(GalleryError, only=("exclude_self", "combine"))
    def search(
        self,
        query: Query | None = None,
        k: int = 10,
        *,
        key: str | Sequence[str] | None = None,
        where: Where | None = None,
        query_camera: Sequence[int | str | None] | int | str | None = None,
        query_identity: Sequence[str | None] | str | None = None,
        exclude_self: bool = True,
        group_by: GroupBy | None = None,
        effort: EffortLike = "exact",
        threshold: Threshold | None = None,
        rerank: bool | KReciprocal | Bridge = False,
        combine: bool = False,
        channels: Channels = "rgb",
        batch_size: int = 64,
    ) -> list[list[Hit]]:
        """Find the k nearest images of each query by the gallery's matcher, in bounded memory.

        Args:
            query: images, or embeddings of which each row is a query. A list of lists of images is one query for each
                inner list, which shows one person: its images are put together by `mean_query`; so are the rows of each
                of several `PartEmbeddings`.
            k: how many hits; where fewer may be found, all of them.
            key: instead of a query, the key of an image of the gallery, or several: it is asked for by its stored
                embedding, without a model, and left out of its own answer.
            where: what the gallery's rows must fulfil: SQL over `key`, `identity`, `camera`, `time`, `track`, `path`,
                `sha256` and `metadata` (JSON text), a mapping such as ``{"camera": [1, 2], "identity": "0002"}``, or a
                typed condition: ``(field("camera") == 3) & ~field("track").is_null()``. Cameras that have a name may be
                given by it: ``"camera = 'hall'"``, ``{"camera": ["hall", 3]}``, ``field("camera") == "hall"``.
            query_camera: number or name of the camera of each query, or one for all: rows of the same camera are left
                out.
            query_identity: with `query_camera`, leave out only rows of the same camera *and* the same identity, as
                evaluation does.
            exclude_self: leave out rows of a query's own image: with its key, its sha256, or the pixels of an image in
                memory, whether the row was added from memory or from a file that is still there (embeddings have none
                of these).
            group_by: keep the nearest hit of each "identity" or "track"; rows without one stay single.
            effort: "exact" compares with every image; a number such as 0.98 looks, by the index, as hard as it takes to
                find that share of the exact answer; "auto" is 0.98 where there is an index, else "exact"; a pair says
                how many candidates a slot proposes, and how hard its index looks. Distances are always exact.
            threshold: leave out what is too far to be the person asked for: a distance, a `Calibration`, or
                "calibrated", the one that the gallery keeps. A query without hits is answered: nobody here.
            rerank: put the candidates in the order of their k-reciprocal distance: each query with the gallery alone,
                by lists of neighbours computed beforehand (`build_neighbours`). A `Bridge` compares images that share
                too little through complete ones; it needs no lists, and searches exactly whatever `effort` says.
            combine: take all rows for images of one person and search once, with `mean_query`.
            channels: the order of colours in arrays and tensors, as for `add`.
            batch_size: images that the model embeds at a time.

        Returns:
            Hits of each query, nearest first.

        Raises:
            CalibrationError: there is no calibration, or it was made for other distances.
            GalleryError: k is below 1, the filter is not understood, or labels do not fit the queries.
            GalleryMismatchError: the query has other slots than the gallery.
            ImageError: an image cannot be read, or has no pixels; it is named.
            ShapeError: an array or a tensor has another type or shape than an image; it is named.
        """
        self._opened()
        k = require_k(k)
        if group_by is not None and not (isinstance(group_by, str) and group_by in ("identity", "track")):
            raise GalleryError(f"group_by is {shown(group_by)}; give 'identity', 'track' or None.")
        if query_identity is not None and query_camera is None:
            raise GalleryError(
                "query_identity was given without query_camera: images are left out where both are the query's. "
                "Give query_camera as well, or filter with where."
            )
        require_threads("search", str(getattr(self, "device", "cpu")))
        rows, origins = self._asked(query, key, batch_size, channels, exclude_self)
        if combine and len(rows):
            rows, origins = mean_query(rows), [[source for sources in origins for source in sources]]
        known = self._opened().cameras()
        cameras = cameras_of(known.asked(query_camera, "query_camera"), len(rows))
        identities = identities_of(query_identity, len(rows))
        request = SearchRequest(
            rows=rows,
            origins=origins,
            k=k,
            where=known.in_where(where),
            cameras=cameras,
            identities=identities,
            group_by=group_by,
            effort=require_effort(effort),
            rerank=require_rerank(rerank),
        )
        limit = self._limit(threshold)
        if limit is not None and request.rerank is not None:
            raise GalleryError(
                "a threshold is a distance, and re-ranked hits are not in its order; give one of the two."
            )
        if not len(rows):
            return []

        def found_by(answer: Answer) -> list[list[Hit]]:
            def ask(some: SearchRequest) -> list[list[Hit]]:
                return answer(some) if limit is None else answer_within(answer, some, self.matcher, limit)

            return without_own_files(request, ask)

        found = self._answers(found_by)
        if not (names := known.names):
            return found
        return [[with_values(hit, camera_name=names.get(cast(int, hit.camera))) for hit in hits] for hits in found]

    def refresh(self) -> int:
        """Go on to the newest version: see what other programs have added and removed since this one opened it.

        A write of this object does the same; so does a search that finds its version dropped by another program's
        compaction or erasure.

        Returns:
            Number of the version that is read from now on.

        Raises:
            GalleryError: the gallery was opened at an older version, was closed, or cannot be read any more.
        """
        store = self._opened()
        if self._pinned:
            raise GalleryError(
                f"the gallery '{self.path}' was opened at version {self.version}, to stay there. "
                "Open it without a version to follow what is written."
            )
        store.refresh()
        return self.version

    @property
    def cameras(self) -> dict[str, int]:
        """Number of each camera that has a name; the same name is the same camera for ever."""
        return dict(self._opened().cameras().numbers)

    def name_cameras(self, names: Mapping[str, int], *, wait: float = 0.0) -> None:
        """Give names to cameras that have numbers, for good: hits then tell them, and searches understand them.

        A camera that is added by its name gets a number by itself. Naming it again in the same way does nothing.

        Args:
            names: name -> number of the camera.
            wait: seconds to wait for another writer.

        Raises:
            GalleryLockedError: another writer is at work.
            GalleryError: a name is known under another number, or a number under another name; both are named.
        """
        if not isinstance(names, Mapping):
            raise GalleryError(f"cameras are named {shown(names)}; give a mapping of names to numbers.")
        for name, number in names.items():
            if not isinstance(name, str) or isinstance(given_cameras(name), int):
                raise GalleryError(f"a camera is named {name!r}; give a text that is not the writing of a number.")
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or abs(int(number)) >= 1 << 63:
                raise GalleryError(f"the number of the camera '{name}' is {number!r}; give a whole number.")
        self._writable().name_cameras({name.strip(): int(number) for name, number in names.items()}, wait)

    @property
    def model(self) -> EmbeddingModel:
        """The model that embeds its images: the one it was opened with, else the one it was made with, loaded now.

        Raises:
            GalleryError: it was opened without one, and does not know where its own is, or cannot load it.
            GalleryMismatchError: where its own was, another one lies now.
        """
        with self._finding:
            if self._model is None:
                self._model = known_model(self.path, self.manifest, getattr(self, "device", torch.device("cpu")))
            return self._model

    @property
    def calibration(self) -> Calibration | None:
        """The calibration that the gallery keeps, if any."""
        return None

    @property
    def version(self) -> int:
        """Number of the version that is read; every commit makes a new one."""
        return self._read().version

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        state = "closed" if self._store is None else f"{len(self._store)} images"
        return f"{type(self).__name__}('{self.path}', {state}, {self.manifest.describe()})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the table; closing twice does no harm."""
        self._store = None

    def _opened(self) -> Store:
        if self._store is None:
            raise GalleryError(f"the gallery '{self.path}' was closed. Open it again with Gallery.open().")
        require_own_process(self._owner, f"the gallery '{self.path}'", GalleryError)
        return self._store

    def _writable(self) -> Store:
        store = self._opened()
        if self._pinned:
            raise GalleryError(
                f"the gallery '{self.path}' was opened at version {self.version}, for reading only. "
                "Open it without a version to change it."
            )
        return store

    def _fit(self, rows: PartEmbeddings, whose: str) -> PartEmbeddings:
        """Return rows in the slots of the gallery, reduced where they come in full width."""
        if self.reduction is not None and self.reduction.fits(rows):
            rows = self.reduction.apply(rows)
        rows = fit_rows(rows, self.manifest, self.path, whose)
        if not any(part.requires_grad for part in (*rows.embeddings, rows.visibility)):
            return rows
        return PartEmbeddings(rows.names, tuple(e.detach() for e in rows.embeddings), rows.visibility.detach())

    def _limit(self, threshold: Threshold | None) -> float | Calibration | None:
        """Return the threshold as a distance or a calibration that fits."""
        kept = isinstance(threshold, str) and threshold == "calibrated"
        found = self.calibration if kept else threshold
        if kept and found is None:
            raise CalibrationError(
                f"the gallery '{self.path}' keeps no calibration. Make one with calibrate() (`occluded-reid "
                "calibrate --gallery`), or give a distance."
            )
        if isinstance(found, Calibration):
            self._require(found)
        elif found is not None and not (isinstance(found, int | float | np.number) and finite(float(found))):
            raise CalibrationError(f"threshold is {shown(threshold)}; give a distance, a Calibration, or 'calibrated'.")
        return found

    def _require(self, calibration: Calibration) -> None:
        """Refuse a calibration that was made for other distances than this gallery's."""
        calibration.require(
            matcher=self.matcher,
            slots=self.manifest.slots,
            fingerprint=self.manifest.fingerprint,
            reduction=self.manifest.reduction,
        )

    def _asked(
        self, query: Query | None, key: str | Sequence[str] | None, batch_size: int, channels: Channels, origins: bool
    ) -> tuple[PartEmbeddings, list[list[Source]]]:
        """Return a row of slots for each query, and all that its images may be called, where that is asked for."""
        if (query is None) == (key is None):
            raise GalleryError("give either a query (images or embeddings), or key=, an image of the gallery.")
        if key is not None:
            rows, known = self._rows_of([key] if isinstance(key, str) else key)
            return rows, known if origins else [[] for _ in known]
        if isinstance(query, PartEmbeddings):
            return self._fit(query, "the query has"), [[] for _ in range(len(query))]
        require_whole("batch_size", batch_size)
        if (several := tracks_of_rows(query)) is not None:
            return mean_queries(self._fit(rows, "the query has") for rows in several), [[] for _ in several]
        from occluded_reid.models.embedding import (
            embed_images,  # with it come networks, which a search by key needs not
        )

        model, tracklets = self.model, tracklets_of(query, channels)
        if (difference := other_precision(self.manifest, model)) is not None and not self._precision_said:
            _LOG.warning("the gallery '%s' %s: distances differ a little from those within it", self.path, difference)
            self._precision_said = True
        if tracklets is None:
            images = as_list(cast("Images", query), channels)
        else:
            images = [image for images in tracklets for image in images]
        if not images:
            raise GalleryError("a query of no images was given; give at least one.")
        names = [str(image) if isinstance(image, str | Path) else f"query[{n}]" for n, image in enumerate(images)]
        sources = [origins_of(image, f"'{name}'") if origins else [] for image, name in zip(images, names, strict=True)]
        rows = PartEmbeddings.cat(list(embed_images(model, images, names, batch_size)))
        rows = self._fit(rows, "the model's embeddings have")
        if tracklets is None:
            return rows, sources
        ends = np.cumsum([len(track) for track in tracklets]).tolist()
        parts = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        together = [[source for some in sources[part] for source in some] for part in parts]
        return mean_queries(rows[part] for part in parts), together


def _key(image: ImageLike, number: int, skip_unreadable: bool) -> str:
    """What an image is called that nobody has named; one that is to be skipped is called by its place."""
    if isinstance(image, str | Path):
        return Path(image).as_posix()
    try:
        return identify(image, f"images[{number}]").key
    except ImageError:
        if skip_unreadable:
            return f"images[{number}]"
        raise
