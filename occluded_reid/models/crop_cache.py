"""Crops that were decided once, kept on disk: one small database in a folder."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image

from occluded_reid.data.resize import Box
from occluded_reid.errors import DataError
from occluded_reid.files import absolute

__all__ = ["CropCache", "forget_crops"]

_TABLE = "create table if not exists crops (key text, image text, box text, primary key (key, image)) without rowid"
_WAIT = 60.0  # seconds for another process that writes


class CropCache:
    """Remembers crops under a key of parser and rule, and the sha256 of each image's pixels.

    It is a file ``crops.sqlite`` that several processes may use at a time; a crop is written whole or not at all. It
    holds nothing that cannot be made again: it may be deleted at any time.

    Args:
        folder: where the file is, or is made.
        key: of everything but the image that decides a crop.

    Raises:
        DataError: the folder cannot be written to, or the file is damaged.
    """

    def __init__(self, folder: str | Path, key: str) -> None:
        self.path, self.key = absolute(folder, DataError) / "crops.sqlite", key
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as database, database:
                database.execute(_TABLE)
        except (OSError, sqlite3.Error) as cause:
            raise self._trouble(cause) from cause

    def get(
        self, images: Sequence[Image.Image], decide: Callable[[Sequence[Image.Image]], Sequence[Box | None]]
    ) -> list[Box | None]:
        """Return the crops of some RGB pictures; those that are not known are decided, and remembered.

        Raises:
            DataError: the file cannot be read or written.
        """
        names = [_sha256(image) for image in images]
        try:
            with closing(self._connect()) as database, database:
                asked = ", ".join("?" * len(names))
                rows = database.execute(
                    f"select image, box from crops where key = ? and image in ({asked})", [self.key, *names]
                )
                known = {name: _read(box) for name, box in rows}
            new = {name: image for name, image in zip(names, images, strict=True) if name not in known}
            if new:
                decided = dict(zip(new, decide(list(new.values())), strict=True))
                with closing(self._connect()) as database, database:
                    lines = [(self.key, name, _write(box)) for name, box in decided.items()]
                    database.executemany("insert or replace into crops values (?, ?, ?)", lines)
                known |= decided
        except sqlite3.Error as cause:
            raise self._trouble(cause) from cause
        return [known[name] for name in names]

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_WAIT)

    def _trouble(self, cause: Exception) -> DataError:
        return DataError(
            f"the cache of crops '{self.path}' cannot be used: {cause}. Delete it (crops are then decided anew), or "
            "choose another folder."
        )


def forget_crops(folder: str | Path, images: Iterable[Image.Image] | None) -> int:
    """Delete the crops of some RGB pictures from a cache, under every key, so that no byte of them is left in its file.

    Args:
        folder: where the cache is.
        images: the pictures, looked at one after another, so that they need not be there at once; what they raise is
            raised, and nothing is deleted then. None deletes the crops of all.

    Returns:
        How many crops were deleted.

    Raises:
        DataError: there is no cache, or it cannot be written.
    """
    path = Path(folder) / "crops.sqlite"
    if not path.is_file():
        raise DataError(f"there is no cache of crops '{path}'. Give a folder that cache_crops() was given.")
    names = None if images is None else [(_sha256(image),) for image in images]
    try:
        with closing(sqlite3.connect(path, timeout=_WAIT)) as database:
            database.execute("pragma secure_delete = on")
            with database:
                if names is None:
                    deleted = database.execute("delete from crops").rowcount
                else:
                    deleted = database.executemany("delete from crops where image = ?", names).rowcount
            database.execute("vacuum")
    except sqlite3.Error as cause:
        raise DataError(f"the cache of crops '{path}' could not be written: {cause}. Delete the file.") from cause
    return max(0, deleted)


def _sha256(image: Image.Image) -> str:
    """Of size and pixels: a file, a picture and an array with the same pixels are the same image."""
    digest = hashlib.sha256(f"{image.size}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _write(box: Box | None) -> str:
    return "" if box is None else " ".join(map(str, box))


def _read(text: str) -> Box | None:
    if not text:
        return None
    left, top, right, bottom = map(int, text.split())
    return left, top, right, bottom
