"""What a calibration knows of pairs by the number of slots that they share, and looking it up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from occluded_reid.arguments import shown
from occluded_reid.errors import CalibrationError
from occluded_reid.numbered import whole_numbers

__all__ = ["SharedGroup", "by_shared", "checked_distances"]


class SharedGroup(BaseModel):
    """What was learnt of pairs that share one number of slots.

    Attributes:
        shared: how many slots such a pair shares.
        impostors: comparisons of two people, so many slots shared, that were seen.
        matches: comparisons of one person, likewise.
        threshold_from: numbers of shared slots whose impostors gave the threshold: few pairs join their neighbours.
        threshold: a hit counts up to this distance.
        matches_kept: share of the matches within it, None where there are none.
        probability_from: numbers of shared slots whose pairs gave the probability.
        intercept: log-odds of a match at distance 0, matches and impostors equally likely beforehand.
        slope: change of the log-odds with the distance, at most 0.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    shared: int = Field(ge=1)
    impostors: int = Field(ge=0)
    matches: int = Field(ge=0)
    threshold_from: list[int]
    threshold: float
    matches_kept: float | None = Field(ge=0, le=1)
    probability_from: list[int]
    intercept: float
    slope: float = Field(le=0)


def by_shared(shared: Sequence[int] | np.ndarray, values: Sequence[float], nothing: float) -> np.ndarray:
    """Return for each number of shared slots its value.

    Args:
        shared: numbers of shared slots, any shape.
        values: for 1, 2, … shared slots.
        nothing: for pairs that share none.

    Raises:
        CalibrationError: a number is not whole, negative, or larger than there are values.

    Example:
        >>> by_shared([2, 0, 1], [0.3, 0.5], -np.inf)
        array([ 0.5, -inf,  0.3])
    """
    numbers = whole_numbers("shared", shared, CalibrationError)
    if numbers.size and numbers.min() < 0:
        raise CalibrationError(
            f"numbers of shared slots are not negative; got {numbers.min()}. Count them with shared_slots()."
        )
    if numbers.size and numbers.max() > len(values):
        raise CalibrationError(
            f"a pair is said to share {numbers.max()} slots; the calibration knows pairs that share up to "
            f"{len(values)}. Calibrate the matcher and the slots that are in use."
        )
    return np.asarray(np.array([nothing, *values])[numbers])


def checked_distances(distance: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return distances as float64.

    Raises:
        CalibrationError: one of them is no number, or NaN.
    """
    try:
        values = np.asarray(distance, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise CalibrationError(f"distance is {shown(distance)}; give numbers, as a matcher gives them.") from cause
    if np.isnan(values).any():
        raise CalibrationError("a distance is NaN; distances of a matcher never are. Look at where it comes from.")
    return values
