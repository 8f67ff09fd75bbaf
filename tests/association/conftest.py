"""Drawn tracks of drawn people, and a calibration of others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from occluded_reid.association import Tracks, calibrate_joins
from occluded_reid.association.calibrate import JoinCalibration
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers import VisibilityWeightedMatcher

Draw = Callable[..., tuple[Tracks, np.ndarray]]


def draw(people: int, seed: int, noise: float = 1.0, each: int = 4, width: int = 8) -> tuple[Tracks, np.ndarray]:
    """Tracks of people in three cameras; a third of them hide a slot, and times never overlap."""
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), each)
    count = len(person)
    slots = []
    for _ in range(2):
        centers = generator.standard_normal((people, width))
        slots.append(torch.from_numpy(centers[person] + noise * generator.standard_normal((count, width))).float())
    visibility = torch.from_numpy(generator.uniform(0.3, 1, (count, 2))).float()
    visibility[generator.random(count) < 1 / 3, 1] = 0.0
    names = tuple(f"t{n:03d}" for n in generator.permutation(count))
    start = 10.0 * generator.permutation(count)
    rows = PartEmbeddings(("global", "part_1"), tuple(slots), visibility)
    return Tracks(rows, names, tuple(int(c) for c in generator.integers(0, 3, count)), start, start + 5), person


@pytest.fixture(scope="session")
def drawn() -> Draw:
    return draw


@pytest.fixture(scope="session")
def matcher() -> VisibilityWeightedMatcher:
    return VisibilityWeightedMatcher()


@pytest.fixture(scope="session")
def learnt(matcher: VisibilityWeightedMatcher) -> JoinCalibration:
    tracks, person = draw(40, seed=99, noise=0.5)
    return calibrate_joins(tracks, person, matcher)
