"""Gallery: images of people in a folder, to add to, to remove from and to search."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from occluded_reid.arguments import shown
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.files import look
from occluded_reid.gallery.address import folder_of, is_server
from occluded_reid.gallery.base import Images
from occluded_reid.gallery.build import fit_reduction, make, matcher_of, read_reduction, require_fit, require_slots
from occluded_reid.gallery.folder import FolderGallery
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.known_model import default_model, place_of
from occluded_reid.gallery.storage.manifest import FILE, Manifest
from occluded_reid.gallery.storage.store import Store
from occluded_reid.gallery.values import is_text, is_whole, require_whole
from occluded_reid.matchers import Matcher, VisibilityWeightedMatcher
from occluded_reid.search.device import choose_device
from occluded_reid.search.projection import Reduction

__all__ = ["Gallery"]

_WIDEST = 1 << 20  # numbers of a slot


class Gallery(FolderGallery):
    """Embedded images in a folder, made by `Gallery.create` and opened by `Gallery.open`.

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

    @staticmethod
    def create(
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
                `RemoteGallery` for what differs).
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
        if (model is not None and slots is not None) or (fingerprint is not None and slots is None):
            raise GalleryError("give either a model, or the slots (and, if known, the fingerprint) of one.")
        if model is None and slots is None:
            model = default_model().to(choose_device(device.partition(",")[0] if isinstance(device, str) else "cpu"))
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
            model=place_of(model, here=not is_server(path) and folder_of(path) is not None),
            fingerprint=mark,
            slots=widths if reduction is None else dict(reduction.slots_out),
            slots_in=None if reduction is None else widths,
            reduction=None if reduction is None else reduction.fingerprint,
            dtype=dtype,
            precision=getattr(model, "precision", None),
            matcher=chosen.config,
        )
        require_slots(chosen, manifest)
        if is_server(path):
            from occluded_reid.gallery.milvus import MilvusGallery

            if reduction is not None:
                raise GalleryError(f"'{path}' is on a server, which keeps no reduction; give it reduced embeddings.")
            return cast(Gallery, MilvusGallery.create(path, manifest, chosen, model, device=device))
        folder = folder_of(path)
        if folder is None:
            from occluded_reid.gallery.remote import RemoteGallery

            if reduction is not None:
                raise GalleryError(f"'{path}' is an address, which keeps no reduction; give it reduced embeddings.")
            return cast(Gallery, RemoteGallery.create(str(path), manifest, chosen, model, device=device))
        make(folder, manifest, reduction)
        return Gallery(folder, manifest, Store(folder, manifest), chosen, model, reduction=reduction, device=device)

    @staticmethod
    def open(
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
        if is_server(path):
            from occluded_reid.gallery.milvus import MilvusGallery

            if version is not None:
                raise GalleryError(f"'{path}' was asked for version {version}; a server keeps no older versions.")
            return cast(Gallery, MilvusGallery.open(path, model=model, matcher=matcher, device=device))
        folder = folder_of(path)
        if folder is None:
            from occluded_reid.gallery.remote import RemoteGallery

            return cast(
                Gallery, RemoteGallery.open(str(path), model=model, matcher=matcher, version=version, device=device)
            )
        _require_kinds(model, matcher)
        manifest = Manifest.read(folder)
        if model is not None:
            require_fit(folder, manifest, model)
        chosen = matcher or matcher_of(folder, manifest, model)
        store = Store(folder, manifest, version)
        pinned, reduction = version is not None, read_reduction(folder, manifest)
        return Gallery(folder, manifest, store, chosen, model, reduction=reduction, device=device, pinned=pinned)

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether there is a gallery that `open` would find; whether it is whole is not looked at.

        Raises:
            GalleryError: a folder on the way may not be entered, or an object store does not answer.
        """
        if is_server(path):
            from occluded_reid.gallery.milvus import MilvusGallery

            return MilvusGallery.exists(path)
        folder = folder_of(path)
        if folder is None:
            from occluded_reid.gallery.remote import RemoteGallery

            return RemoteGallery.exists(str(path))
        found = look(folder / FILE, GalleryError)
        return found is not None and stat.S_ISREG(found.st_mode)


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
