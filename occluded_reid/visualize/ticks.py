"""Where the ticks of an axis stand and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["log_ticks", "plain_text", "round_ticks", "span", "tick_text"]


def span(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest value, held apart where they are equal or where there are none.

    Example:
        >>> span([3.0, 1.0]), span([])
        ((1.0, 3.0), (0.0, 1.0))
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low > 1e-12 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def round_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return round numbers in steps of 1, 2 or 5 · 10^n that enclose [low, high], about as many as wanted.

    Example:
        >>> round_ticks(0.13, 0.88, 4)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) if step > 1e-9 else n * step for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 · 10^n within [low, high], or only powers of ten where the range is wide.

    Example:
        >>> log_ticks(0.4, 30.0)
        [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if high / low <= 100 else (1,)
    every = max(1, (last - first) // 6)
    # From text, so that 5e-05 is that number and not five times a rounded 1e-05.
    ticks = [float(f"{step}e{power}") for power in range(first, last + 1, every) for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def tick_text(value: float, among: Sequence[float]) -> str:
    """Write a tick with as many decimals as its neighbours on an even axis need to differ.

    Example:
        >>> tick_text(0.5, [0.0, 0.25, 0.5])
        '0.50'
    """
    largest = max((abs(v) for v in among), default=1.0)
    if largest and not 1e-3 <= largest < 1e6:
        return plain_text(value)
    for decimals in range(7):
        if all(abs(round(v, decimals) - v) <= 1e-6 * largest for v in among):
            return f"{value:.{decimals}f}"
    return plain_text(value)


def plain_text(value: float) -> str:
    """Write a number by itself, short: what a logarithmic axis needs.

    Example:
        >>> plain_text(100.0), plain_text(0.00003)
        ('100', '3e-5')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
