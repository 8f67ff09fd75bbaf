"""Work on what a gallery has written before: its versions, and compaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.storage.checksums import compare, files_of
from occluded_reid.gallery.storage.commits import Commits
from occluded_reid.gallery.storage.ledger import CHECKSUMS
from occluded_reid.gallery.storage.lock import LOCK_FILE
from occluded_reid.gallery.storage.manifest import FORMAT_VERSION
from occluded_reid.gallery.storage.store import Store
from occluded_reid.gallery.storage.tasks import begin, join_pieces, rewrite_pieces

__all__ = ["CompactResult", "GalleryVersion", "compact", "kept_versions", "require_sound"]


@dataclass(frozen=True)
class GalleryVersion:
    """A version of a gallery that can be opened.

    Attributes:
        version: its number, for `Gallery.open`.
        time: when it was made, ISO 8601, UTC.
        images: how many it holds.
        action: what made it, such as "add 1024".
    """

    version: int
    time: str
    images: int
    action: str


@dataclass(frozen=True)
class CompactResult:
    """What a compaction has done.

    Attributes:
        bytes_before: size of the gallery's files before; None where a server keeps them.
        bytes_after: and after it.
        versions: those that can still be opened.
        finished: whether it is done; a server may go on by itself.
    """

    bytes_before: int | None
    bytes_after: int | None
    versions: tuple[int, ...]
    finished: bool = True


def kept_versions(store: Commits) -> list[GalleryVersion]:
    """Return the versions that can be opened, oldest first.

    Raises:
        GalleryError: a list of checksums is damaged; it is named.
    """
    entries = store.ledger.entries()
    if not entries and store.manifest.format_version >= FORMAT_VERSION:
        raise GalleryError(
            f"the gallery '{store.folder}' has lost its folder '{CHECKSUMS}'. Restore it from a copy, or index again."
        )
    if not entries:  # format 1: no list was kept
        return [GalleryVersion(store.version, store.manifest.created, len(store), "")]
    return [GalleryVersion(entry.version, entry.time, entry.rows, entry.action) for entry in entries]


def compact(
    store: Store, keep_versions: int, wait: float = 0.0, progress: Callable[[int, int], None] | None = None
) -> CompactResult:
    """Put small pieces of the table together without their hidden rows, and drop old versions and what none needs.

    All files are compared with their checksums before: damage is never copied into new files.

    Raises:
        GalleryLockedError: another writer is at work.
        GalleryError: keep_versions is below 1, the folder cannot be written, or the gallery is damaged.
    """
    if isinstance(keep_versions, bool) or not isinstance(keep_versions, int) or keep_versions < 1:
        raise GalleryError(f"keep_versions is {keep_versions!r}; give a whole number of at least 1.")
    with store.writing(wait):
        before = _size(store.folder)
        require_sound(store, progress)
        rewrite_pieces(store)
        join_pieces(store)
        if store.version != store.ledger.versions()[-1]:
            store.acknowledge("compact")
        begin(store, {"task": "compact", "keep": keep_versions})
        return CompactResult(before, _size(store.folder), tuple(store.ledger.versions()))


def require_sound(store: Commits, progress: Callable[[int, int], None] | None = None) -> None:
    """Compare the table with its checksums, before anything in it is copied.

    Raises:
        GalleryError: a file is damaged or missing; it is named.
    """
    sums, done = store.ledger.expected(), 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    total = sum(size for size, _ in sums.values())
    wrong = compare(store.folder, sums, moved)
    if wrong:
        first, what = next(iter(wrong.items()))
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise GalleryError(
            f"the gallery '{store.folder}' is damaged: '{first}' {what}{more}. Nothing was changed, so that damage is "
            "not copied into new files. Restore it from a copy; Gallery.verify() names every such file."
        )


def _size(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in files_of(folder) - {LOCK_FILE})
