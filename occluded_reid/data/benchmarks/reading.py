"""What loaders of published data sets share: numbered images of a folder, lists of files, and what both refuse."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from occluded_reid.data.dataset import Sample
from occluded_reid.data.images import image_files, refuse_linked_folders
from occluded_reid.data.left_out import LeftOut
from occluded_reid.data.lists import read_list
from occluded_reid.errors import DataError
from occluded_reid.files import inside, is_file

__all__ = [
    "files_below",
    "listed_file",
    "listed_images",
    "numbered_images",
    "person",
    "refuse_shared",
]

_SHOWN = 3


def person(number: str) -> str:
    """Return a person's number as an identity: three digits or more, so that "1" and "001" are one person.

    Example:
        >>> person("7"), person("007"), person("1234")
        ('007', '007', '1234')
    """
    return f"{int(number):03d}"


def numbered_images(
    root: Path, folder: str, pattern: re.Pattern[str], camera: int, *, example: str, notes: list[str]
) -> tuple[Sample, ...]:
    """Return the images of a folder and its sub-folders, named after a person's number, under one camera.

    They are ordered by the number and then by path. Images with other names are left out, which a note says.

    Args:
        root: of the data set.
        folder: below it.
        pattern: matches the start of a file's name; its first group is the person's number. A sub-folder whose name is
            a number must be that number.
        camera: of all of them.
        example: a name that the pattern matches, for messages.
        notes: where notes are added.

    Raises:
        DataError: no image has such a name, one name is there twice with different suffixes, an image lies in another
            person's sub-folder, or a sub-folder is a link.
    """
    left_out = LeftOut()
    files = image_files(root / folder, recursive=True, left_out=left_out)
    refuse_linked_folders(root / folder)
    found: list[tuple[int, Sample]] = []
    stems: dict[str, str] = {}
    for path in files:
        below = path.relative_to(root / folder).as_posix()
        match = pattern.match(path.name)
        if match is None:
            left_out.add(below, f"not named like {example}", "images")
            continue
        _refuse_other_folder(folder, below, match[1])
        stem = below[: -len(path.suffix)].casefold()
        if stem in stems:
            raise DataError(
                f"'{root / folder}' holds one image twice: '{stems[stem]}' and '{below}'. Remove one of the two; "
                "with both every number would count that image double."
            )
        stems[stem] = below
        found.append((int(match[1]), Sample(f"{folder}/{below}", path, person(match[1]), camera)))
    if not found:
        raise DataError(
            f"'{root / folder}' holds {len(files)} images, none of them named like {example}. Copy the data set again, "
            "or use the data set 'folder'."
        )
    notes += left_out.notes(f"{folder}: ")
    return tuple(sample for _, sample in sorted(found, key=lambda item: (item[0], item[1].name)))


def listed_images(root: Path, name: str, pattern: re.Pattern[str], camera: int, *, example: str) -> tuple[Sample, ...]:
    """Return the images that a list at the root names, a path in each line, ordered by their person's number.

    Args:
        root: of the data set; the paths are relative to it.
        name: of the list.
        pattern: matches the start of a file's name; its first group is the person's number.
        camera: of all of them.
        example: a name that the pattern matches, for messages.

    Raises:
        DataError: a line names no such file, one that is named already, or leads out of the root; or the file's name
            is another.
    """
    found: list[tuple[int, Sample]] = []
    for path in read_list(root / name, root, (".",)):
        match = pattern.match(path.name)
        if match is None:
            raise DataError(
                f"'{root / name}' names '{path.name}'; wanted names such as {example}. Copy the list again."
            )
        found.append((int(match[1]), Sample(path.relative_to(root).as_posix(), path, person(match[1]), camera)))
    return tuple(sample for _, sample in sorted(found, key=lambda item: (item[0], item[1].name)))


def _refuse_other_folder(folder: str, below: str, number: str) -> None:
    above = PurePosixPath(below).parent.name
    if above.isascii() and above.isdigit() and int(above) != int(number):
        raise DataError(
            f"'{folder}/{below}' is named after person {int(number)} but lies in the folder of person {int(above)}. "
            "One of the two is wrong: copy the data set again."
        )


def files_below(folder: Path) -> frozenset[str]:
    """Return all files of a folder and its sub-folders, relative to it: one look for lists of many thousand lines."""
    found: list[str] = []
    for place, _, names in os.walk(folder):
        above = Path(place).relative_to(folder).as_posix()
        found.extend(names if above == "." else (f"{above}/{name}" for name in names))
    return frozenset(found)


def listed_file(folder: Path, name: str, present: frozenset[str], where: str) -> Path:
    """Return the file that a line of a list names.

    Args:
        folder: that the name is relative to.
        name: as the list has it, with slashes.
        present: `files_below(folder)`.
        where: the line, for messages.

    Raises:
        DataError: the name leads out of the folder, or no such file is there.
    """
    if name not in present:
        try:
            there = is_file(inside(folder, name, DataError), DataError)
        except DataError as cause:
            raise DataError(f"{where}: {cause}") from cause
        if not there:
            raise DataError(
                f"{where} names '{name}', which is no file in '{folder}'. Copy or extract the data set again, whole."
            )
    return folder / name


def refuse_shared(title: str, train: Iterable[Sample], test: Iterable[Sample]) -> None:
    """Raise DataError if a person is in training and in the test side: nothing measured there would mean anything."""
    learnt = {sample.person: sample.name for sample in train}
    shared = {sample.person: sample.name for sample in test if sample.person in learnt}
    if shared:
        shown = ", ".join(sorted(shared)[:_SHOWN]) + (", …" if len(shared) > _SHOWN else "")
        first = min(shared)
        raise DataError(
            f"{len(shared)} people are in training and in queries or gallery of this {title}: {shown} "
            f"('{learnt[first]}', '{shared[first]}'). The splits of the data set share nobody: copy it again."
        )
