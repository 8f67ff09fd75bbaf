"""What a gallery does to itself while it is written: small pieces are joined, and the oldest of many versions dropped.

Each addition makes a piece of the table and a version. Without this, a thousand additions of one image would leave a
thousand of each, and every one of them costs time in every later search and addition.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch

import pyarrow as pa

from occluded_reid.gallery.storage.checksums import compare, open_plain, sync
from occluded_reid.gallery.storage.commits import Commits
from occluded_reid.gallery.storage.lance_manifest import LanceManifest, Piece, read_lance_manifest
from occluded_reid.gallery.storage.ledger import TABLE_FOLDER, manifest_versions

__all__ = ["VERSIONS_KEPT", "VERSIONS_MOST", "address_range", "drop_old_versions", "pieces_to_join", "rows_to_join"]

VERSIONS_MOST = 128
"""With more versions than this, a write drops the oldest."""

VERSIONS_KEPT = 64
"""So many of the newest are left then."""

_TOGETHER = 8  # pieces of about one size that become one: each row is moved once for each power of it
_JOINED_NUMBERS = 1 << 24  # numbers of a joined piece: 32 MB in float16, and what is held in memory
_DROPPED_FROM = ("data", "_deletions", "_transactions", "_versions")  # folders of the table that old files go from
_PIECE_BITS = 32  # the upper half of a row's address is the number of its piece

_log = logging.getLogger("occluded_reid")


def pieces_to_join(pieces: Sequence[Piece], fresh: int, most: int) -> list[Piece]:
    """Return the pieces that an addition takes along into its own, so that few are left, and none is moved often.

    Sizes are counted in powers of eight. Where an addition finds seven pieces of its size or smaller, they become one;
    where that finds seven of its own size, so do these.

    Args:
        pieces: of the table.
        fresh: rows that are added.
        most: rows of the largest piece to be made.

    Example:
        >>> sizes = [64, 8, 8, 1, 1, 1, 1, 1, 1, 1]
        >>> pieces = [Piece(number, rows, ("a",), None) for number, rows in enumerate(sizes)]
        >>> [piece.rows for piece in pieces_to_join(pieces, 1, most=1000)]
        [1, 1, 1, 1, 1, 1, 1]
        >>> pieces_to_join(pieces[:-1], 1, most=1000)
        []
    """
    joined: set[int] = set()
    total = fresh
    while True:
        near = [piece for piece in pieces if piece.number not in joined and _power(piece.rows) <= _power(total)]
        grown = total + sum(piece.rows for piece in near)
        if len(near) + 1 < _TOGETHER or grown > most:
            return [piece for piece in pieces if piece.number in joined]
        joined.update(piece.number for piece in near)
        total = grown


def rows_to_join(store: Commits, fresh: int) -> tuple[list[Piece], pa.Table] | None:
    """Return pieces that an addition is to take along, and their rows; None where there are none.

    Their files are compared with their checksums before, so that damage is never copied into new files.

    Args:
        store: at its newest version, while it is written.
        fresh: rows that are added.
    """
    manifest = newest_manifest(store)
    pieces = [] if manifest is None else manifest.pieces
    chosen = pieces_to_join(pieces, fresh, max(1, _JOINED_NUMBERS // store.manifest.width))
    if not chosen:
        return None
    wanted = {f"{TABLE_FOLDER}/{name}" for piece in chosen for name in _files(piece)}
    wanted &= store.acknowledged_files  # what this call has just written has no sums yet
    sums = store.ledger.sums_of(wanted, store.version)
    wrong = compare(store.folder, sums)
    if wrong or wanted - set(sums):
        name = next(iter(wrong), None) or min(wanted - set(sums))
        _log.warning("Small pieces of '%s' are not joined, as '%s' is damaged: verify() says more.", store.folder, name)
        return None
    names = store.manifest.arrow_schema().names
    batches = [batch.select(names) for batch in store.scan(names, address_range(chosen))]
    table = pa.Table.from_batches(batches)
    return (chosen, table) if table.num_rows == sum(piece.rows for piece in chosen) else None


def address_range(pieces: Iterable[Piece]) -> str:
    """Return a condition for the rows of these pieces."""
    starts = [piece.number << _PIECE_BITS for piece in pieces]
    return " OR ".join(f"(_rowid >= {start} AND _rowid <= {start + (1 << _PIECE_BITS) - 1})" for start in starts)


def drop_old_versions(store: Commits) -> None:
    """Forget the oldest versions where there are many, and delete the files that no other needs.

    What was written before counts, whatever happens here. Files go when they are on no list any more, so that a process
    that dies in between leaves nothing but files that nobody needs.

    Raises:
        GalleryError: a list of checksums is damaged, or another writer has begun.
        OSError: a file cannot be deleted.
    """
    versions = store.ledger.versions()
    if len(versions) <= VERSIONS_MOST:
        return
    kept = versions[-VERSIONS_KEPT:]
    there = store.ledger.table_files()
    needed, told = _needed(store, kept)
    if needed is None or not needed <= there:
        _log.warning(
            "The oldest versions of '%s' are not dropped: this release of LanceDB writes what is not understood, or a "
            "file is damaged. Gallery.compact() drops them.",
            store.folder,
        )
        return
    # A file that a manifest names anywhere stays, whatever was understood of it.
    gone = {
        name
        for name in there - needed
        if any(fnmatch(name, f"{TABLE_FOLDER}/{folder}/*") for folder in _DROPPED_FROM)
        and name.rpartition("/")[2].encode() not in told
    }
    store.require_sole()
    store.ledger.keep(kept, gone)
    manifests = {name for name in gone if name.endswith(".manifest")}
    for group in (manifests, gone - manifests):  # nothing leads to a file any more when it goes
        for name in sorted(group):
            (store.folder / name).unlink(missing_ok=True)
        sync(store.folder / TABLE_FOLDER / "_versions")


def newest_manifest(store: Commits) -> LanceManifest | None:
    """Return what the manifest of the version that is read says, where it is understood and agrees with LanceDB."""
    file = manifest_versions(store.folder).get(store.version)
    if file is None:
        return None
    with open_plain(file) as stream:
        found = read_lance_manifest(stream.read())
    return found if found is not None and (found.version, found.rows) == (store.version, len(store)) else None


def _needed(store: Commits, kept: Sequence[int]) -> tuple[set[str] | None, bytes]:
    """Return the files that these versions need, or None where that cannot be told for certain; and all manifests."""
    needed: set[str] = set()
    told: list[bytes] = []
    for version, file in sorted(manifest_versions(store.folder).items()):
        if version < kept[0]:
            continue
        # Versions in between that never counted keep their manifests until those before them go.
        needed.add(file.relative_to(store.folder).as_posix())
        if version not in kept:
            continue
        entry = store.ledger.read(version)
        with open_plain(file) as stream:
            content = stream.read()
        found = read_lance_manifest(content)
        if found is None or (found.version, found.rows) != (version, entry.rows):
            return None, b""
        needed |= {f"{TABLE_FOLDER}/{name}" for name in found.files}
        told.append(content)
    return (needed if len(told) == len(kept) else None), b"".join(told)


def _files(piece: Piece) -> list[str]:
    return [*piece.files, *([] if piece.hidden is None else [piece.hidden])]


def _power(rows: int) -> int:
    """Return the largest p with 8 ** p <= rows; 0 for none."""
    return max(0, (rows.bit_length() - 1) // 3)
