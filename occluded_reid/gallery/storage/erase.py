"""Erasing people: from the table, from every version of it, from indexes and from caches of crops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from PIL import Image

from occluded_reid.data.images import open_image
from occluded_reid.errors import GalleryError, ImageError
from occluded_reid.gallery.images import identify
from occluded_reid.gallery.near_keys import near_keys
from occluded_reid.gallery.storage.links import links_below
from occluded_reid.gallery.storage.maintenance import require_sound
from occluded_reid.gallery.storage.store import ROW_ID, Store
from occluded_reid.gallery.storage.tasks import INDEXES, begin
from occluded_reid.gallery.storage.writer import Progress

__all__ = ["EraseResult", "erase_keys"]

_SHOWN = 5


@dataclass(frozen=True)
class EraseResult:
    """What an erasure has done.

    Attributes:
        images: how many were erased.
        versions_dropped: older versions that can no longer be opened, as they held them.
        indexes_dropped: folders of derived data that were dropped: "build-…" is the index, which the gallery builds
            anew, "neighbours" the lists for re-ranking, which `build_neighbours` computes again.
        crops_forgotten: entries deleted from the caches of crops.
    """

    images: int
    versions_dropped: int
    indexes_dropped: tuple[str, ...]
    crops_forgotten: int


def erase_keys(
    store: Store, keys: Sequence[str], caches: Sequence[str | Path], wait: float = 0.0, progress: Progress | None = None
) -> EraseResult:
    """Erase images; see `Gallery.erase`.

    Raises:
        GalleryLockedError: another writer is at work.
        GalleryError: a key is in no version of the gallery, the gallery is damaged, or its index lies behind a link,
            where nothing is deleted: nothing is erased then.
        DataError: a cache of crops cannot be used.
    """
    wanted = set(keys)
    if caches:  # models take seconds to import: where that is interrupted, nothing has begun
        import occluded_reid.models.cropping  # noqa: F401
    with store.writing(wait):
        found = _everywhere(store, wanted)
        missing = sorted(wanted - set(found.column("key").to_pylist()))
        if missing:
            names = ", ".join(repr(key) for key in missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
            raise GalleryError(
                f"{len(missing)} of {len(wanted)} keys are in no version of the gallery '{store.folder}': {names}."
                f"{near_keys(store, missing[0])} Nothing was erased; leave them out. Where one was "
                "removed, and the versions that showed it were "
                "dropped, compact(keep_versions=1) deletes what is left of it."
            )
        if not wanted:
            return EraseResult(0, 0, (), 0)
        _require_no_copy_elsewhere(store.folder / INDEXES)
        require_sound(store, progress)
        before = len(store.ledger.versions())
        indexes = store.folder / INDEXES
        folders = [entry.name for entry in indexes.iterdir() if entry.is_dir()] if indexes.exists() else []
        crops = sum(_forget(Path(cache), found) for cache in caches)
        begin(store, {"task": "erase", "rows": sorted(set(found.column("row").to_pylist())), "keep": 1})
    return EraseResult(len(wanted), before - 1, tuple(sorted(folders)), crops)


def _require_no_copy_elsewhere(indexes: Path) -> None:
    """Refuse to erase where copies of the rows lie behind a link: what is there may be somebody else's, and stays."""
    links = sorted(links_below(indexes))
    if links:
        raise GalleryError(
            f"'{links[0]}' is a link to '{links[0].readlink()}'"
            f"{f' (and there are {len(links) - 1} more)' if len(links) > 1 else ''}: an erasure follows no links, and "
            "could not promise that no copy of the rows is left there. Nothing was erased. Delete what it leads to by "
            "hand, if it is this gallery's, and the link; then erase again. build_index() makes the index anew."
        )


def _everywhere(store: Store, wanted: set[str]) -> pa.Table:
    """Return row, key, path and sha256 of images, looked for in older versions as well where they are hidden by now."""
    columns = ["row", "key", "path", "sha256"]
    parts = [_look_up(store, wanted, columns)]
    missing = wanted - set(parts[0].column("key").to_pylist())
    for version in reversed(store.ledger.versions()[:-1]):
        if not missing:
            break
        parts.append(_look_up(Store(store.folder, store.manifest, version), missing, columns))
        missing -= set(parts[-1].column("key").to_pylist())
    return pa.concat_tables(parts)


def _look_up(store: Store, keys: set[str], columns: Sequence[str]) -> pa.Table:
    return store.take(store.find(["key"], [sorted(keys)]).column(ROW_ID).to_numpy(), columns)


def _forget(cache: Path, found: pa.Table) -> int:
    """Delete the crops of images from a cache: theirs, or all of them where one can no longer be told from the others.

    A cache knows images by their pixels, so that only an image that still lies where it was can be found in it.
    """
    from occluded_reid.models.cropping import forget_crops

    known = list(zip(found.column("path").to_pylist(), found.column("sha256").to_pylist(), strict=True))

    def pictures() -> Iterator[Image.Image]:
        """One after another: together they may be larger than the memory."""
        for path, sha256 in known:
            if path is None or sha256 is None or identify(path).sha256 != sha256:
                raise ImageError(f"'{path}' is not what was added.")
            yield open_image(path)

    try:
        return forget_crops(cache, pictures())
    except ImageError:
        return forget_crops(cache, None)
