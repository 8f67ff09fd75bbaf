"""Links in a gallery: nothing is written or deleted through one, so that no folder of somebody else's is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from occluded_reid.errors import GalleryError

__all__ = ["links_below", "remove_entry", "require_no_link"]


def remove_entry(entry: Path) -> None:
    """Delete a file, a folder with all in it, or a link itself; what a link leads to stays."""
    if entry.is_symlink() or not entry.is_dir():
        entry.unlink(missing_ok=True)
    else:
        shutil.rmtree(entry)


def links_below(folder: Path) -> Iterator[Path]:
    """Yield the folder if it is a link, else every link below it."""
    if folder.is_symlink():
        yield folder
        return
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield Path(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
        except (FileNotFoundError, NotADirectoryError):
            continue


def require_no_link(*folders: Path) -> None:
    """Refuse to write to a folder that is a link.

    Raises:
        GalleryError: one of them is; it is named.
    """
    for folder in folders:
        if folder.is_symlink():
            raise GalleryError(
                f"'{folder}' is a link to '{folder.readlink()}', and a gallery writes and deletes nothing through "
                "links. Put the folder itself there, or link to the gallery as a whole."
            )
