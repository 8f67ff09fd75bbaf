"""Values that callers give, checked at the door: an odd one is an error that names it, wherever it comes in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from occluded_reid.arguments import is_several, shown
from occluded_reid.errors import GalleryError

__all__ = [
    "INT64",
    "finite",
    "is_text",
    "is_whole",
    "require_keys",
    "require_seconds",
    "require_whole",
]

INT64 = 1 << 63
"""Whole numbers of a gallery lie below it, on either side of 0."""


def finite(value: float) -> bool:
    """Whether a number is finite, and fits into a float where it is whole."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_text(value: object) -> bool:
    """Whether a value is a text that UTF-8 can hold; names of files need not be."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def is_whole(value: object) -> bool:
    """Whether a value is a whole number of 64 bits; true and false are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and abs(int(value)) < INT64


def require_whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number.

    Raises:
        GalleryError: it is none, or too small.
    """
    if not is_whole(value) or value < least:
        raise GalleryError(f"{name} is {shown(value)}; give a whole number of at least {least}.")
    return int(value)


def require_seconds(wait: Any) -> float:
    """Return how long to wait for another writer.

    Raises:
        GalleryError: it is no number of seconds.
    """
    good = isinstance(wait, int | float | np.integer | np.floating) and not isinstance(wait, bool)
    if not good or not finite(wait) or wait < 0:
        raise GalleryError(f"wait is {shown(wait)}; give the seconds to wait for another writer, 0 for not at all.")
    return float(wait)


def require_keys(keys: Any) -> list[str]:
    """Return keys of images, one or several.

    Raises:
        GalleryError: they are no texts.
    """
    if isinstance(keys, str):
        keys = [keys]
    if not is_several(keys):
        raise GalleryError(f"keys is {shown(keys)}; give the keys of images, each a text.")
    listed = list(keys)
    for key in listed:
        if not is_text(key):
            raise GalleryError(f"keys holds {shown(key)}, and a key is a text that UTF-8 can hold; leave it out.")
    return [str(key) for key in listed]
