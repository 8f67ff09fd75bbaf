"""Horizontal bands of a map: one rule for stripes, SPC and visibility."""

from __future__ import annotations

from itertools import pairwise

from occluded_reid.errors import ShapeError

__all__ = ["bands"]


def bands(height: int, num_bands: int) -> list[tuple[int, int]]:
    """Cut rows into bands that never overlap: band n is rows ⌊n·h/N + ½⌋ … ⌊(n+1)·h/N + ½⌋ - 1.

    Args:
        height: h rows.
        num_bands: N, at most h.

    Returns:
        N pairs (start, stop).

    Raises:
        ShapeError: N is not between 1 and h.

    Example:
        >>> bands(12, 3)
        [(0, 4), (4, 8), (8, 12)]
        >>> bands(7, 3)
        [(0, 2), (2, 5), (5, 7)]
    """
    if not 1 <= num_bands <= height:
        raise ShapeError(f"{height} rows cannot be cut into {num_bands} bands; give between 1 and {height} bands.")
    edges = [(2 * n * height + num_bands) // (2 * num_bands) for n in range(num_bands + 1)]
    return list(pairwise(edges))
