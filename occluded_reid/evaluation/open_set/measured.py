"""A number with its interval, and how open-set numbers are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from occluded_reid._version import __version__
from occluded_reid.evaluation.bootstrap import Interval

__all__ = ["Measured", "common_facts", "rate_text"]


@dataclass(frozen=True)
class Measured:
    """A number and its interval."""

    value: float
    interval: Interval

    def __str__(self) -> str:
        return f"{self.value:.2%} [{self.interval.low:.2%}, {self.interval.high:.2%}]"

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON knows them."""
        return {"value": self.value, "interval": [self.interval.low, self.interval.high]}


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
