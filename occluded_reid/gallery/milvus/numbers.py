"""Numbers of rows: 37 bits of time, 13 of the program that writes, 13 of the row within its commit.

They grow with time, so that they are the order of the gallery. Two programs could give the same one only if they drew
the same of 8,192 numbers and committed in the same 64th of a second.
"""

from __future__ import annotations

__all__ = ["COMMIT_ROWS", "WRITERS", "first_number", "tick_at"]

COMMIT_ROWS = 1 << 13
"""Rows of one commit."""
WRITERS = 1 << 13
"""Programs that are told apart; each draws a number of its own."""

_EPOCH = 1_577_836_800  # 2020 began
_TICKS = 64  # a second; 37 bits last until 2088


def tick_at(seconds: float) -> int:
    """Return the tick of a time, given as `time.time` does."""
    return int((seconds - _EPOCH) * _TICKS)


def first_number(tick: int, writer: int = 0) -> int:
    """Return the number of the first row of a commit."""
    return (tick * WRITERS + writer) * COMMIT_ROWS
