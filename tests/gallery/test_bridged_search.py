"""A gallery answers through complete images as a search over the rows does, with conditions and groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from occluded_reid import Gallery, PartEmbeddings
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search import Bridge, InMemoryRows, bridge_topk

NAMES = ("upper", "lower")


@pytest.fixture
def rows() -> PartEmbeddings:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.tensor([[1.0, 0], [0, 1], [1, 1]])[torch.randint(0, 3, (40,), generator=generator)]
    return PartEmbeddings(NAMES, tuple(torch.randn(40, 8, generator=generator) for _ in NAMES), kinds)


def test_a_gallery_answers_as_its_rows_do(rows: PartEmbeddings, tmp_path: Path) -> None:
    matcher = VisibilityWeightedMatcher()
    keys = [f"image_{n:02d}" for n in range(40)]
    with Gallery.create(tmp_path / "gallery", slots=rows.widths, matcher=matcher, dtype="float32") as gallery:
        gallery.add(rows, keys=keys, identity=[str(n % 7) for n in range(40)])
        stored = gallery.search(rows[:5], k=40, rerank=Bridge())
        wanted = bridge_topk(rows[:5], InMemoryRows(rows), matcher, Bridge(), 40)
        for hits, positions, distances in zip(stored, wanted.positions, wanted.distances, strict=True):
            assert [hit.reranked for hit in hits] == pytest.approx(distances.tolist(), abs=2e-6)
            assert {hit.key for hit in hits} == {keys[p] for p in positions}
        some = gallery.search(rows[:5], k=40, rerank=Bridge(), where={"identity": "3"})
        for hits, everything in zip(some, stored, strict=True):
            assert [hit.key for hit in hits] == [hit.key for hit in everything if hit.identity == "3"]
        grouped = gallery.search(rows[:5], k=7, rerank=Bridge(), group_by="identity")
        for hits, everything in zip(grouped, stored, strict=True):
            first = {hit.identity: hit.key for hit in reversed(everything)}
            assert {hit.identity: hit.key for hit in hits} == first
