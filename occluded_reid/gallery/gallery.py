"""Gallery: images of people, to add to, to remove from and to search, whichever back end keeps them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from occluded_reid.arguments import checked, shown
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import GalleryError, UnsupportedError
from occluded_reid.gallery.address import kind_of
from occluded_reid.gallery.base import GalleryBase, Images
from occluded_reid.gallery.build import fit_reduction, require_slots
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.known_model import default_model, place_of
from occluded_reid.gallery.search.efforts import EffortLike
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.gallery.values import is_text, is_whole, require_whole
from occluded_reid.matchers import Matcher, VisibilityWeightedMatcher
from occluded_reid.search.device import choose_device, require_device_text
from occluded_reid.search.projection import Reduction

if TYPE_CHECKING:
    from occluded_reid.gallery.index.upkeep import IndexInfo
    from occluded_reid.gallery.storage.erase import EraseResult
    from occluded_reid.gallery.storage.maintenance import CompactResult, GalleryVersion
    from occluded_reid.gallery.storage.verify import VerifyReport
    from occluded_reid.gallery.storage.writer import Progress
    from occluded_reid.search.index.factory import Estimate

__all__ = ["Gallery"]

_WIDEST = 1 << 20  # numbers of a slot
_BACK_ENDS = {
    "folder": ("occluded_reid.gallery.local", "LocalGallery"),
    "object store": ("occluded_reid.gallery.object_store", "ObjectStoreGallery"),
    "server": ("occluded_reid.gallery.milvus.gallery", "MilvusGallery"),
}
_COPY = "Copy it into a folder made by Gallery.create(), by reading and adding, and do it there."
_OWN_CALIBRATION = "Give search(threshold=…) a distance, or a Calibration that Calibration.fit() has made."


class Gallery(GalleryBase):
    """Embedded images, made by `Gallery.create` and opened by `Gallery.open`, which return the back end of the path.

    `LocalGallery` keeps them in a folder, `ObjectStoreGallery` in an object store, `MilvusGallery` on a server. All
    have the same methods with the same defaults; what one cannot do raises `UnsupportedError`, and changes nothing.

    Opening and searching change nothing on disk. A gallery stays at the version that it has opened, and follows its own
    additions and removals; what others write meanwhile is seen after `refresh`. Each search is answered from one
    version: many threads may search one gallery while one of them writes to it. Its order is the order in which images
    were added (a replaced image counts as added anew), and equal distances are ranked in this order.

    Attributes:
        path: the folder.
        manifest: content of its gallery.json: model, slots, dtype, matcher.
        matcher: the distance of its searches.
        device: where searches multiply.

    Example:
        >>> import tempfile, torch
        >>> folder = tempfile.TemporaryDirectory()
        >>> rows = PartEmbeddings(("global",), (torch.eye(3),), torch.ones(3, 1))
        >>> with Gallery.create(folder.name, slots={"global": 3}) as gallery:
        ...     gallery.add(rows, keys=["a", "b", "c"], identity=["1", "2", None])
        ...     gallery.search(rows[1:2], k=2)
        AddResult(added=3, skipped=0, replaced=0, unreadable=())
        [[Hit(1: 'b' at 0.0000, identity='2'), Hit(2: 'a' at 1.0000, identity='1')]]
        >>> folder.cleanup()
    """

    _place: ClassVar[str]
    device: torch.device

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        model: EmbeddingModel | None = None,
        slots: Mapping[str, int] | None = None,
        fingerprint: str | None = None,
        matcher: Matcher | None = None,
        dtype: Literal["float16", "float32"] = "float16",
        reduce: Mapping[str, int] | Reduction | None = None,
        sample: PartEmbeddings | Images | None = None,
        device: str = "auto",
    ) -> Gallery:
        """Make an empty gallery, whole or not at all, and open it.

        Args:
            path: a folder that does not exist yet, or is empty ("file:///data/mall" is one, too); or an address,
                "milvus://host:port/collection" or, in an object store that LanceDB reaches, "s3://bucket/mall" (see
                `MilvusGallery` and `ObjectStoreGallery` for what differs).
            model: whose embeddings it will hold; it also embeds the images that are added. Where neither a model nor
                slots are given, it is the one that comes with the library, "oreid_lite". The gallery remembers where
                `load_model` found it.
            slots: name -> width, where no model is given.
            fingerprint: of the model that the embeddings come from, where no model is given.
            matcher: the distance of its searches; by default the model's own, or `visibility_weighted`.
            dtype: how embeddings are stored; float16 halves the disk space.
            reduce: make slots smaller on their way in: a `Reduction`, or slot -> width, which is fitted on `sample`.
                What it costs is measured by `occluded-reid evaluate --reduce`. Whatever comes in full width, added or
                asked for, is reduced.
            sample: embeddings or images like those to come, such as training images, to fit `reduce` on.
            device: where searches multiply: "cpu", "cuda", "cuda:1"; "auto" is a GPU where there is one, and logs it.
                The index goes there, too; with "cuda:0,1" each GPU holds a share of it, and tiles are multiplied on
                the first. HNSW knows no GPU: name "cpu" for it, or "auto".

        Raises:
            GalleryError: the folder holds something, cannot be written, or the arguments contradict each other.
            CheckpointError: no model was given, and this installation has no weights of the library's own.
        """
        back_end = cls._back_end(path)
        if reduce is not None and back_end._place != "in a folder":
            raise back_end._refused(back_end._shown(path), "reduce=", "Give it embeddings that are reduced already.")
        if (model is not None and slots is not None) or (fingerprint is not None and slots is None):
            raise GalleryError("give either a model, or the slots (and, if known, the fingerprint) of one.")
        first = require_device_text(device)  # before anything is made
        if model is None and slots is None:
            model = default_model().to(choose_device(first))
        if not isinstance(dtype, str) or dtype not in ("float16", "float32"):
            raise GalleryError(f"dtype is {shown(dtype)}; give 'float16' or 'float32'.")
        _require_kinds(model, matcher, fingerprint)
        if slots is not None and not isinstance(slots, Mapping):
            raise GalleryError(f"slots are {shown(slots)}; give a mapping of names to widths.")
        widths = dict(model.slots if model is not None else slots or {})
        good = (is_text(name) and name and is_whole(width) and 0 < width <= _WIDEST for name, width in widths.items())
        if not widths or not all(good):
            raise GalleryError(
                f"slots are {shown(widths)}; give a name and a width of at least 1 and at most {_WIDEST:,} for each."
            )
        widths = {name: int(width) for name, width in widths.items()}
        mark = model.fingerprint if model is not None else fingerprint
        chosen = matcher or (model.matcher if model is not None else VisibilityWeightedMatcher())
        reduction = fit_reduction(reduce, sample, widths, chosen, model, mark)
        manifest = Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            name=mark.partition("@")[0] if mark else None,
            model=place_of(model, here=back_end._place == "in a folder"),
            fingerprint=mark,
            slots=widths if reduction is None else dict(reduction.slots_out),
            slots_in=None if reduction is None else widths,
            reduction=None if reduction is None else reduction.fingerprint,
            dtype=dtype,
            precision=getattr(model, "precision", None),
            matcher=chosen.config,
        )
        require_slots(chosen, manifest)
        return back_end._make(path, manifest, chosen, model, reduction, device)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: EmbeddingModel | None = None,
        matcher: Matcher | None = None,
        version: int | None = None,
        device: str = "auto",
    ) -> Gallery:
        """Open a gallery; nothing on disk is changed.

        Args:
            path: its folder, or its address.
            model: the model that built it, for adding and searching images. None loads it from where it was when the
                gallery was made, once it is needed; embeddings need none.
            matcher: another distance than the one it was created with.
            version: an older version, for reading only.
            device: where searches multiply, as for `create`.

        Raises:
            DeviceError: there is no such device.
            GalleryError: there is no gallery, it is damaged, or it was made by a newer library.
            GalleryMismatchError: the model is not the one that built it.
        """
        version = None if version is None else require_whole("version", version)
        _require_kinds(model, matcher)
        return cls._back_end(path)._find(path, model, matcher, version, device)

    @classmethod
    def exists(cls, path: str | Path) -> bool:
        """Whether there is a gallery that `open` would find; whether it is whole is not looked at.

        Raises:
            GalleryError: a folder on the way may not be entered, or an object store does not answer.
        """
        return cls._back_end(path)._is_there(path)

    @classmethod
    def _back_end(cls, path: str | Path) -> type[Gallery]:
        """Return the class that keeps the gallery of a path.

        Raises:
            GalleryError: a subclass was asked for what another one keeps.
        """
        module, name = _BACK_ENDS[kind_of(path)]
        found: type[Gallery] = getattr(import_module(module), name)  # with what it imports, only where it is used
        if not issubclass(found, cls):
            raise GalleryError(f"'{path}' is kept by {found.__name__}, not {cls.__name__}. Use Gallery, which chooses.")
        return found

    @staticmethod
    @abstractmethod
    def _make(
        path: str | Path,
        manifest: Manifest,
        matcher: Matcher,
        model: EmbeddingModel | None,
        reduction: Reduction | None,
        device: str,
    ) -> Gallery:
        """Make an empty gallery, whole or not at all, and open it."""

    @staticmethod
    @abstractmethod
    def _find(
        path: str | Path, model: EmbeddingModel | None, matcher: Matcher | None, version: int | None, device: str
    ) -> Gallery:
        """Open a gallery."""

    @staticmethod
    @abstractmethod
    def _is_there(path: str | Path) -> bool:
        """Whether there is one."""

    @staticmethod
    def _shown(path: str | Path) -> str:
        """Return a path as messages show it."""
        return str(path)

    @classmethod
    def _refused(cls, path: object, asked: str, instead: str = _COPY) -> UnsupportedError:
        """Return the error for what this back end cannot do."""
        return UnsupportedError(f"{asked} is for galleries in a folder; '{path}' is {cls._place}. {instead}")

    def _refusal(self, asked: str, instead: str = _COPY) -> UnsupportedError:
        return self._refused(self.path, asked, instead)

    def versions(self) -> list[GalleryVersion]:
        """Return the versions that `open` can open, oldest first: number, time, images, and what made it."""
        raise self._refusal("versions()")

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
        raise self._refusal("verify()")

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
        raise self._refusal("compact()")

    @checked(GalleryError, only=("progress",))
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
        raise self._refusal("erase()")

    def estimate_index(self, factory: str | None = None) -> Estimate:
        """Say what a FAISS index of every slot takes before it is built: disk, memory, images to train on.

        The copy of the embeddings that candidates are scored from is counted among the bytes on disk. Every slot is
        taken for visible in every image, so that it is rather less.

        Args:
            factory: as for `build_index`.

        Raises:
            UnknownOptionError: the factory is not understood, or does not fit a slot.
        """
        raise self._refusal("estimate_index()")

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
        raise self._refusal("build_index()")

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
        raise self._refusal("calibrate()", _OWN_CALIBRATION)

    def keep_calibration(self, calibration: Calibration, *, wait: float = 0.0) -> None:
        """Keep a calibration for ``search(threshold="calibrated")``.

        Raises:
            CalibrationError: it was made for another model, matcher or reduction.
        """
        raise self._refusal("keep_calibration()", _OWN_CALIBRATION)

    @checked(GalleryError, only=("progress",))
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
        raise self._refusal("build_neighbours()")

    @property
    def index(self) -> IndexInfo | None:
        """What the index is, how many images it lacks, and what its efforts find; None where there is none."""
        return None


def _require_kinds(model: object, matcher: object, fingerprint: object = None) -> None:
    """Refuse what is no model, matcher or fingerprint at all.

    Raises:
        GalleryError: it is something else, such as the folder of a model.
    """
    if model is not None and not all(hasattr(model, name) for name in ("slots", "fingerprint", "matcher")):
        raise GalleryError(f"model is of type {type(model).__name__}; give a model, as load_model() returns it.")
    if matcher is not None and not isinstance(matcher, Matcher):
        raise GalleryError(f"matcher is of type {type(matcher).__name__}; give a Matcher, or None for the usual one.")
    if not (fingerprint is None or (is_text(fingerprint) and fingerprint)):
        raise GalleryError(f"fingerprint is {shown(fingerprint)}; give a text, or None where it is not known.")
