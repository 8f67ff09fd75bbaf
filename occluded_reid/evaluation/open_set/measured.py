"""A number with its interval, and how open-set numbers are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from occluded_reid._version import __version__
from occluded_reid.evaluation.bootstrap import Interval

__all__ = ["Measured", "common_facts", "numbers_of", "rate_text"]


@dataclass(frozen=True, eq=False)
class Measured:
    """A number and its interval; a share also knows how many of how many it is.

    Images of one person are alike, so the intervals of shares are made by drawing people, not pairs or searches.

    Attributes:
        value: the number; NaN where there was nothing to count.
        interval: its bootstrap interval.
        count: how many, of a share.
        total: of how many.
    """

    value: float
    interval: Interval
    count: int | None = None
    total: int | None = None

    @classmethod
    def share(cls, count: int, total: int, interval: Interval) -> Measured:
        """Return a count of a total as a share; NaN where the total is 0."""
        return cls(count / total if total else float("nan"), interval, count, total)

    def __eq__(self, other: object) -> bool:
        # Shares of nothing are alike, although NaN is no equal of itself.
        return isinstance(other, Measured) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.interval, self.count, self.total))

    def __str__(self) -> str:
        if self.total == 0:
            return "none"
        counted = "" if self.total is None else f" ({self.count} of {self.total})"
        return f"{self.value:.2%} [{self.interval.low:.2%}, {self.interval.high:.2%}]{counted}"

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON knows them; None for NaN."""
        known = self.total != 0
        return {
            **({} if self.total is None else {"count": self.count, "total": self.total}),
            "value": self.value if known else None,
            "interval": [self.interval.low, self.interval.high] if known else None,
        }


def numbers_of(measured: Measured | None) -> dict[str, float | int | None]:
    """Return value, bounds and counts side by side, as tables of numbers hold them; None where there is nothing."""
    if measured is None or measured.total == 0:
        return {"value": None, "low": None, "high": None, "count": None, "total": measured.total if measured else None}
    bounds = {"low": measured.interval.low, "high": measured.interval.high}
    return {"value": measured.value, **bounds, "count": measured.count, "total": measured.total}


def rate_text(rate: float) -> str:
    """Write a rate in per cent, short.

    Example:
        >>> rate_text(0.001), rate_text(1e-6), rate_text(0.1)
        ('0.1 %', '0.0001 %', '10 %')
    """
    return f"{100 * rate:.10f}".rstrip("0").rstrip(".") + " %"


def common_facts(
    data: str, counted: Mapping[str, Any], matcher: Mapping[str, Any], slots: Mapping[str, int], fingerprint: str
) -> dict[str, str]:
    """Return what every open-set number stands on, in words.

    Args:
        data: name of the data.
        counted: queries, query_people, gallery, gallery_people, exclude_same_camera and excluded_pairs.
        matcher: type and options.
        slots: slot -> width.
        fingerprint: of the model, or empty.
    """
    options = ", ".join(f"{name}={value}" for name, value in matcher.get("options", {}).items() if value != {})
    camera = "dropped" if counted["exclude_same_camera"] else "kept"
    return {
        "data": data or "unnamed",
        "queries": f"{counted['queries']} images of {counted['query_people']} people",
        "gallery": f"{counted['gallery']} images of {counted['gallery_people']} people",
        "same identity, same camera": f"{camera} ({counted['excluded_pairs']} pairs excluded)",
        "matcher": f"{matcher.get('type', '?')}({options})",
        "slots": ", ".join(f"{name} {width}" for name, width in slots.items()),
        "made by": f"occluded_reid {__version__}" + (f", model {fingerprint}" if fingerprint else ""),
    }
