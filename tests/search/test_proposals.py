"""Proposals against a sort of everything."""

import numpy as np
import pytest
import torch

from occluded_reid.search.proposals import Proposals

CPU = torch.device("cpu")


def listed(nearest: Proposals, line: int) -> list[tuple[float, int]]:
    pairs = zip(nearest.distance[line].tolist(), nearest.position[line].tolist(), strict=True)
    return sorted(pair for pair in pairs if np.isfinite(pair[0]))


@pytest.mark.parametrize("order", ["random", "nearest first", "nearest last"])
@pytest.mark.parametrize("tile", [1, 3, 50, 400])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_it_keeps_what_a_full_sort_puts_first(order, tile, size) -> None:
    distance = torch.rand(9, 400, generator=torch.Generator().manual_seed(tile * size))
    if order != "random":
        distance = distance.sort(1, descending=order == "nearest last").values
    nearest = Proposals(9, size, CPU)
    for start in range(0, 400, tile):
        for first in (0, 5):
            block = distance[first : 5 if first == 0 else 9, start : start + tile]
            nearest.update(first, block, start)
    for line in range(9):
        everything = sorted((value, position) for position, value in enumerate(distance[line].tolist()))
        assert listed(nearest, line) == everything[:size]


def test_what_is_infinitely_far_is_not_listed() -> None:
    distance = torch.full((3, 20), torch.inf)
    distance[1, 4] = 0.5
    distance[2] = torch.arange(20.0)
    nearest = Proposals(3, 5, CPU)
    nearest.update(0, distance[:, :10], 0)
    nearest.update(0, distance[:, 10:], 10)
    assert [listed(nearest, line) for line in range(3)] == [[], [(0.5, 4)], [(float(i), i) for i in range(5)]]


def test_a_single_line_may_change_much_while_the_others_rest() -> None:
    nearest = Proposals(8, 3, CPU)
    nearest.update(0, torch.arange(80.0).reshape(8, 10).remainder(10), 0)
    later = torch.full((8, 10), 50.0)
    later[6] = -torch.arange(10.0)
    nearest.update(0, later, 10)
    assert listed(nearest, 6) == [(-9.0, 19), (-8.0, 18), (-7.0, 17)]
    assert listed(nearest, 5) == [(0.0, 0), (1.0, 1), (2.0, 2)]


def test_equal_distances_fill_the_list_once() -> None:
    nearest = Proposals(1, 4, CPU)
    for start in range(0, 30, 10):
        nearest.update(0, torch.ones(1, 10), start)
    assert nearest.distance.tolist() == [[1.0] * 4]
    assert len(set(nearest.position[0].tolist())) == 4
