"""Names of a gallery's cameras: which number each has, for ever, kept in the gallery beside its table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from occluded_reid.arguments import is_several
from occluded_reid.data.camera_names import camera_of_text
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters.conditions import Condition
from occluded_reid.gallery.filters.tokens import replace_compared
from occluded_reid.gallery.filters.where import Where
from occluded_reid.gallery.storage.checksums import unseal
from occluded_reid.registry import did_you_mean

__all__ = ["CAMERAS", "FIRST_NUMBER", "CameraTable", "given_cameras"]

CAMERAS = "cameras.json"
"""File of a gallery that holds the names of its cameras, sealed."""

FIRST_NUMBER = 1000
"""Names get numbers from here on: out of the way of cameras that come with numbers of their own."""

_INT64 = 1 << 63
_SHOWN = 8
_LONGEST_TEXT = 10_000  # of a filter whose names are looked up; longer ones are not for people


@dataclass(frozen=True)
class CameraTable:
    """Name and number of the cameras that have a name.

    The same name is the same camera for ever: names are added, and never renamed, renumbered or removed.

    Attributes:
        gallery: what messages call the gallery.
        numbers: name -> number.
    """

    gallery: str
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> dict[int, str]:
        """Number -> name."""
        return {number: name for name, number in self.numbers.items()}

    @staticmethod
    def read(folder: Path) -> CameraTable:
        """Read the file of a gallery in a folder; a gallery without it knows no names.

        Raises:
            GalleryError: it is damaged, or missing although the gallery has one.
        """
        file = folder / CAMERAS
        try:
            content = unseal(file) if file.exists() else None
        except GalleryError as cause:
            raise GalleryError(f"{cause} It holds the names of the gallery's cameras.") from cause
        if content is not None:
            return CameraTable.parse(str(folder), content.get("cameras"), str(file))
        if (folder / "checksums" / f"{CAMERAS}.json").exists():
            raise GalleryError(
                f"'{file}' is missing, which holds the names of the gallery's cameras. Restore it from a copy."
            )
        return CameraTable(str(folder))

    @staticmethod
    def parse(gallery: str, content: Any, source: str) -> CameraTable:
        """Check names and numbers that were read from somewhere.

        Raises:
            GalleryError: they are no names with a number each.
        """
        good = isinstance(content, Mapping) and all(
            isinstance(name, str) and _is_number(number) for name, number in content.items()
        )
        if not good or len(set(content.values())) < len(content):
            raise GalleryError(
                f"'{source}' is damaged: wanted cameras by name, each with a number of its own. Restore it from a copy."
            )
        return CameraTable(gallery, dict(content))

    def joined(self, given: Mapping[str, int | None], used: Collection[int] = ()) -> CameraTable:
        """Return a table with these names too.

        Args:
            given: name -> number; None gives it one that is free.
            used: numbers that cameras of the gallery have already.

        Raises:
            GalleryError: a name is known under another number, or a number under another name; both are named.
        """
        numbers, names = dict(self.numbers), self.names
        for name, number in given.items():
            if not name or name.encode(errors="ignore").decode() != name:
                raise GalleryError(f"a camera is named {name!r}; give a text that UTF-8 can hold and is not empty.")
            known = numbers.get(name)
            if number is None:
                if known is None:
                    numbers[name] = _free({*names, *used, *(n for n in given.values() if n is not None)})
                    names[numbers[name]] = name
                continue
            if known is not None and known != number:
                raise GalleryError(
                    f"the gallery '{self.gallery}' knows the camera '{name}' as number {known}, not {number}. A name "
                    "is the same camera for ever; give the name alone, or another name."
                )
            if names.get(number, name) != name:
                raise GalleryError(
                    f"in the gallery '{self.gallery}' camera {number} is '{names[number]}', not '{name}'. A number is "
                    "the same camera for ever; give the name alone, or another number."
                )
            numbers[name], names[number] = number, name
        return CameraTable(self.gallery, numbers)

    def number_of(self, camera: str, what: str) -> int:
        """Return the number of a camera that is asked for by name.

        Raises:
            GalleryError: no camera has this name.
        """
        if camera in self.numbers:
            return self.numbers[camera]
        meant = camera_of_text(camera)
        if isinstance(meant, int):
            hint = f"; give a whole number for a camera that has one: {meant}, not a text"
        else:
            shown = ", ".join(f"'{name}'" for name in sorted(self.numbers)[:_SHOWN])
            more = ", …" if len(self.numbers) > _SHOWN else ""
            meant = did_you_mean(camera, list(self.numbers)).strip()
            known = f"{meant} Known: {shown}{more}".strip()
            hint = f". {known}" if self.numbers else "; it knows none by name; give the number"
        raise GalleryError(f"{what} is {camera!r}, and no camera of the gallery '{self.gallery}' has that name{hint}.")

    def asked(self, cameras: Any, what: str) -> Any:
        """Return numbers for the names among one or several cameras; everything else as it is.

        Raises:
            GalleryError: no camera has one of these names.
        """
        if isinstance(cameras, str):
            return self.number_of(cameras, what)
        if isinstance(cameras, bytes):
            return cameras
        if isinstance(cameras, Sequence) or (isinstance(cameras, np.ndarray) and cameras.ndim == 1):
            return [self.number_of(str(camera), what) if isinstance(camera, str) else camera for camera in cameras]
        return cameras

    def in_where(self, where: Where | None) -> Where | None:
        """Return a filter with numbers for names of cameras: in a mapping, in conditions, and in text that compares.

        Raises:
            GalleryError: no camera has one of these names.
        """
        if isinstance(where, Condition):
            return where.with_cameras(lambda name: self.number_of(name, "where: 'camera'"))
        if isinstance(where, str):
            if len(where) > _LONGEST_TEXT:
                return where
            return replace_compared(where, "camera", lambda name: str(self.number_of(name, "where: 'camera'")))
        if isinstance(where, Mapping) and "camera" in where:
            value = (
                sorted(where["camera"], key=repr) if isinstance(where["camera"], set | frozenset) else where["camera"]
            )
            return {**where, "camera": self.asked(value, "where: 'camera'")}
        return where


def given_cameras(camera: Any) -> Any:
    """Return cameras as they are added: texts that write a number are that number, other texts are names.

    Whole floats count as numbers, as tables write them. What is neither is left as it is, for others to refuse.
    """
    if not is_several(camera):
        return _given(camera)
    return [_given(value) for value in camera]


def _given(value: Any) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, str):
        return camera_of_text(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _INT64:
        return int(value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT64


def _free(taken: Collection[int]) -> int:
    number = FIRST_NUMBER
    while number in taken:
        number += 1
    return number
