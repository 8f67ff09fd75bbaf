"""Making, finding, indexing and compacting the collections of a gallery on a server."""

from __future__ import annotations

import json
import time
from typing import Any

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.milvus.effort import index_params
from occluded_reid.gallery.milvus.schema import (
    EMBEDDING,
    PARTITIONS,
    VISIBILITY,
    labels_schema,
    require_widths,
    slot_collection,
    slot_schema,
    to_manifest,
)
from occluded_reid.gallery.milvus.server import MilvusServer
from occluded_reid.gallery.storage.manifest import Manifest

__all__ = ["Collections"]

_POLL = 0.1  # seconds between requests whether a compaction is done


class Collections:
    """The collections of the gallery that the server's address names.

    Args:
        server: the connection.
    """

    def __init__(self, server: MilvusServer) -> None:
        self._server, self._name = server, server.address.collection
        self._metrics: str | None = None

    def exists(self) -> bool:
        """Whether the collection of the labels is there, which is made last."""
        return bool(self._server.call("opened", "has_collection", self._name))

    def manifest(self) -> Manifest:
        """Return the manifest that the gallery was made with.

        Raises:
            GalleryError: there is no such gallery.
        """
        if not self.exists():
            names = sorted(self._server.call("opened", "list_collections"))
            there = [name for name in names if "__slot_" not in name]
            raise GalleryError(
                f"there is no gallery '{self._server.address}'. Make one with Gallery.create(), or correct the name; "
                f"the server has {', '.join(there[:10]) + (', …' if len(there) > 10 else '') or 'no collections'}."
            )
        found = self._server.call("opened", "describe_collection", self._name)
        return to_manifest(str(found.get("description", "")), self._server.address)

    def create(self, manifest: Manifest, metric: str) -> None:
        """Make all collections, that of the labels last, with flat indexes.

        Raises:
            GalleryError: there is a gallery of this name, or another collection that is in the way.
        """
        require_widths(manifest)
        if self.exists():
            raise GalleryError(
                f"'{self._server.address}' exists already. Open it with Gallery.open(), or choose another name."
            )
        for number in range(len(manifest.slots)):
            self._clear(slot_collection(self._name, number))

        def make(number: int) -> None:
            flat = index_params("Flat", metric, list(manifest.slots.values())[number])
            self._make(slot_collection(self._name, number), slot_schema(manifest, number), EMBEDDING, flat)

        self._server.each(make, [(number,) for number in range(len(manifest.slots))])
        flat = index_params("Flat", "L2", len(manifest.slots))
        self._make(self._name, labels_schema(manifest), VISIBILITY, flat)

    def load(self, manifest: Manifest) -> None:
        """Have the server hold all collections ready for searching."""
        for name in self._all(manifest):
            self._server.call("opened", "load_collection", name)

    def indexes(self, manifest: Manifest) -> list[dict[str, Any]]:
        """Return the index of each slot, as the server describes it."""
        return [
            dict(self._server.call("read", "describe_index", slot_collection(self._name, number), index_name=EMBEDDING))
            for number in range(len(manifest.slots))
        ]

    def metric(self, manifest: Manifest) -> str:
        """Return the metric of the slots' indexes."""
        if self._metrics is None:
            self._metrics = str(self.indexes(manifest)[0].get("metric_type"))
        return self._metrics

    def build_index(self, manifest: Manifest, spec: str, metric: str) -> None:
        """Replace the index of every slot."""
        chosen = [index_params(spec, metric, width) for width in manifest.slots.values()]

        def build(number: int) -> None:
            name = slot_collection(self._name, number)
            self._server.call("written", "flush", name)
            self._server.call("written", "release_collection", name)
            self._server.call("written", "drop_index", name, EMBEDDING)
            self._server.call("written", "create_index", name, self._params(EMBEDDING, chosen[number]))
            self._server.call("written", "load_collection", name)

        self._server.each(build, [(number,) for number in range(len(manifest.slots))])
        self._metrics = None

    def compact(self, manifest: Manifest, wait: float = 0.0) -> bool:
        """Flush every collection, and have the server compact it.

        Args:
            manifest: of the gallery.
            wait: seconds to wait until the server has done it.

        Returns:
            Whether it has.
        """
        until = time.monotonic() + wait

        def work(name: str) -> bool:
            self._server.call("written", "flush", name)
            job = self._server.call("compacted", "compact", name)
            while self._server.call("compacted", "get_compaction_state", job) != "Completed":
                if time.monotonic() + _POLL > until:
                    return False
                time.sleep(_POLL)
            return True

        return all(self._server.each(work, [(name,) for name in self._all(manifest)]))

    def drop(self, manifest: Manifest) -> None:
        """Remove the gallery, the labels first."""
        for name in reversed(self._all(manifest)):
            self._server.call("written", "drop_collection", name)

    def _all(self, manifest: Manifest) -> list[str]:
        return [*(slot_collection(self._name, number) for number in range(len(manifest.slots))), self._name]

    def _make(self, name: str, schema: Any, field: str, index: dict[str, Any]) -> None:
        options: dict[str, Any] = {"num_partitions": PARTITIONS} if field == EMBEDDING else {}
        self._server.call(
            "created",
            "create_collection",
            name,
            schema=schema,
            index_params=self._params(field, index),
            consistency_level="Strong",
            **options,
        )

    @staticmethod
    def _params(field: str, index: dict[str, Any]) -> Any:
        from pymilvus import MilvusClient

        params = MilvusClient.prepare_index_params()
        params.add_index(field, index_name=field, **index)
        if field == VISIBILITY:
            params.add_index("row", index_name="row", index_type="STL_SORT")
        return params

    def _clear(self, name: str) -> None:
        """Remove a slot's collection that a broken creation has left; nobody else's."""
        if not self._server.call("created", "has_collection", name):
            return
        description = str(self._server.call("created", "describe_collection", name).get("description", ""))
        try:
            ours = json.loads(description)["slot"] is not None
        except (ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise GalleryError(
                f"the collection '{name}' of the Milvus server {self._server.address.server} is in the way, and is no "
                "part of a gallery. Choose another name."
            )
        self._server.call("created", "drop_collection", name)
