"""Finding out how a data set lies on disk, and what is wrong when it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from occluded_reid.data.benchmark import Layout
from occluded_reid.data.dataset import require_folder
from occluded_reid.errors import DataError

__all__ = ["find_layout"]

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".rar", ".7z", ".part", ".crdownload")


def find_layout(root: str | Path, title: str, layouts: Sequence[Layout]) -> tuple[Path, Layout]:
    """Return a data set's root and the first of its known layouts that is whole there.

    Args:
        root: the folder that was given.
        title: of the data set, for messages.
        layouts: all known ones, the usual one first.

    Raises:
        DataError: the folder does not exist, is one too high or too low (the right one is named), holds only a part of
            a layout, holds archives that nobody has extracted, or holds something else.
    """
    folder = require_folder(root)
    if found := _whole(folder, layouts):
        return folder, found
    raise DataError(_what_is_there(folder, title, layouts))


def _whole(folder: Path, layouts: Sequence[Layout]) -> Layout | None:
    return next((layout for layout in layouts if not _missing(folder, layout)), None)


def _missing(folder: Path, layout: Layout) -> list[str]:
    """Folders and files of the layout that are not there; an empty folder is as good as none."""
    missing = []
    for name in layout.needed:
        path = folder / name
        there = path.is_file() if name in layout.files else path.is_dir() and any(path.iterdir())
        if not there:
            missing.append(name if name in layout.files else f"{name}/")
    return missing


def _what_is_there(folder: Path, title: str, layouts: Sequence[Layout]) -> str:
    """Why no layout was found, and what to do: most often the root is a folder too high or too low."""
    here = folder.resolve()
    for above in list(here.parents)[:2]:
        if _whole(above, layouts):
            return f"'{folder}' lies inside the data set {title}: the root is one folder too low. Give '{above}'."
    for below in _sub_folders(folder):
        if _whole(below, layouts):
            return f"'{folder}' holds the data set {title} in a sub-folder: the root is one too high. Give '{below}'."
    archives = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in _ARCHIVES]
    packed = f" There are archives ({', '.join(archives[:3])}): extract them there first." if archives else ""
    # The layout that most is there of; where nothing is, none of them is meant.
    begun = sorted(layouts, key=lambda layout: len(_missing(folder, layout)) / len(layout.needed))[0]
    lacking = _missing(folder, begun)
    if len(lacking) < len(begun.needed):
        there = [name for name in begun.needed if name not in lacking and f"{name}/" not in lacking]
        return (
            f"'{folder}' holds only a part of {title} ({begun.name}): {', '.join(there)} is there, "
            f"{', '.join(lacking)} is missing or empty.{packed or ' Copy or extract the data set again, whole.'}"
        )
    known = "; or ".join(layout.tree for layout in layouts)
    return (
        f"'{folder}' is not {title}. Wanted the folder that holds {known}.{packed} "
        "For id/… sub-folders or a CSV file use the data set 'folder'."
    )


def _sub_folders(folder: Path) -> Iterator[Path]:
    """Sub-folders down to two levels, the upper ones first."""
    upper = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    yield from upper
    for path in upper:
        yield from (below for below in sorted(path.iterdir()) if below.is_dir() and not below.name.startswith("."))
