"""Verification: every file of a gallery against the sha256 that was taken before it counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from occluded_reid.errors import GalleryError
from occluded_reid.files import is_folder
from occluded_reid.gallery.storage import checksums
from occluded_reid.gallery.storage.checksums import Sums, compare, files_of
from occluded_reid.gallery.storage.ledger import CHECKSUMS, HINT, NEWEST, Ledger, manifest_versions
from occluded_reid.gallery.storage.lock import LOCK_FILE
from occluded_reid.gallery.storage.manifest import FILE, FORMAT_VERSION, Manifest
from occluded_reid.gallery.storage.store import Store
from occluded_reid.gallery.storage.tasks import INDEXES, UNFINISHED
from occluded_reid.gallery.storage.writer import Progress

__all__ = ["VerifyReport", "verify_folder", "verify_store"]

_SHOWN = 20


@dataclass(frozen=True)
class VerifyReport:
    """What a verification has found; it prints as text.

    Attributes:
        folder: the gallery.
        files: how many files were read; None where a server keeps them, and only the slots were compared.
        bytes: and how many bytes.
        versions: the versions that count, ascending.
        damaged: file -> what is wrong with it; empty where all is well.
        leftovers: files that belong to no version that counts: what a crash has left. They do no harm, and the next
            compaction deletes them.
        unchecked: files that no list which can be read has, while another list is damaged: nobody can tell whether they
            are whole, or left over.
        unfinished: whether a task was broken off, which the next writer finishes.
    """

    folder: str
    files: int | None
    bytes: int | None
    versions: tuple[int, ...]
    damaged: dict[str, str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    unfinished: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def raise_if_damaged(self) -> None:
        """Do nothing where all is well.

        Raises:
            GalleryError: something is damaged; the files are named.
        """
        if self.damaged:
            raise GalleryError(f"{self}\nRestore these files from a copy, or index the images again.")

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        if self.files is None or self.bytes is None:
            read, well = "the slots of all images", "every image is in every slot"
        else:
            read = f"{self.files} files, {self.bytes / 1e6:.1f} MB, {len(self.versions)} versions"
            well = "every bit as it was written"
        found = [f"{self.folder}: {read}: {well if self.ok else f'{len(self.damaged)} DAMAGED'}"]
        shown = list(self.damaged.items())[:_SHOWN]
        found += [f"  damaged: {name} {what}" for name, what in shown]
        if len(self.damaged) > _SHOWN:
            found.append(f"  … and {len(self.damaged) - _SHOWN} more")
        if self.unchecked:
            found.append(f"  {len(self.unchecked)} files could not be compared: the list of their checksums is damaged")
        if self.leftovers:
            found.append(f"  {len(self.leftovers)} files of writes that were broken off; compact() deletes them")
        if self.unfinished:
            found.append("  a task was broken off; the next writer finishes it")
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines())


def verify_store(store: Store, progress: Progress | None = None) -> VerifyReport:
    """Read every file of every version that counts, and compare it with its sha256; see `Gallery.verify`.

    Raises:
        GalleryError: the gallery is of format 1, which has no checksums.
    """
    with store.errors("read"):
        return _verified(store.folder, store.manifest, progress)


def verify_folder(folder: Path, progress: Progress | None = None) -> VerifyReport:
    """Do the same for a gallery in a folder that may be too damaged to be opened; all damage is named.

    Args:
        folder: the gallery.
        progress: called with (bytes read, bytes in all).

    Raises:
        GalleryError: the folder is no gallery, cannot be read, or is of format 1, which has no checksums.
    """
    manifest = None
    try:
        manifest = Manifest.read(folder)
    except GalleryError:
        if not is_folder(folder / CHECKSUMS, GalleryError):
            raise
    try:
        return _verified(folder, manifest, progress)
    except OSError as cause:
        raise GalleryError(f"the gallery '{folder}' cannot be read: {cause}. Correct its permissions.") from cause


def _verified(folder: Path, manifest: Manifest | None, progress: Progress | None) -> VerifyReport:
    ledger = Ledger(folder)
    damaged, sums = _lists(ledger)
    noted, versions = ledger.noted(), ledger.versions()
    if not versions and (manifest is None or manifest.format_version >= FORMAT_VERSION):
        damaged[CHECKSUMS] = checksums.MISSING
    elif not versions:
        raise GalleryError(
            f"the gallery '{folder}' is of format 1, which has no checksums: there is nothing to compare its files "
            "with. They are taken when it is next written to; Gallery.compact() is enough."
        )
    if FILE not in sums and not damaged:
        damaged[f"{CHECKSUMS}/{FILE}.json"] = checksums.MISSING
    if versions and noted is not None and noted > versions[-1]:
        damaged[f"{CHECKSUMS}/{noted}.json"] = checksums.MISSING
    damaged |= _sealed(folder / NEWEST, NEWEST)
    unfinished = (folder / UNFINISHED).exists()
    if unfinished:
        damaged |= _sealed(folder / UNFINISHED, UNFINISHED)
    indexes = _index_folders(folder)
    for file in sorted((folder / INDEXES).glob("*.json")):  # which of them is the current one, sealed on its own
        damaged |= _sealed(file, f"{INDEXES}/{file.name}")
    total = sum(size for size, _ in sums.values()) + sum(_size(folder, index) for index in indexes)
    done = 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, total), total)

    wrong = compare(folder, sums, moved)
    for index in indexes:
        wrong |= {f"{index}/{name}": what for name, what in checksums.verify(folder / index, moved).items()}
    wrong |= _hint(folder, versions)
    if wrong and versions != ledger.versions():  # a writer has dropped versions meanwhile, and their files
        expected = _lists(ledger)[1]
        wrong = {name: what for name, what in wrong.items() if name in expected or name not in sums}
    if unfinished and manifest is not None and any(what == checksums.MISSING for what in wrong.values()):
        # The task was deleting files that no version needs; each version that counts must still be whole.
        wrong = {name: what for name, what in wrong.items() if what != checksums.MISSING}
        wrong |= _unreadable(folder, manifest, versions)
    # Without a list, what it had looks like what a crash has left; nobody is to delete it for that.
    lost = any(name.startswith(CHECKSUMS) for name in damaged)
    unlisted = tuple(sorted(_leftovers(folder, set(sums), indexes, damaged)))
    read = len(sums) + sum(len(files_of(folder, index)) for index in indexes)
    return VerifyReport(
        str(folder),
        read,
        done,
        tuple(versions),
        damaged | wrong,
        () if lost else unlisted,
        unlisted if lost else (),
        unfinished,
    )


def _lists(ledger: Ledger) -> tuple[dict[str, str], Sums]:
    """Return what is wrong with the lists of checksums, and the sums of those that are whole."""
    sums: Sums = {}
    wrong: dict[str, str] = {}
    before: int | None = None
    for version in ledger.versions():
        name = f"{CHECKSUMS}/{version}.json"
        try:
            entry = ledger.read(version)
        except GalleryError:
            wrong |= _sealed(ledger.folder / name, name)
        else:
            if entry.previous not in (None, before):
                wrong[f"{CHECKSUMS}/{entry.previous}.json"] = checksums.MISSING
            sums.update(entry.files)
        before = version
    try:
        sums.update(ledger.sides())
    except GalleryError:
        for file in sorted(ledger.path.glob("*.json")):
            if not file.stem.isdecimal():
                wrong |= _sealed(file, f"{CHECKSUMS}/{file.name}")
    return wrong, sums


def _sealed(file: Path, name: str) -> dict[str, str]:
    try:
        checksums.unseal(file)
    except GalleryError:
        return {name: checksums.OTHER} if file.exists() else {}
    return {}


def _hint(folder: Path, versions: Iterable[int]) -> dict[str, str]:
    """LanceDB's hint is written anew with every commit: it must name the newest version, once no write is under way."""
    newest = max(versions, default=0)
    there = max([newest, *manifest_versions(folder)])
    try:
        text = (folder / HINT).read_bytes()
    except FileNotFoundError:
        return {}  # older releases of LanceDB write none
    right = text == b'{"version":%d}' % there
    return {} if right or there > newest else {HINT: checksums.OTHER}


def _index_folders(folder: Path) -> list[str]:
    """Folders of indexes that were finished: the last thing written into one are its checksums."""
    marks = sorted((folder / INDEXES).rglob(checksums.FOLDER_FILE)) if (folder / INDEXES).exists() else []
    return [mark.parent.relative_to(folder).as_posix() for mark in marks]


def _leftovers(folder: Path, listed: set[str], indexes: Iterable[str], closed: dict[str, str]) -> set[str]:
    known = listed | {HINT, LOCK_FILE, NEWEST, UNFINISHED}
    inside = tuple(f"{index}/" for index in indexes)
    found = {
        name
        for name in files_of(folder, closed=closed)
        if name not in known and not (inside and name.startswith(inside))
    }
    # Sealed files tell for themselves whether they are whole.
    return {name for name in found if not (name.startswith((f"{CHECKSUMS}/", f"{INDEXES}/")) and _is_json(name))}


def _is_json(name: str) -> bool:
    return name.endswith(".json") and name.count("/") == 1


def _unreadable(folder: Path, manifest: Manifest, versions: Iterable[int]) -> dict[str, str]:
    found = {}
    for version in versions:
        try:
            for _ in Store(folder, manifest, version).scan(["row"]):
                pass
        except GalleryError as cause:
            found[f"version {version}"] = f"cannot be read: {cause}"
    return found


def _size(folder: Path, index: str) -> int:
    return sum((folder / name).stat().st_size for name in files_of(folder, index))
