"""Finding out how a data set lies on disk, and what is wrong when it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from occluded_reid.data.benchmark import Layout
from occluded_reid.data.dataset import require_folder
from occluded_reid.data.images import IMAGE_SUFFIXES, RUBBISH
from occluded_reid.errors import DataError

__all__ = ["archives_beside", "explain_folder", "find_layout"]

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z", ".part", ".crdownload")
_BESIDE = ("masks", "occlusion")  # trees that mirror a data set's, and so look like one
_LEVELS = 3  # how far above a root it is looked for: the images of some lie in split/kind/identity/


def find_layout(root: str | Path, title: str, layouts: Sequence[Layout]) -> tuple[Path, Layout]:
    """Return a data set's root and the first of its known layouts that is whole there.

    Args:
        root: the folder that was given.
        title: of the data set, for messages.
        layouts: all known ones, the usual one first.

    Raises:
        DataError: the folder does not exist, is one too high or too low (the right one is named), holds only a part of
            a layout, holds archives that were not extracted, or holds something else.
    """
    folder = require_folder(root)
    if found := _whole(folder, layouts):
        return folder, found
    raise DataError(explain_folder(folder, title, layouts))


def _whole(folder: Path, layouts: Sequence[Layout]) -> Layout | None:
    return next((layout for layout in layouts if not _missing(folder, layout)), None)


def _missing(folder: Path, layout: Layout) -> list[str]:
    """Folders and files of the layout that are not there; a folder without images is as good as none."""
    missing = []
    for name in layout.needed:
        path = folder / name
        if not (_is_file(path) if name in layout.files else _holds_something(path)):
            missing.append(name if name in layout.files else f"{name}/")
    return missing


def _holds_something(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES or _is_folder(path) for path in _entries(folder))


def archives_beside(folder: Path) -> str:
    """Return a sentence about archives in a folder that were not extracted, or nothing."""
    archives = [path.name for path in _entries(folder) if path.suffix.lower() in _ARCHIVES]
    more = ", …" if len(archives) > 3 else ""
    return f" There are archives ({', '.join(archives[:3])}{more}): extract them there first." if archives else ""


def explain_folder(folder: Path, title: str, layouts: Sequence[Layout]) -> str:
    """Return why no layout was found, and what to do: most often the root is a folder too high or too low."""
    here = folder.resolve()
    for above in list(here.parents)[:_LEVELS]:
        if _whole(above, layouts):
            return f"'{folder}' lies inside the data set {title}: the root is one folder too low. Give '{above}'."
    for below in _sub_folders(folder):
        if _whole(below, layouts):
            return f"'{folder}' holds the data set {title} in a sub-folder: the root is one too high. Give '{below}'."
    packed = archives_beside(folder)
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
    """Sub-folders down to two levels, the upper ones first; trees of masks left out."""
    upper = [path for path in _entries(folder) if _is_folder(path) and path.name not in _BESIDE]
    yield from upper
    for path in upper:
        yield from (below for below in _entries(path) if _is_folder(below))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    """Whether it is a folder, as far as anybody may look: it only explains another one, or counts as missing."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted, hidden things left out; nothing where it may not be read or is no folder."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []  # it is only looked at to explain another one, or counts as missing
    return [path for path in found if not path.name.startswith(".") and path.name not in RUBBISH]
