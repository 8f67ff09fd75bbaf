"""A gallery in an object store, as far as LanceDB gives it: ``s3://bucket/mall``, ``gs://…``, ``az://…``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lancedb
import pyarrow as pa

from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.gallery.base import Answer
from occluded_reid.gallery.build import matcher_of, require_fit
from occluded_reid.gallery.cameras import CameraTable
from occluded_reid.gallery.gallery import Gallery
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.search.search import Searcher
from occluded_reid.gallery.storage.maintenance import GalleryVersion
from occluded_reid.gallery.storage.manifest import TABLE, Manifest
from occluded_reid.gallery.storage.store import Snapshot, Store
from occluded_reid.gallery.storage.table import LANCE_ERRORS, first_line
from occluded_reid.matchers import Matcher
from occluded_reid.moved import find_renamed
from occluded_reid.search.device import choose_device
from occluded_reid.search.projection import Reduction

__all__ = ["ObjectStoreGallery", "RemoteStore"]

_CAMERAS = "cameras"  # a second, small table: names and numbers of cameras
_MANIFEST = b"occluded_reid.gallery"  # where the table's schema keeps what gallery.json holds in a folder


class RemoteStore(Store):
    """The table of a gallery at an address; every commit of LanceDB counts at once.

    Args:
        address: where the gallery is.
        manifest: of the gallery; None reads it from the table.
        version: an older version, for reading only; None is the newest.

    Raises:
        GalleryError: the store does not answer, or has no such gallery or version.
    """

    def __init__(self, address: str, manifest: Manifest | None = None, version: int | None = None) -> None:
        self._cameras: CameraTable | None = None
        folder = cast(Path, address)  # it stands for the folder in messages
        super().__init__(folder, manifest or _manifest_of(address, _table_of(address)), version)

    def _prepare(self) -> None:
        """Take hold of nothing: there is neither a list of versions nor a lock."""

    def _open(self, version: int | None) -> Any:
        table = _table_of(str(self.folder))
        if version is not None:
            table.checkout(version)
        return table

    @staticmethod
    def create(folder: Path | str, manifest: Manifest) -> None:
        """Make an empty table at an address, whole or not at all.

        Raises:
            GalleryError: there is a gallery already, or the store cannot be written.
        """
        content = json.dumps(manifest.content())
        schema = manifest.arrow_schema().with_metadata({_MANIFEST: content.encode()})
        try:
            lancedb.connect(str(folder)).create_table(TABLE, schema=schema)
        except LANCE_ERRORS as cause:
            exists = "already exists" in str(cause)
            raise GalleryError(
                f"'{folder}' is a gallery already; open it with Gallery.open()."
                if exists
                else f"the gallery '{folder}' could not be created: {first_line(cause)}. Correct the address, and the "
                "access to it, which LanceDB reads from the environment."
            ) from cause

    def refresh(self) -> None:
        """Go on to the newest version."""
        with self.errors("read"):
            self._table.checkout_latest()
            self._base = self.version
            self._cameras = None

    @contextmanager
    def writing(self, wait: float = 0.0) -> Iterator[None]:  # noqa: ARG002 - there is no lock to wait for
        """Go to the newest version; there is no lock, so that it is up to the caller that nobody else writes."""
        if self.version == self._base:
            self.refresh()
        yield

    @contextmanager
    def committing(self, commits: int | None = 1) -> Iterator[Any]:
        """Give LanceDB's table for some commits, and say when another writer's came between them.

        Raises:
            GalleryLockedError: another program was writing as well; never passed over in silence.
            GalleryError: LanceDB could not write.
        """
        with self.errors("written"):
            base = self.version
            yield self._table
            if commits is None or self.version == base + commits:
                return
        raise GalleryLockedError(
            f"the gallery '{self.folder}' has gone from version {base} to {self.version} in one write: another program "
            "has written at the same moment. Both writes are there, and an image that both have added may be there "
            "twice: remove its key and add it again. An object store has no lock; let one program write at a time."
        )

    def acknowledge(self, action: str) -> None:  # noqa: ARG002 - LanceDB has committed it
        """Go on: what LanceDB has committed counts."""
        self._base = self.version

    def cameras(self) -> CameraTable:
        """Return the names of the gallery's cameras; read once, and again after `refresh` and each write.

        Raises:
            GalleryError: the store does not answer, or what it keeps is damaged.
        """
        if self._cameras is None:
            with self.errors("read"):
                try:
                    table = lancedb.connect(str(self.folder)).open_table(_CAMERAS)
                    found = table.search(None).select(["name", "number"]).to_list()
                except LANCE_ERRORS as cause:
                    if "not found" not in str(cause):
                        raise
                    found = []
            names = {row["name"]: row["number"] for row in found}
            source = f"{self.folder}/{_CAMERAS}"
            self._cameras = CameraTable.parse(str(self.folder), names if len(names) == len(found) else None, source)
        return self._cameras

    def _keep_cameras(self, cameras: CameraTable) -> None:
        schema = pa.schema([pa.field("name", pa.string()), pa.field("number", pa.int64())])
        rows = [{"name": name, "number": number} for name, number in cameras.numbers.items()]
        with self.errors("written"):
            connection = lancedb.connect(str(self.folder))
            # One commit, so that all names are there or none: the table is small.
            connection.create_table(_CAMERAS, pa.Table.from_pylist(rows, schema=schema), mode="overwrite")
        self._cameras = cameras

    def _add(self, rows: pa.Table | None) -> None:
        """Write rows; no pieces are joined where no lock keeps others from them."""
        if rows is not None:
            with self.committing() as table:
                table.add(rows)

    def _drop_old_versions(self) -> None:
        """Drop nothing, likewise."""

    def _require_whole(self, version: int) -> None:
        """Trust the object store, which has checksums of its own."""

    def _is_dropped(self, version: int) -> bool:  # noqa: ARG002 - LanceDB keeps all of them
        return False

    def versions(self) -> list[GalleryVersion]:
        """Return the versions that LanceDB has kept, oldest first."""
        with self.errors("read"):
            return [
                GalleryVersion(
                    int(known["version"]),
                    known["timestamp"].astimezone().isoformat(timespec="milliseconds"),
                    int(known["metadata"].get("total_rows", 0)),
                    "",
                )
                for known in self._table.list_versions()
            ]


class ObjectStoreGallery(Gallery):
    """A gallery at an address of an object store, made by `Gallery.create` and opened by `Gallery.open`.

    It adds, removes and searches (exactly) as a gallery in a folder does. What differs:

    - A group of images is there whole or not at all, and durable when LanceDB has committed it: that is what the object
      store guarantees, which also keeps its files from flipping bits. There are no checksums of ours.
    - There is no lock. A second writer is not refused; its commit in the middle of another is noticed, and the call
      that notices it raises `GalleryLockedError`. Let one program write at a time.
    - `verify`, `erase`, `compact`, `build_index`, `build_neighbours` and `calibrate` need files that can be locked,
      deleted and mapped: they are for galleries in a folder, and raise `UnsupportedError` here.
    - Small pieces are not joined and old versions not dropped: add many images in one call.

    Access (keys, region, endpoint) is what LanceDB reads from the environment.
    """

    _place = "in an object store"

    def __init__(
        self,
        store: RemoteStore,
        matcher: Matcher,
        model: EmbeddingModel | None,
        *,
        device: str = "auto",
        pinned: bool = False,
    ) -> None:
        super().__init__(store.folder, store.manifest, store, matcher, model, pinned=pinned)
        self.device = choose_device(device)
        self._known: tuple[int, Searcher] | None = None
        self._making = threading.Lock()

    @staticmethod
    def _make(
        path: str | Path,
        manifest: Manifest,
        matcher: Matcher,
        model: EmbeddingModel | None,
        reduction: Reduction | None,  # noqa: ARG004 - `create` has refused it
        device: str,
    ) -> ObjectStoreGallery:
        RemoteStore.create(path, manifest)
        return ObjectStoreGallery(RemoteStore(str(path), manifest), matcher, model, device=device)

    @staticmethod
    def _find(
        path: str | Path, model: EmbeddingModel | None, matcher: Matcher | None, version: int | None, device: str
    ) -> ObjectStoreGallery:
        store = RemoteStore(str(path), version=version)
        if model is not None:
            require_fit(store.folder, store.manifest, model)
        chosen = matcher or matcher_of(store.folder, store.manifest, model)
        return ObjectStoreGallery(store, chosen, model, device=device, pinned=version is not None)

    @staticmethod
    def _is_there(path: str | Path) -> bool:
        try:
            lancedb.connect(str(path)).open_table(TABLE)
        except LANCE_ERRORS as cause:
            if "not found" in str(cause):
                return False
            raise GalleryError(f"'{path}' does not answer: {first_line(cause)}.") from cause
        return True

    def versions(self) -> list[GalleryVersion]:
        """Return the versions that `open` can open, oldest first."""
        return cast(RemoteStore, self._opened()).versions()

    def _state(self) -> dict[str, Any]:
        return {"versions": len(self.versions())}

    def _read(self) -> Snapshot:
        return self._opened().snapshot()

    def _answers(self, ask: Callable[[Answer], list[list[Hit]]]) -> list[list[Hit]]:
        with self._making:
            snapshot = self._read()
            if self._known is None or self._known[0] != snapshot.version:
                self._known = snapshot.version, Searcher(snapshot, None, self.device)
            searcher = self._known[1]
        return ask(lambda request: searcher.answer(request, self.matcher))

    def _written(self) -> None:
        """Nothing follows a write: there is no index to bring up to date."""


def _table_of(address: str) -> Any:
    """Open the table at an address.

    Raises:
        GalleryError: there is none, or its store does not answer.
    """
    try:
        return lancedb.connect(address).open_table(TABLE)
    except LANCE_ERRORS as cause:
        raise GalleryError(
            f"there is no gallery '{address}', or its store does not answer: {first_line(cause)}. Make one "
            "with Gallery.create(), or correct the address, and the access to it (LanceDB reads it from the "
            "environment: AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT, …)."
        ) from cause


def _manifest_of(address: str, table: Any) -> Manifest:
    content = (table.schema.metadata or {}).get(_MANIFEST)
    try:
        described = json.loads(content) if content is not None else None
    except ValueError:
        described = None
    return Manifest.parse(described, address, f"{address}/{TABLE}")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Find classes under the names that they had before."""
        return find_renamed(__name__, name)
