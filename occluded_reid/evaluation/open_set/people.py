"""Bootstrap over people: images of one person are alike, so whole people are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.intervals import Interval, interval_of

__all__ = ["PeopleResampling"]

_CHUNK_VALUES = 1 << 20


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
