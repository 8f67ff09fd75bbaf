"""Keys for the files of a folder: their paths below it, unless those are the keys of other images already."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from occluded_reid.gallery.browsing import Browsing
from occluded_reid.gallery.storage.store import ROW_ID

__all__ = ["distinct_prefix"]


def distinct_prefix(
    gallery: Browsing, names: Sequence[str], paths: Sequence[Path], root: Path
) -> tuple[str, str | None]:
    """Return what to put before names, so that none of them is the key of another image.

    The same folder gets the same answer again: what it has added is not taken by others. That is nothing, or as many of
    the folders above as it takes: "tue/", "week 2/tue/".

    Args:
        gallery: where the images are to go.
        names: of N files, as keys.
        paths: of the files.
        root: the folder whose names come before theirs.

    Returns:
        The prefix, and the first key that would have been taken without one.
    """
    first: str | None = None
    above = root.absolute().parts[1:]
    for depth in range(len(above) + 1):
        prefix = "".join(f"{part}/" for part in above[len(above) - depth :])
        taken = _taken(gallery, [prefix + name for name in names], paths)
        if taken is None:
            return prefix, first
        first = first or taken
    return "", first  # what adds them says which key is taken


def _taken(gallery: Browsing, keys: Sequence[str], paths: Sequence[Path]) -> str | None:
    """The first key that the gallery has for another image: another file, with other bytes."""
    reader = gallery._read()
    ids = reader.find(["key"], [keys]).column(ROW_ID).to_numpy()
    known = {row["key"]: row for row in reader.take(ids, ["key", "path", "sha256"]).to_pylist()}
    for key, path in zip(keys, paths, strict=True):
        row = known.get(key)
        if row is None or row["path"] == path.absolute().as_posix():
            continue  # a file that has changed is for the user to replace
        try:
            with path.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == row["sha256"]
        except OSError:
            continue  # what adds them says that it cannot be read
        if not same:
            return key
    return None
