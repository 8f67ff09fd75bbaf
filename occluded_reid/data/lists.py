"""Official lists of images: text files with a name in each line, and sometimes more behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from occluded_reid.errors import DataError
from occluded_reid.files import is_file, text_lines

__all__ = ["list_lines", "read_list"]


def list_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is not empty.

    Raises:
        DataError: the file cannot be read, is no UTF-8, or has no such line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # as text, it would be cut at a lone \r too
    except (OSError, UnicodeDecodeError) as cause:
        raise DataError(f"the list '{path}' cannot be read: {cause}. Take the official file again.") from cause
    # Blanks alone are cut off: a name may end in what else Unicode calls white.
    lines = [(n, line.strip(" \t")) for n, line in enumerate(text_lines(text), start=1) if line.strip(" \t")]
    if not lines:
        raise DataError(f"the list '{path}' is empty; wanted the name of an image in each line. Take it again.")
    yield from lines


def read_list(path: Path, root: Path, folders: Sequence[str]) -> list[Path]:
    """Return the images that a list names, in its order.

    Args:
        path: the list; each line is a path relative to one of the folders.
        root: of the data set; nothing outside it is read.
        folders: relative to the root, looked through in this order for each image.

    Raises:
        DataError: a line leads out of the root, names an image again, or one that is in none of the folders; all
            missing ones are counted.
    """
    places = ", ".join(f"'{root / folder}'" for folder in folders)
    found: list[Path] = []
    missing: list[str] = []
    seen: dict[str, int] = {}
    for number, line in list_lines(path):
        name = line.replace("\\", "/")
        if name in seen:
            raise DataError(
                f"line {number} of '{path}' names '{line}' again, after line {seen[name]}. Remove one of them."
            )
        seen[name] = number
        if _leads_out(name):
            raise DataError(
                f"line {number} of '{path}' names '{line}', which leads out of '{root}'. Wanted paths relative to "
                f"{places}, without '..'; take the official list again."
            )
        place = next((root / folder / name for folder in folders if is_file(root / folder / name, DataError)), None)
        if place is None:
            missing.append(f"'{line}' (line {number})")
        else:
            found.append(place)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"'{path}' names {len(seen)} images, of which {len(missing)} are missing in {places}: "
            f"{', '.join(missing[:3])}{more}. Extract the images again, whole; or is it the list of another data set?"
        )
    return found


def _leads_out(name: str) -> bool:
    """By its words alone: images that are links to another disk are their owner's affair, not the list's."""
    return PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor) or ".." in PurePosixPath(name).parts
