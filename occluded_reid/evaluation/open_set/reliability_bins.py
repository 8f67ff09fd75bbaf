"""Bins of a reliability diagram and the scores beside it, from probabilities and what turned out to be true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.pair_counts import GRID, PairCounts

__all__ = ["ReliabilityBin", "ReliabilityGroup", "Said", "reliability_group", "said_of"]

_SMALLEST = 1e-15
"""Probabilities nearer to 0 or 1 are moved here for the logarithmic loss, which would be infinite."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of which about the same probability was said.

    Attributes:
        low: probabilities from here …
        high: … up to here, itself included in the last bin only.
        mass: share of all pairs, as they weigh.
        predicted: mean probability of a match that was said.
        observed: share that does match.
        matches: comparisons of one person behind it.
        impostors: comparisons of two people.
    """

    low: float
    high: float
    mass: float
    predicted: float
    observed: float
    matches: int
    impostors: int

    def to_dict(self) -> dict[str, float]:
        """Return the bin as JSON knows it."""
        return dict(vars(self))


@dataclass(frozen=True)
class ReliabilityGroup:
    """How far the probabilities of some pairs can be believed; NaN where matches or impostors are missing.

    Attributes:
        shared: how many slots these pairs share; None: any number from 1.
        matches: comparisons of one person.
        impostors: comparisons of two people.
        calibration_error: expected calibration error: mean of |observed - predicted| over bins by their mass.
        brier: Brier score: mean squared difference of the probability from 1 for a match and 0 for an impostor.
        log_loss: mean negative logarithm of the probability of what is true.
        bins: those that hold any pair.
    """

    shared: int | None
    matches: int
    impostors: int
    calibration_error: float
    brier: float
    log_loss: float
    bins: tuple[ReliabilityBin, ...]

    @property
    def name(self) -> str:
        """Which pairs these are."""
        if self.shared is None:
            return "all pairs that share a slot"
        return f"{self.shared} shared slot{'s' if self.shared > 1 else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Return the group as JSON knows it; None for NaN."""
        numbers = {"calibration_error": self.calibration_error, "brier": self.brier, "log_loss": self.log_loss}
        return {
            "shared": self.shared,
            "matches": self.matches,
            "impostors": self.impostors,
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
            "bins": [each.to_dict() for each in self.bins],
        }


@dataclass(frozen=True)
class Said:
    """Probabilities said of n kinds of pairs: how many slots they share, matches and impostors, all (n,)."""

    probability: np.ndarray
    shared: np.ndarray
    matches: np.ndarray
    impostors: np.ndarray
    resolution: float

    def of(self, shared: int) -> Said:
        """Those that share so many slots."""
        mine = self.shared == shared
        return Said(self.probability[mine], self.shared[mine], self.matches[mine], self.impostors[mine], 0.0)


def said_of(counts: PairCounts, calibration: Calibration, prior: float) -> Said:
    """Return what a calibration says of all matches, and of all impostors at the middle of their segment.

    Args:
        counts: all comparisons.
        calibration: gives the probabilities.
        prior: probability of a match beforehand.
    """
    middle = (counts.low + counts.high) / 2
    # The last cell is endless; what lies there enters at its near end.
    middle = np.where(counts.high >= counts.low + (1 << 40), counts.low, middle)
    some = counts.match_shared > 0

    def probability(steps: np.ndarray, shared: np.ndarray) -> np.ndarray:
        return calibration.probability(steps / GRID, shared, prior=prior)

    far = probability(middle, counts.shared)
    edges = [probability(steps, counts.shared) for steps in (counts.low, counts.high)]
    off = max((float(np.abs(edge - far).max()) for edge in edges if len(edge)), default=0.0)
    near = probability(counts.match_distance[some], counts.match_shared[some])
    nothing = np.zeros(len(far), dtype=np.int64)
    return Said(
        np.concatenate([near, far]),
        np.concatenate([counts.match_shared[some], counts.shared]),
        np.concatenate([np.ones(len(near), dtype=np.int64), nothing]),
        np.concatenate([np.zeros(len(near), dtype=np.int64), counts.count]),
        off,
    )


def reliability_group(
    said: Said, shared: int | None, prior: float, bins: int, binning: Literal["width", "count"]
) -> ReliabilityGroup:
    """Return how far some probabilities can be believed, matches and impostors weighing as the prior says.

    Args:
        said: the probabilities, and of how many matches and impostors each was said.
        shared: how many slots these pairs share, or None.
        prior: weight of all matches together.
        bins: of the diagram.
        binning: equal steps of probability, or about equal mass.
    """
    matches, impostors = int(said.matches.sum()), int(said.impostors.sum())
    if not matches or not impostors:
        return ReliabilityGroup(shared, matches, impostors, math.nan, math.nan, math.nan, ())
    near, far = said.matches * (prior / matches), said.impostors * ((1 - prior) / impostors)
    p = said.probability
    kept = np.clip(p, _SMALLEST, 1 - _SMALLEST)
    edges = _edges(p, near + far, bins, binning)
    place = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, len(edges) - 2)
    made = []
    for number in range(len(edges) - 1):
        mine = place == number
        mass = float((near[mine] + far[mine]).sum())
        if mass:
            made.append(
                ReliabilityBin(
                    float(edges[number]),
                    float(edges[number + 1]),
                    mass,
                    float((p[mine] * (near[mine] + far[mine])).sum() / mass),
                    float(near[mine].sum() / mass),
                    int(said.matches[mine].sum()),
                    int(said.impostors[mine].sum()),
                )
            )
    return ReliabilityGroup(
        shared,
        matches,
        impostors,
        float(sum(each.mass * abs(each.observed - each.predicted) for each in made)),
        float((near * (1 - p) ** 2 + far * p**2).sum()),
        float(-(near * np.log(kept) + far * np.log1p(-kept)).sum()),
        tuple(made),
    )


def _edges(p: np.ndarray, weight: np.ndarray, bins: int, binning: Literal["width", "count"]) -> np.ndarray:
    """Ends of the bins, ascending: of equal steps, or at the probabilities that part the mass equally."""
    if binning == "width":
        return np.linspace(0, 1, bins + 1)
    order = np.argsort(p, kind="stable")
    running = np.cumsum(weight[order])
    inner = p[order][np.searchsorted(running, running[-1] * np.arange(1, bins) / bins)]
    return np.unique(np.concatenate([[0.0], inner, [1.0]]))
