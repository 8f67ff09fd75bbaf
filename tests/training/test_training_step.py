from __future__ import annotations

from itertools import product

import pytest
import torch

from occluded_reid.training.step import seeded_step

CPU = torch.device("cpu")


def draw(*place: int) -> tuple[float, ...]:
    with seeded_step(*place, CPU):  # type: ignore[misc]
        return tuple(torch.rand(3).tolist())


def test_every_seed_epoch_step_and_process_draws_its_own() -> None:
    places = list(product((0, 1), (1, 2), (0, 1, 2), (0, 1)))
    drawn = {place: draw(*place) for place in places}
    assert len(set(drawn.values())) == len(places)
    assert {place: draw(*place) for place in reversed(places)} == drawn


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw(0, 1, 0, 0)
    with pytest.raises(ZeroDivisionError), seeded_step(0, 1, 0, 0, CPU):
        raise ZeroDivisionError(torch.rand(1))
    assert torch.equal(torch.get_rng_state(), before)
