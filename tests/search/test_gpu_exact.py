"""A GPU finds what the CPU finds: the same ids, in the same order, at the same distances. Skipped where none is."""

import numpy as np
import pytest
import torch

from occluded_reid import MATCHERS
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import DeviceError
from occluded_reid.matchers import PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows, exact_topk, tiles
from occluded_reid.search.device import choose_device, describe_device, full_precision
from occluded_reid.search.rows import tiles_on

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
pytestmark = needs_gpu

NAMES = ("global", "part_1", "part_2")


def make(rows: int, seed: int, *, dtype: torch.dtype = torch.float32, width: int = 48) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    visibility = torch.rand(rows, 3, generator=generator)
    visibility[visibility < 0.4] = 0
    slots = tuple(torch.randn(rows, width, generator=generator).to(dtype) for _ in NAMES)
    return PartEmbeddings(NAMES, slots, visibility)


def with_twins(rows: int, seed: int, **options) -> PartEmbeddings:
    order = torch.randperm(3 * rows, generator=torch.Generator().manual_seed(seed))
    return PartEmbeddings.cat([make(rows, seed, **options)] * 3)[order]


def same(one, other) -> None:
    assert len(one) == len(other)
    for i in range(len(one)):
        np.testing.assert_array_equal(one.positions[i], other.positions[i])
        np.testing.assert_array_equal(one.distances[i], other.distances[i])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{"metric": "cosine"}, {"metric": "euclidean"}], ids=["cosine", "euclidean"])
@pytest.mark.parametrize("matcher", ["visibility_weighted", "public_distance", "distance_sum", "plain"])
def test_every_matcher_and_type(matcher, options, dtype) -> None:
    query, gallery = make(40, 0, dtype=dtype), with_twins(700, 1, dtype=dtype)
    chosen = MATCHERS.create(matcher, **options)
    on_cpu = exact_topk(query, InMemoryRows(gallery), chosen, 10)
    for tile_rows in (None, 333):
        same(exact_topk(query, InMemoryRows(gallery), chosen, 10, tile_rows=tile_rows, device="cuda"), on_cpu)


@pytest.mark.parametrize("k", [1, 50, 2500, 5000])
def test_every_length_with_a_mask(k) -> None:
    query, gallery = make(20, 2), with_twins(700, 3)
    mask = np.random.default_rng(0).random((20, 2100)) < np.linspace(0, 1, 20)[:, None]
    found = [
        exact_topk(
            query,
            InMemoryRows(gallery),
            VisibilityWeightedMatcher(),
            k,
            tile_rows=512,
            allowed=lambda start, stop: mask[:, start:stop],
            device=device,
        )
        for device in ("cpu", "cuda")
    ]
    same(*found)


def test_many_blocks_of_queries(monkeypatch) -> None:
    monkeypatch.setitem(tiles._BLOCK_VALUES, "cuda", 5000)
    query, gallery = make(300, 4), with_twins(900, 5)
    matcher = VisibilityWeightedMatcher(visibility="binary")
    found = [exact_topk(query, InMemoryRows(gallery), matcher, 7, tile_rows=400, device=d) for d in ("cpu", "cuda")]
    same(*found)


def test_ties_by_the_hundred_are_resolved_by_position() -> None:
    one = make(1, 6).with_visibility(torch.ones(1, 3))
    gallery = PartEmbeddings.cat([make(50, 7)] + [one] * 200)
    found = exact_topk(one, InMemoryRows(gallery), PlainMatcher(), 5, tile_rows=60, device="cuda")
    assert found.positions[0].tolist() == [50, 51, 52, 53, 54]


def test_tf32_and_autocast_do_not_reach_the_products() -> None:
    # Wide rows that are nearly alike: TF32 is wrong by about 1e-3 here, a hundred times the tolerance.
    centre = make(1, 8, width=1024)
    query, noise = make(30, 9, width=1024), make(4000, 10, width=1024)
    gallery = PartEmbeddings(
        NAMES,
        tuple(c + 0.05 * n for c, n in zip(centre.embeddings, noise.embeddings, strict=True)),
        torch.ones(4000, 3),
    )
    on_cpu = exact_topk(query, InMemoryRows(gallery), VisibilityWeightedMatcher(), 20)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cuda"):
            on_gpu = exact_topk(query, InMemoryRows(gallery), VisibilityWeightedMatcher(), 20, device="cuda")
        x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)).cuda()
        with full_precision("cuda"):
            exact = (x @ x).cpu().double()
        wanted = x.cpu().double() @ x.cpu().double()
        assert float((exact - wanted).abs().max()) < 1e-3
    finally:
        torch.set_float32_matmul_precision(before)
    same(on_gpu, on_cpu)


def test_rows_that_live_on_the_gpu_are_searched_there_and_on_the_cpu() -> None:
    query, gallery = make(10, 11), with_twins(300, 12)
    there = query.to("cuda"), gallery.to("cuda")
    on_cpu = exact_topk(query, InMemoryRows(gallery), VisibilityWeightedMatcher(), 10)
    for device in ("cpu", "cuda"):
        for q, g in (there, (query, there[1]), (there[0], gallery)):
            same(exact_topk(q, InMemoryRows(g), VisibilityWeightedMatcher(), 10, device=device), on_cpu)


def test_tiles_arrive_in_order_and_whole() -> None:
    gallery = with_twins(500, 13, dtype=torch.float16)
    tiles = list(tiles_on(InMemoryRows(gallery), 64, torch.device("cuda", torch.cuda.current_device())))
    assert [start for start, _, _ in tiles] == list(range(0, 1500, 64))
    for _, tile, there in tiles:
        assert there.visibility.is_cuda
        for one, other in zip(tile.embeddings, there.embeddings, strict=True):
            assert torch.equal(one, other.cpu())


def test_memory_of_the_gpu_does_not_grow_with_the_gallery() -> None:
    query = make(64, 14)
    peaks = []
    for rows in (2000, 8000):
        gallery = with_twins(rows, 15)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        exact_topk(query, InMemoryRows(gallery), PlainMatcher(), 10, tile_rows=500, device="cuda")
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] <= 1.1 * peaks[0]


def test_auto_is_the_gpu_and_one_that_is_not_there_is_an_error() -> None:
    assert choose_device("auto").type == "cuda"
    assert torch.cuda.get_device_name() in describe_device(choose_device("auto"))
    with pytest.raises(DeviceError, match=f"cuda:{torch.cuda.device_count()}"):
        choose_device(f"cuda:{torch.cuda.device_count()}")
