"""What the numbers of an occlusion sweep stand on beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

__all__ = ["SweepSettings"]


@dataclass(frozen=True)
class SweepSettings:
    """What the numbers of a sweep stand on beside the model; sweeps are compared only where all of it is equal.

    Attributes:
        dataset: name of the data.
        split: which part of it.
        queries: images asked for.
        gallery: images searched.
        data_sha256: of names, identities, cameras, images and masks of both.
        kinds: (name, what occludes and from where) of each kind of occlusion.
        severities: shares of the body mask, rising from 0.
        seeds: of the occlusions.
        rules: of the protocol, those that decide numbers.
        version: of this library.
        bootstrap: resamples of the queries behind the intervals; 0 leaves the intervals out. Not compared.
        confidence: of the intervals. Not compared.
    """

    dataset: str
    split: str
    queries: int
    gallery: int
    data_sha256: str
    kinds: tuple[tuple[str, str], ...]
    severities: tuple[float, ...]
    seeds: tuple[int, ...]
    rules: Mapping[str, Any]
    version: str
    bootstrap: int = field(default=1000, compare=False)
    confidence: float = field(default=0.95, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the kinds."""
        return tuple(name for name, _ in self.kinds)

    def differing(self, other: SweepSettings) -> list[str]:
        """Return what differs, as "name: here and there"; of the kinds only those that the other side lacks."""
        found = []
        for name in (f.name for f in fields(self) if f.compare):
            here, there = getattr(self, name), getattr(other, name)
            if here != there and name == "kinds" and set(here) != set(there):
                mine, yours = (
                    ", ".join(f"{kind} ({words})" for kind, words in side if (kind, words) not in beside) or "no more"
                    for side, beside in ((here, there), (there, here))
                )
                found.append(f"kinds: {mine} and {yours}")
            elif here != there:
                found.append(f"{name}: {here} and {there}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            **plain,
            "kinds": dict(self.kinds),
            "severities": list(self.severities),
            "seeds": list(self.seeds),
            "rules": dict(self.rules),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild settings from `to_dict`."""
        return cls(
            **{
                **content,
                "kinds": tuple((str(name), str(words)) for name, words in content["kinds"].items()),
                "severities": tuple(float(s) for s in content["severities"]),
                "seeds": tuple(int(s) for s in content["seeds"]),
            }
        )
