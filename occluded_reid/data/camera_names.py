"""Cameras by number and by name: what a text means, and numbers for the names of one list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["camera_of_text", "number_cameras"]

_WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?", re.ASCII)
_INT64 = 1 << 63


def camera_of_text(text: str) -> int | str:
    """Return the number that a text writes, or the name that it is, without the blanks around it.

    Tables write numbers in several ways; they are one camera.

    Example:
        >>> [camera_of_text(text) for text in ("1", "1.0", "01", " hall ", "c1", "1.5")]
        [1, 1, 1, 'hall', 'c1', '1.5']
    """
    text = text.strip()
    if _WHOLE.fullmatch(text) and len(text) < 40:
        number = int(text.partition(".")[0])
        if abs(number) < _INT64:
            return number
    return text


def number_cameras(cameras: Sequence[int | str]) -> tuple[list[int], dict[int, str]]:
    """Give each camera of one list a number: numbers stay what they are, names get free ones in sorted order.

    The numbers of names are good for this list alone: another list may have other names. A gallery is given names, and
    keeps one number for each of them for ever.

    Args:
        cameras: as `camera_of_text` returns them.

    Returns:
        A number for each, and number -> name for those that have one.

    Example:
        >>> number_cameras(["hall", 1, "door", 1])
        ([2, 1, 0, 1], {0: 'door', 2: 'hall'})
    """
    taken = {camera for camera in cameras if isinstance(camera, int)}
    names = sorted({camera for camera in cameras if isinstance(camera, str)})
    numbers = dict(zip(names, _free(taken, len(names)), strict=True))
    found = [numbers[camera] if isinstance(camera, str) else camera for camera in cameras]
    return found, {number: name for name, number in numbers.items()}


def _free(taken: Iterable[int], count: int) -> list[int]:
    """The first numbers from 0 that are not taken."""
    used, found, number = set(taken), list[int](), 0
    while len(found) < count:
        found += [] if number in used else [number]
        number += 1
    return found
