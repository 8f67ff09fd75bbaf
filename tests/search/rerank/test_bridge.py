"""Bridging against a loop over pairs and bridges, in search, evaluation and gallery."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from occluded_reid import EmbeddedSet, PartEmbeddings, evaluate
from occluded_reid.errors import ShapeError
from occluded_reid.matchers import PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher
from occluded_reid.search import Bridge, InMemoryRows, bridge_topk, exact_topk
from occluded_reid.search.rerank.bridge import BridgedDistances, shared_part

NAMES = ("a", "b", "c", "d")
KINDS = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0], [0.6, 0, 0, 0.3], [0, 0, 0, 0]])
MATCHERS = [
    VisibilityWeightedMatcher(),
    VisibilityWeightedMatcher(metric="euclidean"),
    VisibilityWeightedMatcher(visibility="binary", threshold=0.5, weights={"a": 0.0}),
]


def drawn(count: int, seed: int) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, len(KINDS), (count,), generator=generator)
    return PartEmbeddings(NAMES, tuple(torch.randn(count, 5, generator=generator) for _ in NAMES), KINDS[kinds])


def naive(
    query: PartEmbeddings, gallery: PartEmbeddings, matcher: VisibilityWeightedMatcher, bridge: Bridge
) -> np.ndarray:
    """Every pair by itself, from the equation."""
    used = [s for s, name in enumerate(NAMES) if name in matcher.used(NAMES)]
    v_q, v_g = (matcher.visibility_of(rows)[:, used].double().tolist() for rows in (query, gallery))

    def plain(a: PartEmbeddings, i: int, b: PartEmbeddings, j: int) -> float:
        return float(matcher.pairs(a, b, [i], [j])[0])

    answer = np.empty((len(query), len(gallery)))
    complete = [h for h, row in enumerate(v_g) if sum(row) / len(row) >= bridge.complete]
    for q in range(len(query)):
        near = sorted((plain(query, q, gallery, h), h) for h in complete)
        near = [(d, h) for d, h in near[: bridge.n] if d < NO_SHARED_SLOT]
        for g in range(len(gallery)):
            answer[q, g] = plain(query, q, gallery, g)
            least = min(sum(v_q[q]), sum(v_g[g]))
            shared = sum(x * y for x, y in zip(v_q[q], v_g[g], strict=True)) / least if least else 0.0
            legs = [(d + plain(gallery, h, gallery, g)) / 2 for d, h in near]
            legs = [leg for leg in legs if leg < NO_SHARED_SLOT / 4]
            if shared < bridge.below and legs:
                tau = bridge.temperature
                soft = tau and -tau * math.log(sum(math.exp(-leg / tau) for leg in legs) / len(legs))
                answer[q, g] = round(soft if tau else min(legs), 6)
    return answer


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize(
    "bridge", [Bridge(), Bridge(n=2), Bridge(n=3, below=0.8, temperature=0.1), Bridge(complete=0.4)]
)
def test_it_is_the_loop(matcher: VisibilityWeightedMatcher, bridge: Bridge) -> None:
    query, gallery = drawn(9, 0), drawn(30, 1)
    wanted = naive(query, gallery, matcher, bridge)
    distances = BridgedDistances(query, gallery, matcher, bridge)
    q, g = np.divmod(np.arange(9 * 30), 30)
    np.testing.assert_allclose(distances.score(q, g), wanted.ravel(), atol=2e-6, rtol=0)
    assert (wanted.ravel() != matcher.pairs(query, gallery, q, g)).any()
    every, walked = distances.score(q, g).reshape(9, 30), 0
    for tile in distances.tiles(12, 40):
        exact = every[tile.first : tile.last, tile.start : tile.stop]
        assert np.abs(tile.distance.double().numpy() - exact).max() <= np.max(tile.tolerance)
        assert tile.exact(np.array([0]), np.array([1]))[0] == exact[0, 1]
        walked += exact.size
    assert walked == every.size
    found = bridge_topk(query, InMemoryRows(gallery), matcher, bridge, 7)
    exact = distances.score(q, g).reshape(9, 30)
    for row, positions, values in zip(exact, found.positions, found.distances, strict=True):
        order = np.lexsort((np.arange(30), row))[:7]
        assert positions.tolist() == order.tolist()
        assert values.tolist() == row[order].tolist()


def test_many_tiles_and_what_may_not_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery, matcher = drawn(5, 2), drawn(200, 3), VisibilityWeightedMatcher()
    allowed = np.random.default_rng(0).random((5, 200)) > 0.3
    whole = bridge_topk(query, InMemoryRows(gallery), matcher, Bridge(), 20, allowed=lambda a, b: allowed[:, a:b])
    for name, value in (("_TILE", 7), ("_PAIRS", 11), ("_QUERIES", 2)):
        monkeypatch.setattr(f"occluded_reid.search.rerank.bridge.{name}", value)
    small = bridge_topk(query, InMemoryRows(gallery), matcher, Bridge(), 20, allowed=lambda a, b: allowed[:, a:b])
    for q in range(5):
        assert whole.positions[q].tolist() == small.positions[q].tolist()
        assert whole.distances[q].tolist() == small.distances[q].tolist()
        assert allowed[q, whole.positions[q]].all()


def test_no_query_knows_of_another_one() -> None:
    query, gallery, matcher = drawn(6, 4), drawn(60, 5), VisibilityWeightedMatcher()
    together = bridge_topk(query, InMemoryRows(gallery), matcher, Bridge(), 60)
    for q in range(6):
        alone = bridge_topk(query[q : q + 1], InMemoryRows(gallery), matcher, Bridge(), 60)
        assert alone.positions[0].tolist() == together.positions[q].tolist()
        assert alone.distances[0].tolist() == together.distances[q].tolist()


def test_without_complete_images_nothing_changes() -> None:
    query, matcher = drawn(4, 6), VisibilityWeightedMatcher()
    gallery = drawn(40, 7)
    halves = gallery[(gallery.visibility.mean(1) < 0.9).nonzero().flatten()]
    found, plain = (
        bridge_topk(query, InMemoryRows(halves), matcher, Bridge(), 9),
        exact_topk(query, InMemoryRows(halves), matcher, 9),
    )
    assert [p.tolist() for p in found.positions] == [p.tolist() for p in plain.positions]


def people(count: int = 12) -> tuple[EmbeddedSet, EmbeddedSet]:
    """Upper bodies look for lower bodies; of everybody the gallery has a complete image too."""
    generator = torch.Generator().manual_seed(8)
    body = [torch.randn(count, 16, generator=generator) for _ in NAMES]

    def seen(visible: list[float]) -> PartEmbeddings:
        noisy = [rows + 0.2 * torch.randn(count, 16, generator=generator) for rows in body]
        return PartEmbeddings(NAMES, tuple(noisy), torch.tensor([visible]).float().repeat(count, 1))

    gallery = PartEmbeddings.cat([seen([0, 0, 1, 1]), seen([1, 1, 1, 1])])
    identity = np.arange(count)
    # The complete images have labels of their own: what is counted is whether the lower bodies are found.
    labels = np.concatenate([identity, identity + 100])
    query = EmbeddedSet(seen([1, 1, 0, 0]), identity=identity, camera=np.zeros(count, int))
    return query, EmbeddedSet(gallery, identity=labels, camera=np.ones(2 * count, int))


def test_evaluation_finds_lower_bodies_by_upper_ones() -> None:
    query, gallery = people()
    matcher: Matcher = VisibilityWeightedMatcher()
    plain, bridged = evaluate(query, gallery, matcher), evaluate(query, gallery, matcher, rerank=Bridge())
    assert plain.mAP < 0.15
    assert bridged.mAP > 0.4  # the person's own complete image comes before the lower body: rank 2 at best
    assert bridged.card.reranking == "bridge (n=1, below=0.5, complete=0.9, temperature=0.0), each query alone"
    assert plain.card.pairs_without_shared_slot > 0
    assert bridged.card.pairs_without_shared_slot == 0
    few = evaluate(query, gallery, matcher, rerank=Bridge(n=10))
    assert few.mAP > 0.4


def test_shared_part_of_nothing_is_nothing() -> None:
    nothing, all_of_it = torch.zeros(1, 3).double(), torch.ones(1, 3).double()
    assert float(shared_part(nothing, all_of_it)) == 0.0


def test_a_matcher_that_ignores_visibility_is_served() -> None:
    query, gallery = drawn(4, 9), drawn(20, 10)
    found = bridge_topk(query, InMemoryRows(gallery), PlainMatcher(), Bridge(), 5)
    assert all(len(p) == 5 for p in found.positions)


@pytest.mark.parametrize("options", [{"n": 0}, {"below": 0.0}, {"complete": 1.5}, {"temperature": -1.0}, {"n": "3"}])
def test_what_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ShapeError):
        Bridge(**options)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="k is 0"):
        bridge_topk(drawn(1, 0), InMemoryRows(drawn(2, 0)), PlainMatcher(), Bridge(), 0)
