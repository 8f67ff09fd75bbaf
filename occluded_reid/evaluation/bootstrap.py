"""How sure the numbers are: percentile bootstrap over queries, or over people, whose images are alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from occluded_reid.errors import EvaluationError

__all__ = ["FEW", "Comparison", "Difference", "Interval", "PeopleResampling", "bootstrap_means", "interval_of"]

FEW = 10
"""Resampling fewer queries says little: of one alone the interval has no width at all."""

_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class Interval:
    """Bounds of a percentile interval."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"[{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True)
class Difference:
    """One number of two reports: the first minus the second, and the interval of that difference."""

    value: float
    interval: Interval

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval.low > 0 or self.interval.high < 0

    def __str__(self) -> str:
        return f"{self.value * 100:+.1f} points [{self.interval.low * 100:+.1f}, {self.interval.high * 100:+.1f}]"


@dataclass(frozen=True)
class Comparison:
    """Paired differences of two reports over the same queries, by the name of the number."""

    differences: Mapping[str, Difference]
    queries: int
    confidence: float

    def __getitem__(self, name: str) -> Difference:
        return self.differences[name]

    def sentence(self, first: str, second: str, metric: str = "mAP") -> str:
        """Say one difference in words: "A is ahead of B by 1.2 points of mAP [0.3, 2.1]".

        Args:
            first: name of the report that was compared.
            second: name of the one that was subtracted.
            metric: which number.
        """
        difference = self.differences[metric]
        low, high = difference.interval.low * 100, difference.interval.high * 100
        size = difference.value * 100
        if size < 0:
            size, low, high = -size, -high, -low
        if not (size or low or high):
            return f"{first} and {second} are the same in {metric}, query by query"
        verb = "is ahead of" if difference.value >= 0 else "is behind"
        unclear = "" if difference.clear else "; the interval holds 0, so neither is shown to be better"
        return f"{first} {verb} {second} by {size:.1f} points of {metric} [{low:.1f}, {high:.1f}]{unclear}"

    def __str__(self) -> str:
        lines = [f"{name}: {difference}" for name, difference in self.differences.items()]
        return "\n".join([*lines, f"({self.confidence:.0%} intervals, paired over {self.queries} queries)"])


def bootstrap_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return the means of resampled rows, drawn with replacement.

    Args:
        values: (n, K), one row for each query; all K columns see the same draws, so that they stay paired.
        resamples: B.
        seed: of the draws.

    Returns:
        (B, K).
    """
    generator = np.random.default_rng(seed)
    count = len(values)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _CHUNK_VALUES // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = generator.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(draws.ravel(), minlength=size * count).reshape(size, count)
        # Not a matrix product: with many queries its last digits differ with the number of threads.
        means[start : start + size] = np.einsum("bn,nk->bk", times.astype(np.float64), values) / count
    return means


def interval_of(means: np.ndarray, confidence: float) -> Interval:
    """Return the percentile interval of bootstrapped means (B,)."""
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class PeopleResampling:
    """How intervals come about: people are drawn with replacement, and each brings all that is theirs.

    Args:
        resamples: draws, at least 1.
        confidence: of the intervals.
        seed: of the draws.

    Raises:
        EvaluationError: a value makes no sense.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.confidence < 1:
            raise EvaluationError(
                f"there are {self.resamples} resamples and confidence is {self.confidence}; wanted at least 1, and a "
                "number between 0 and 1."
            )

    def weights(self, person: np.ndarray) -> Iterator[np.ndarray]:
        """Yield (b, n) how often each of n things comes in b draws of the people they belong to, a few draws at a time.

        Args:
            person: (n,) numbers of people.
        """
        people, owner = np.unique(person, return_inverse=True)
        generator = np.random.default_rng(self.seed)
        step = max(1, _CHUNK_VALUES // max(1, len(person)))
        for start in range(0, self.resamples, step):
            size = min(step, self.resamples - start)
            yield generator.multinomial(len(people), np.full(len(people), 1 / len(people)), size)[:, owner]

    def interval(self, values: np.ndarray) -> Interval:
        """Return the percentile interval of (b,) resampled values; a NaN says that a draw had nothing to measure."""
        known = values[~np.isnan(values)]
        # Where no draw met anything to measure, nothing is known of a share.
        return interval_of(known, self.confidence) if len(known) else Interval(0.0, 1.0)

    def __str__(self) -> str:
        return f"{self.confidence:.0%}, {self.resamples} resamples of the people asked for, seed {self.seed}"
