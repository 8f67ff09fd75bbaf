"""Labels that are numbers: who is shown, and which camera took the image."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from occluded_reid.arguments import shown
from occluded_reid.errors import OccludedReIDError

__all__ = ["whole_numbers"]

_INT64 = 1 << 63


def whole_numbers(name: str, values: Any, error: type[OccludedReIDError]) -> np.ndarray:
    """Return labels as int64, whatever holds them; whole numbers that are written as floats (``1.0``) count.

    Args:
        name: of the labels, for the message.
        values: any shape.
        error: raised for what is no whole number of 64 bits: a text, None, NaN, 1.5, True, 10**30.

    Example:
        >>> whole_numbers("identity", [3, 4.0], OccludedReIDError)
        array([3, 4])
    """
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as cause:  # lists of different lengths, tensors on other devices
        raise error(f"{name} is {shown(values)}; give a list or an array of whole numbers.") from cause
    if found.dtype.kind in "iu" and (found.dtype.kind == "i" or not found.size or int(found.max()) < _INT64):
        return found.astype(np.int64)
    flat = found.ravel().tolist()  # Python's own values
    for place, value in enumerate(flat):
        if not _is_whole(value):
            raise error(
                f"{name} holds {shown(value)} (number {place}, counted from 0); give whole numbers of 64 bits. "
                "Of names they are made by np.unique(names, return_inverse=True)[1], queries and gallery together."
            )
    return np.array([int(value) for value in flat], dtype=np.int64).reshape(found.shape)


def _is_whole(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer() and abs(value) < _INT64
    return isinstance(value, Integral) and not isinstance(value, bool) and -_INT64 <= int(value) < _INT64
