"""The walk over tiles against a naive loop, and the device that it takes."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import DeviceError, EmbeddingError, ShapeError
from occluded_reid.evaluation import Protocol, evaluate
from occluded_reid.evaluation.ranking.matches import rank_matches
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows, KReciprocal, tiles
from occluded_reid.search.tiles import Tiles

MATCHER = VisibilityWeightedMatcher(visibility="binary")


def drawn(count: int, seed: int) -> PartEmbeddings:
    random = torch.Generator().manual_seed(seed)
    slots = tuple(torch.randn(count, 4, generator=random) for _ in range(3))
    return PartEmbeddings(("a", "b", "c"), slots, (torch.rand(count, 3, generator=random) > 0.5).float())


def labelled(count: int, seed: int) -> EmbeddedSet:
    numbers = np.arange(count)
    return EmbeddedSet(drawn(count, seed), numbers % 5, np.full(count, seed))


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("queries", [None, np.array([1, 4, 8])])
def test_tiles_give_every_pair_once_and_decide_it_exactly(monkeypatch, stored, queries) -> None:
    monkeypatch.setattr(tiles, "_RESCORED_PAIRS", 5)
    query, gallery = drawn(9, 0), drawn(23, 1)
    asked = np.arange(9) if queries is None else queries
    i, j = np.divmod(np.arange(9 * 23), 23)
    exact = MATCHER.scorer(query, gallery)(i, j).reshape(9, 23)
    both = ((query.visibility > 0)[:, None] & (gallery.visibility > 0)[None]).sum(2)
    seen = np.zeros((9, 23), dtype=int)
    for tile in Tiles(query, InMemoryRows(gallery) if stored else gallery, MATCHER).tiles(7, 20, queries=queries):
        rows, columns = asked[tile.first : tile.last], np.arange(tile.start, tile.stop)
        seen[np.ix_(rows, columns)] += 1
        assert np.abs(tile.distance.numpy() - exact[np.ix_(rows, columns)]).max() <= tile.tolerance
        assert torch.equal(tile.shared(), both[torch.from_numpy(rows)][:, tile.start : tile.stop])
        q, g = np.divmod(np.arange(tile.distance.numel()), len(columns))
        assert tile.exact(q, g).tolist() == exact[rows[q], columns[g]].tolist()
    assert (seen[asked] == 1).all()
    assert seen.sum() == len(asked) * 23


def test_tiles_before_a_position_are_left_out() -> None:
    rows = drawn(20, 0)
    assert [tile.start for tile in Tiles(rows, rows, MATCHER).tiles(6, since=12)] == [12, 18]


def test_only_rows_that_are_all_there_are_decided_outside_of_a_tile() -> None:
    rows = drawn(3, 0)
    assert Tiles(rows, rows, MATCHER).score([0], [0]).shape == (1,)
    with pytest.raises(ShapeError, match="decided tile by tile"):
        Tiles(rows, InMemoryRows(rows), MATCHER).score([0], [0])
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        Tiles(rows, rows.select(["a"]), MATCHER)


@pytest.mark.parametrize("rerank", [None, KReciprocal(k1=3, k2=2)])
def test_an_evaluation_goes_to_the_device_it_is_given(monkeypatch, caplog, rerank) -> None:
    chosen = []

    def choose(device):
        chosen.append(str(device))
        return real(device)

    real = tiles.choose_device
    monkeypatch.setattr(tiles, "choose_device", choose)
    query, gallery = labelled(10, 0), labelled(30, 1)
    protocol = Protocol(bootstrap=10)
    plain = evaluate(query, gallery, MATCHER, protocol, rerank=rerank)
    assert chosen, "every walk asks"
    assert set(chosen) == {"cpu"}, "where the queries are"
    chosen.clear()
    with caplog.at_level(logging.INFO, "occluded_reid"):
        assert evaluate(query, gallery, MATCHER, protocol, rerank=rerank, device="auto").to_dict() == plain.to_dict()
    assert chosen[0] == "auto"
    assert sum("Device 'auto' is" in record.message for record in caplog.records) == 1, "and says once what it chose"


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:99", 1.5])
@pytest.mark.parametrize("rerank", [None, KReciprocal(k1=3, k2=2)])
def test_a_device_that_is_not_there(device, rerank) -> None:
    query, gallery = labelled(10, 0), labelled(30, 1)
    with pytest.raises(DeviceError, match="device is "):
        evaluate(query, gallery, MATCHER, rerank=rerank, device=device)
    with pytest.raises(DeviceError, match="device is "):
        rank_matches(query, gallery, MATCHER, rerank=rerank, device=device)
