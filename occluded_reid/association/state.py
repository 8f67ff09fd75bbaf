"""Tracks, identities and decisions in one SQLite file: each change is there whole or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from occluded_reid.association.decisions import Decision, Decisions
from occluded_reid.association.tracks import Tracks
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import AssociationError, OccludedReIDError
from occluded_reid.files import absolute, look

__all__ = ["IdentityFile"]

_VERSION = 1
_APPLICATION = 0x6F726964  # "orid": what marks the file as ours
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE tracks (
    name TEXT PRIMARY KEY, camera INTEGER, start REAL, "end" REAL, slots BLOB NOT NULL, identity INTEGER NOT NULL
);
CREATE TABLE decisions (number INTEGER PRIMARY KEY, first TEXT, second TEXT, content TEXT NOT NULL);
"""


class IdentityFile:
    """The file behind an `Associator`.

    SQLite writes each transaction whole or not at all, also where the process is killed in the middle. Nothing in the
    file is ever run. What is erased is overwritten (`secure_delete`), and the file shrinks.

    Args:
        path: the file.
        slots: name -> width of the rows that it holds; None for a file that exists.

    Raises:
        AssociationError: the file cannot be opened, is something else, or holds other slots.
    """

    def __init__(self, path: str | Path, slots: Mapping[str, int] | None = None) -> None:
        self.path = absolute(path, AssociationError)
        there = look(self.path, AssociationError)
        if there is None and slots is None:
            raise AssociationError(f"there are no identities at '{self.path}'; give the file of an Associator.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
        except (OSError, sqlite3.Error) as cause:
            raise AssociationError(
                f"'{self.path}' cannot be opened: {cause}. Choose a file that may be written."
            ) from cause
        with self.transaction() as db:
            mark = int(db.execute("PRAGMA application_id").fetchone()[0])
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if empty and mark == 0 and slots is not None:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {_VERSION}")
                db.execute("INSERT INTO settings VALUES ('slots', ?)", (json.dumps(dict(slots)),))
                db.execute("INSERT INTO settings VALUES ('next', '1')")
            elif mark != _APPLICATION or version != _VERSION:
                raise AssociationError(
                    f"'{self.path}' holds no identities that this library reads (mark {mark}, format {version}). "
                    "Choose another file, or update the library."
                )
        with self.errors():
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.execute("PRAGMA trusted_schema = OFF")
        with self.errors():
            self.slots: dict[str, int] = {n: int(width) for n, width in json.loads(self.setting("slots")).items()}
        if slots is not None and dict(slots) != self.slots:
            raise AssociationError(
                f"'{self.path}' holds rows of {self.slots}; these are {dict(slots)}. Use the same model."
            )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what SQLite raises into an AssociationError that names the file."""
        try:
            yield
        except sqlite3.ProgrammingError as cause:
            raise AssociationError(f"the identities '{self.path}' are closed; open them again.") from cause
        except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as cause:
            if isinstance(cause, OccludedReIDError):
                raise
            raise AssociationError(
                f"the identities '{self.path}' cannot be read or written: {cause}. Is the disk full, does another "
                "program write to them, or are they damaged?"
            ) from cause

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do several changes, whole or not at all; others wait meanwhile."""
        with self.errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def setting(self, name: str) -> str:
        """Return a setting of the file."""
        with self.errors():
            row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise KeyError(name)
            return str(row[0])

    def tracks(self) -> tuple[Tracks, np.ndarray]:
        """Return all tracks, by name, and the number of each one's identity."""
        with self.errors():
            rows = self._db.execute(
                'SELECT name, camera, start, "end", slots, identity FROM tracks ORDER BY name'
            ).fetchall()
            values = [np.frombuffer(row[4], dtype="<f4") for row in rows]
            width = sum(self.slots.values()) + len(self.slots)
            table = np.stack(values) if values else np.empty((0, width), np.float32)
            if table.shape[1] != width:
                raise ValueError(f"a row has {table.shape[1]} numbers in place of {width}")
            ends = np.cumsum([0, *self.slots.values()])
            slots = tuple(torch.from_numpy(table[:, a:b].copy()) for a, b in pairwise(ends))
            visibility = torch.from_numpy(table[:, ends[-1] :].copy())
            start, end = (
                np.array([np.nan if row[k] is None else row[k] for row in rows], dtype=np.float64) for k in (2, 3)
            )
            try:
                embeddings = PartEmbeddings(tuple(self.slots), slots, visibility)
                tracks = Tracks(embeddings, tuple(row[0] for row in rows), tuple(row[1] for row in rows), start, end)
            except OccludedReIDError as cause:
                raise ValueError(str(cause)) from cause
            return tracks, np.array([row[5] for row in rows], dtype=np.int64)

    def put(self, db: sqlite3.Connection, tracks: Tracks, identity: Sequence[int]) -> None:
        """Add tracks, or write them anew."""
        table = torch.cat([tracks.embeddings.concatenate(), tracks.embeddings.visibility], 1).float().numpy()
        start, end = tracks.times
        db.executemany(
            "INSERT OR REPLACE INTO tracks VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    name,
                    tracks.camera[n],
                    None if np.isnan(start[n]) else float(start[n]),
                    None if np.isnan(end[n]) else float(end[n]),
                    table[n].astype("<f4").tobytes(),
                    int(identity[n]),
                )
                for n, name in enumerate(tracks.names)
            ],
        )

    def renumber(self, db: sqlite3.Connection, numbers: Mapping[str, int], following: int) -> None:
        """Give tracks other identities, and keep the next free number."""
        db.executemany("UPDATE tracks SET identity = ? WHERE name = ?", [(n, name) for name, n in numbers.items()])
        db.execute("UPDATE settings SET value = ? WHERE name = 'next'", (str(following),))

    def decisions(self) -> Decisions:
        """Return the log of decisions, oldest first."""
        with self.errors():
            rows = self._db.execute("SELECT content FROM decisions ORDER BY number").fetchall()
            return Decisions([Decision.model_validate_json(row[0]) for row in rows])

    def decide(self, db: sqlite3.Connection, decision: Decision) -> None:
        """Add to the log."""
        db.execute(
            "INSERT INTO decisions (first, second, content) VALUES (?, ?, ?)",
            (decision.first, decision.second, decision.model_dump_json()),
        )

    def erase(self, names: Sequence[str]) -> int:
        """Take tracks out for good, with every decision about them; return how many there were."""
        with self.transaction() as db:
            count = 0
            for name in names:
                count += db.execute("DELETE FROM tracks WHERE name = ?", (name,)).rowcount
                db.execute("DELETE FROM decisions WHERE first = ? OR second = ?", (name, name))
        with self.errors():
            self._db.execute("VACUUM")
        return count

    def close(self) -> None:
        """Let go of the file; closing twice does no harm."""
        self._db.close()
