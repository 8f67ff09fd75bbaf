"""The tiled search gives the ids of the full float64 matrix, in its order, whatever matcher, k, type, tile or thread.

The matrix is written from the formula, pair by pair in plain Python, and shares nothing with the code under test.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid import MATCHERS
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.search import InMemoryRows, exact, exact_topk, tiles

NAMES, WIDTHS = ("global", "head", "feet"), (5, 3, 4)
WITHOUT = 2.0**100
"""Where a pair without a common slot stands: behind all others."""

WEIGHTS = st.sampled_from([None, {"head": 0.5}, {"global": 3.0, "feet": 0.0}])
METRIC = st.sampled_from(["cosine", "euclidean"])
OPTIONS = {
    "plain": st.fixed_dictionaries({"metric": METRIC, "normalize": st.booleans(), "weights": WEIGHTS}),
    "visibility_weighted": st.one_of(
        st.fixed_dictionaries({"metric": METRIC, "normalize": st.booleans(), "weights": WEIGHTS}),
        st.fixed_dictionaries(
            {
                "metric": METRIC,
                "weights": WEIGHTS,
                "visibility": st.just("binary"),
                "threshold": st.sampled_from([None, 0.25, 0.75]),
            }
        ),
    ),
    "public_distance": st.fixed_dictionaries({"metric": METRIC, "weights": WEIGHTS, "normalize": st.booleans()}),
    "distance_sum": st.fixed_dictionaries({"metric": METRIC, "weights": WEIGHTS, "normalize": st.booleans()}),
}
"""For each registered matcher the options that change what it finds."""


def visibility(matcher: str, options: dict, seen: np.ndarray) -> np.ndarray:
    """v as the matcher counts it."""
    if matcher == "plain":
        return np.ones_like(seen)
    if options.get("visibility") == "binary":
        return (seen >= (options["threshold"] or 0.5)).astype(float)
    if matcher == "public_distance":
        seen = seen.copy()
        seen[:, 0] = 1
    return seen


def distance_of(options: dict, x: list[float], y: list[float]) -> float:
    """d of one slot."""
    unit = options["metric"] == "cosine" or options.get("normalize", True)
    if unit:
        x, y = ([value / (math.sqrt(math.fsum(v * v for v in z)) or 1) for value in z] for z in (x, y))
    if options["metric"] == "cosine":
        return 1 - math.fsum(a * b for a, b in zip(x, y, strict=True))
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


def full_matrix(matcher: str, options: dict, query: PartEmbeddings, gallery: PartEmbeddings) -> np.ndarray:
    """D of all pairs, rounded to 1e-6."""
    weights = [1.0 if options["weights"] is None else options["weights"].get(name, 1.0) for name in NAMES]
    sides = [[e.double().tolist() for e in rows.embeddings] for rows in (query, gallery)]
    seen = [visibility(matcher, options, rows.visibility.double().numpy()) for rows in (query, gallery)]
    full = np.full((len(query), len(gallery)), WITHOUT)
    for i in range(len(query)):
        for j in range(len(gallery)):
            shared = [weights[s] * seen[0][i, s] * seen[1][j, s] for s in range(3)]
            if sum(shared) > 0:
                apart = [
                    shared[s] and shared[s] * distance_of(options, sides[0][s][i], sides[1][s][j]) for s in range(3)
                ]
                mean = math.fsum(apart) / math.fsum(shared)
                full[i, j] = round(mean * (sum(weights) if matcher == "distance_sum" else 1), 6)
    return full


@dataclass
class Case:
    """One search."""

    matcher: str
    options: dict
    query: PartEmbeddings
    gallery: PartEmbeddings
    allowed: np.ndarray | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    matcher = draw(st.sampled_from(sorted(OPTIONS)))
    options = draw(OPTIONS[matcher])
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtypes = draw(st.sampled_from([(torch.float16,) * 2, (torch.float32,) * 2, (torch.float64,) * 2]) | MIXED)

    def rows(count: int, dtype: torch.dtype) -> PartEmbeddings:
        slots = []
        for width in WIDTHS:
            slot = random.normal(size=(count, width)) * random.choice([1.0, 20.0])
            slot[random.random(count) < 0.1] = 0
            slots.append(torch.from_numpy(slot).to(dtype))
        seen = random.choice([0.0, 0.25, 0.5, 1.0, random.random()], size=(count, 3), p=[0.4, 0.1, 0.1, 0.3, 0.1])
        return PartEmbeddings(NAMES, tuple(slots), torch.from_numpy(seen).float())

    query = rows(draw(st.integers(0, 4)), dtypes[0])
    different = rows(draw(st.integers(1, 40)), dtypes[1])
    # Rows that come again, exactly or so nearly that rounding to 1e-6 hides it, and queries that are in the gallery.
    gallery = different[random.integers(0, len(different), draw(st.integers(1, 70))).tolist()]
    nearly = 1 + torch.from_numpy(random.choice([0.0, 0.0, 1e-9], size=(len(gallery), 1)))
    gallery = PartEmbeddings(NAMES, tuple((e * nearly).to(dtypes[1]) for e in gallery.embeddings), gallery.visibility)
    if draw(st.booleans()):
        gallery = PartEmbeddings.cat([gallery, query.to(dtype=dtypes[1])])
    allowed = None
    if draw(st.booleans()):
        allowed = random.random((len(query), len(gallery))) < random.choice([0.02, 0.3, 0.9], size=(len(query), 1))
    return Case(matcher, options, query, gallery, allowed)


MIXED = st.just((torch.float32, torch.float16))


class Stored:
    """Rows that cannot be looked at in place."""

    def __init__(self, rows: PartEmbeddings) -> None:
        self._rows = InMemoryRows(rows)
        self.tiles, self.take = self._rows.tiles, self._rows.take

    def __len__(self) -> int:
        return len(self._rows)


def test_every_registered_matcher_has_its_formula_here() -> None:
    built_in = {name for name in MATCHERS.names() if MATCHERS.get(name).__module__.startswith("occluded_reid.")}
    assert set(OPTIONS) == built_in


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    case=cases(),
    k=st.integers(1, 6) | st.integers(1, 90),
    margin=st.sampled_from([1, 3, 16]),
    tile_rows=st.sampled_from([None, 1, 2, 7, 30, 1000]),
    threads=st.sampled_from([1, 2]),
    stored=st.booleans(),
    blocks=st.sampled_from([None, 1, 20]),
)
def test_the_same_ids_in_the_same_order_as_the_full_matrix(case, k, margin, tile_rows, threads, stored, blocks) -> None:
    matcher = MATCHERS.create(case.matcher, **case.options)
    full = full_matrix(case.matcher, case.options, case.query, case.gallery)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_MARGIN", margin)  # a small one makes doubt and second passes common
        if blocks is not None:  # so that few rows fill several blocks
            patch.setitem(tiles._BLOCK_VALUES, "cpu", blocks)
            patch.setattr(exact, "_RESCORED_NUMBERS", blocks * sum(WIDTHS))
            patch.setattr(tiles, "_RESCORED_PAIRS", blocks)
        try:
            torch.set_num_threads(threads)
            found = exact_topk(
                case.query,
                Stored(case.gallery) if stored else InMemoryRows(case.gallery),
                matcher,
                k,
                tile_rows=tile_rows,
                allowed=None if case.allowed is None else lambda start, stop: case.allowed[:, start:stop],
            )
        finally:
            torch.set_num_threads(before)
    assert len(found) == len(case.query)
    for i in range(len(case.query)):
        able = range(len(case.gallery)) if case.allowed is None else np.flatnonzero(case.allowed[i]).tolist()
        nearest = sorted((full[i, j], j) for j in able)[:k]
        assert found.positions[i].tolist() == [j for _, j in nearest]
        np.testing.assert_allclose(found.distances[i], [d for d, _ in nearest], rtol=0, atol=1e-9)


@pytest.mark.parametrize("matcher", sorted(OPTIONS))
def test_many_rows_that_fill_threads_and_blocks(matcher) -> None:
    """Enough of them for torch and NumPy to share the work among threads; two tile sizes, one answer."""
    generator = torch.Generator().manual_seed(3)
    rows = PartEmbeddings(
        NAMES,
        tuple(torch.randn(1500, width, generator=generator).half() for width in WIDTHS),
        (torch.rand(1500, 3, generator=generator) < 0.7).float(),
    )
    gallery = PartEmbeddings.cat([rows, rows])[torch.randperm(3000, generator=generator)]
    answers, before = [], torch.get_num_threads()
    try:
        for threads, tile_rows in ((1, None), (2, None), (2, 701)):
            torch.set_num_threads(threads)
            answers.append(
                exact_topk(rows[:300], InMemoryRows(gallery), MATCHERS.create(matcher), 9, tile_rows=tile_rows)
            )
    finally:
        torch.set_num_threads(before)
    for other in answers[1:]:
        for i in range(300):
            np.testing.assert_array_equal(other.positions[i], answers[0].positions[i])
            np.testing.assert_array_equal(other.distances[i], answers[0].distances[i])
