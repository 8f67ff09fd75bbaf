"""What a manifest of LanceDB says about a version: its pieces, and the files that they lie in.

LanceDB tells nobody which files a version needs. Its manifests are protobuf messages, of which a few numbered fields
are read here and all others are passed over. Whoever relies on it compares the rows with what was acknowledged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["LanceManifest", "Piece", "read_lance_manifest"]

_FOOTER = struct.Struct("<QHH4s")  # where the message begins, two numbers of the format, and who made the file
_MAGIC = b"LANC"
_LENGTH = struct.Struct("<I")

# Numbers of the fields.
_FRAGMENT, _VERSION = 2, 3
_ID, _FILE, _DELETION, _ROWS = 1, 2, 3, 4
_PATH, _BASE = 1, 7
_KIND, _READ_VERSION, _MARK, _HIDDEN = 1, 2, 3, 4
_SUFFIXES = {0: "arrow", 1: "bin"}

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_LONGEST_VARINT = 10


@dataclass(frozen=True)
class Piece:
    """A part of the table (LanceDB: a fragment).

    Attributes:
        number: the upper half of its rows' addresses.
        rows: rows that are seen.
        files: where they lie, below the table's folder.
        hidden: the file that says which of its rows are hidden, or None.
    """

    number: int
    rows: int
    files: tuple[str, ...]
    hidden: str | None


@dataclass(frozen=True)
class LanceManifest:
    """A version of the table.

    Attributes:
        version: its number.
        pieces: in the order of the table.
    """

    version: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """Rows that are seen."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def files(self) -> set[str]:
        """Files that the version needs beside its manifest, below the table's folder."""
        hidden = {piece.hidden for piece in self.pieces if piece.hidden is not None}
        return hidden.union(*(piece.files for piece in self.pieces))


def read_lance_manifest(content: bytes) -> LanceManifest | None:
    """Return what a manifest says, or None where it is not written as this library knows it."""
    try:
        begin, _, _, magic = _FOOTER.unpack(content[-_FOOTER.size :])
        if magic != _MAGIC:
            return None
        (length,) = _LENGTH.unpack_from(content, begin)
        message = content[begin + _LENGTH.size :][:length]
        if len(message) != length:
            return None
        pieces, version = [], 0
        for field, value in _fields(message):
            if field == _FRAGMENT and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif field == _VERSION and isinstance(value, int):
                version = value
        return LanceManifest(version, tuple(pieces))
    except (ValueError, IndexError, KeyError, OverflowError, struct.error):
        return None


def _piece(message: bytes) -> Piece:
    number = rows = hidden_rows = 0
    files: list[str] = []
    hidden: bytes | None = None
    for field, value in _fields(message):
        if field == _ID and isinstance(value, int):
            number = value
        elif field == _ROWS and isinstance(value, int):
            rows = value
        elif field == _FILE and isinstance(value, bytes):
            files.append(f"data/{_path(value)}")
        elif field == _DELETION and isinstance(value, bytes):
            hidden = value
    name = None
    if hidden is not None:
        told = {field: value for field, value in _fields(hidden) if isinstance(value, int)}
        if _BASE in told:
            raise ValueError("hidden rows are listed outside of the table")
        hidden_rows = told.get(_HIDDEN, 0)
        suffix = _SUFFIXES[told.get(_KIND, 0)]
        name = f"_deletions/{number}-{told.get(_READ_VERSION, 0)}-{told.get(_MARK, 0)}.{suffix}"
    if not files or rows < hidden_rows:
        raise ValueError("a piece without files, or with more hidden rows than rows")
    return Piece(number, rows - hidden_rows, tuple(files), name)


def _path(message: bytes) -> str:
    told = dict(_fields(message))
    path = told.get(_PATH)
    if _BASE in told or not isinstance(path, bytes):
        raise ValueError("a file outside of the table")
    return path.decode()


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the numbered fields of a protobuf message: whole numbers, and bytes for all else."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"fields of kind {kind} are not known")
        if place + size > len(message):
            raise ValueError("a field is longer than its message")
        yield tag >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count in range(_LONGEST_VARINT):
        byte = message[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise ValueError("a number without end")
