"""Tasks that outlive a crash: written down before they are begun, and finished by whoever writes next."""

from __future__ import annotations

import logging
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.storage.checksums import files_of, seal, sync, unseal
from occluded_reid.gallery.storage.commits import Commits
from occluded_reid.gallery.storage.ledger import CHECKSUMS, TABLE_FOLDER, manifest_versions
from occluded_reid.gallery.storage.links import remove_entry

__all__ = ["INDEXES", "UNFINISHED", "begin", "finish", "join_pieces", "rewrite_pieces"]

UNFINISHED = "unfinished.json"
"""The task that a writer has begun: whoever writes next finishes it. It holds numbers of rows, and nothing else."""

INDEXES = "indexes"
"""Folder of what is made from the rows and can be made again, each part of it sealed by `checksums.write`."""

_log = logging.getLogger("occluded_reid")

_FOREVER = timedelta(days=36500)  # LanceDB drops no version by its age; which ones go is decided here
_PIECE = np.uint64(32)  # the upper half of a row's address is the number of its piece
_PIECES = 500  # pieces that one condition names: LanceDB reads a condition by functions that call themselves
_REWRITTEN_NUMBERS = 1 << 24  # numbers of rows that are moved at a time: 32 MB in float16


def begin(store: Commits, task: dict[str, Any]) -> None:
    """Write down a task and do it; where this process fails or dies in between, the next writer does it.

    Raises:
        GalleryError: the folder cannot be written, or the disk is full.
    """
    seal(store.folder / UNFINISHED, task)
    try:
        with store.errors("written"):
            finish(store)
    except GalleryError as cause:
        raise GalleryError(f"{cause} The next writer goes on with what was begun ({task['task']}).") from cause


def finish(store: Commits) -> None:
    """Do the task that is written down, if there is one; harmless where a part of it is done already."""
    note = store.folder / UNFINISHED
    if not note.exists():
        return
    task = unseal(note)
    if task["task"] == "erase":
        _drop_indexes(store.folder)
        gone = _present(store, np.array(task["rows"], dtype=np.int64))
        store.hide(gone.tolist())
        rewrite_pieces(store)
        join_pieces(store)
        if store.version != store.ledger.versions()[-1]:
            store.acknowledge(f"erase {len(task['rows'])}")
    _drop_versions(store, int(task["keep"]))
    note.unlink()
    sync(store.folder)


def _drop_versions(store: Commits, count: int) -> None:
    """Keep the newest versions alone, and delete every file that they do not need.

    They stop counting first, then their manifests go, and then LanceDB finds out which files nobody needs.
    """
    while True:
        kept = store.ledger.versions()[-count:]
        store.require_sole()  # nothing is deleted that another writer may need
        store.ledger.keep(kept)
        for version, file in manifest_versions(store.folder).items():
            if version not in kept:
                file.unlink()
        sync(store.folder / TABLE_FOLDER / "_versions")
        join_pieces(store, delete=True)
        if store.version == kept[-1]:
            break
        store.acknowledge("compact")  # small pieces had been left: their files may go as well
    store.ledger.keep(kept)
    _delete_leftovers(store)


def _delete_leftovers(store: Commits) -> None:
    """Delete what no version lists: temporary files of writers that died, which LanceDB does not look for."""
    folder, listed = store.folder, store.ledger.expected()
    beside = {name for name in files_of(folder) if name.count("/") == 0 or name.startswith(f"{CHECKSUMS}/")}
    temporary = {name for name in beside if fnmatch(name.rpartition("/")[2], ".*.tmp")}
    for name in (store.ledger.table_files() - set(listed)) | temporary:
        (folder / name).unlink(missing_ok=True)


def join_pieces(store: Commits, *, delete: bool = False) -> None:
    """Have LanceDB put small pieces together, and delete the files that no manifest names where that is asked for."""
    with store.committing(None) as table:
        table.optimize(cleanup_older_than=_FOREVER, delete_unverified=delete)


def rewrite_pieces(store: Commits) -> None:
    """Write every piece of the table anew that holds hidden rows, without them; memory: a chunk of rows.

    LanceDB keeps the bytes of a hidden row for as long as its piece (a "fragment") has other rows.
    """
    names = (store.folder / TABLE_FOLDER / "_deletions").glob("*-*")
    touched = np.array(sorted({int(name.name.partition("-")[0]) for name in names}), dtype=np.uint64)
    ids = [batch.column(1).to_numpy() for batch in store.scan(["row"])]
    moving = np.concatenate([np.empty(0, np.uint64), *ids])
    moving = np.sort(moving[np.isin(moving >> _PIECE, touched)])
    before, rows = len(store), max(1, _REWRITTEN_NUMBERS // store.manifest.width)
    first = 0
    while first < len(moving):
        chosen = moving[first : first + rows]
        ends = np.flatnonzero(np.diff(chosen >> _PIECE)) + 1
        if len(ends) >= _PIECES:
            chosen = chosen[: ends[_PIECES - 1]]
        first += len(chosen)
        chunk = store.take(chosen, store.manifest.arrow_schema().names)
        with store.committing(2) as table:  # away and back again: nobody sees it in between
            table.delete(_range_of(chosen))
            table.add(chunk)
    if len(store) != before:
        raise GalleryError(
            f"the gallery '{store.folder}' has {len(store)} images after they were moved, and had {before}; this does "
            "not count. Your release of LanceDB does not do what is asked of it: choose another."
        )


def _range_of(ids: np.ndarray) -> str:
    """Return a condition for these addresses, ascending, between which their pieces hold no others that are seen."""
    starts = np.flatnonzero(np.diff(ids >> _PIECE, prepend=ids[0] >> _PIECE)).tolist()
    runs = zip([0, *starts], [*starts, len(ids)], strict=True)
    return " OR ".join(f"(_rowid >= {ids[start]} AND _rowid <= {ids[stop - 1]})" for start, stop in runs)


def _present(store: Commits, numbers: np.ndarray) -> np.ndarray:
    """Return those of the numbers that the column `row` still holds."""
    found = [np.intersect1d(batch.column(0).to_numpy(), numbers) for batch in store.scan(["row"])]
    return np.concatenate([np.empty(0, np.int64), *found])


def _drop_indexes(folder: Path) -> None:
    indexes = folder / INDEXES
    if indexes.is_symlink():
        _log.warning(
            "'%s' is a link to '%s': the link was deleted and nothing there, which may hold copies of what is erased. "
            "Delete that by hand.", indexes, indexes.readlink(),
        )  # fmt: skip
        remove_entry(indexes)
    elif indexes.exists():
        for entry in sorted(indexes.iterdir()):
            remove_entry(entry)
        sync(indexes)
