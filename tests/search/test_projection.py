"""Reduction: against scikit-learn's own decompositions, and what it must not change."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.decomposition import PCA, TruncatedSVD

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError
from occluded_reid.files import read_safetensors
from occluded_reid.matchers import DistanceSumMatcher, Matcher, PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.search.projection import Reduction

NAMES = ("global", "part_1")


def make(rows: int, seed: int, *, widths=(12, 8), rank: int = 6, hidden: float = 0.4) -> PartEmbeddings:
    """Rows near a subspace of `rank` directions, off the origin, of different lengths, a share of the parts hidden."""
    generator = torch.Generator().manual_seed(seed)
    slots = []
    for width in widths:
        base = torch.randn(rank, width, generator=torch.Generator().manual_seed(width))
        slot = torch.randn(rows, rank, generator=generator) @ base + 0.05 * torch.randn(
            rows, width, generator=generator
        )
        slots.append((slot + 0.7) * (0.5 + torch.rand(rows, 1, generator=generator)))
    visibility = torch.ones(rows, len(widths))
    visibility[:, 1:] = (torch.rand(rows, len(widths) - 1, generator=generator) >= hidden).float()
    return PartEmbeddings(NAMES[: len(widths)], tuple(slots), visibility)


def test_unit_vectors_are_projected_as_truncated_svd_does_and_are_not_centred() -> None:
    sample = make(200, 0)
    reduction = Reduction.fit(sample, {"global": 4, "part_1": 3}, matcher=VisibilityWeightedMatcher())
    for s, (name, width) in enumerate((("global", 4), ("part_1", 3))):
        shown = sample.visibility[:, s] > 0
        rows = torch.nn.functional.normalize(sample.slot(name)[shown].double(), dim=1).numpy()
        svd = TruncatedSVD(width, algorithm="arpack", random_state=0).fit(rows)
        projection = reduction.projections[name].double().numpy()
        np.testing.assert_allclose(projection @ projection.T, svd.components_.T @ svd.components_, atol=1e-5)
        np.testing.assert_allclose(projection.T @ projection, np.eye(width), atol=1e-6)
        energy = (svd.singular_values_**2).sum() / (rows**2).sum()
        assert reduction.explained[name] == pytest.approx(energy, abs=1e-6)
        assert reduction.rows[name] == int(shown.sum())
    assert reduction.normalize
    assert not reduction.means


def test_raw_euclidean_is_centred_as_pca_does() -> None:
    sample = make(200, 1)
    matcher = VisibilityWeightedMatcher(metric="euclidean", normalize=False)
    reduction = Reduction.fit(sample, {"part_1": 3}, matcher=matcher)
    rows = sample.slot("part_1")[sample.visibility[:, 1] > 0].double().numpy()
    pca = PCA(3, svd_solver="full").fit(rows)
    projection = reduction.projections["part_1"].double().numpy()
    np.testing.assert_allclose(projection @ projection.T, pca.components_.T @ pca.components_, atol=1e-5)
    np.testing.assert_allclose(reduction.means["part_1"].numpy(), pca.mean_, atol=1e-5)
    assert reduction.explained["part_1"] == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-6)
    got = reduction.apply(sample)
    expected = (sample.slot("part_1").double().numpy() - pca.mean_) @ projection
    np.testing.assert_allclose(got.slot("part_1").numpy(), expected, atol=1e-4)
    assert got.slot("global") is sample.slot("global")


def test_soft_visibility_weighs_rows_by_its_square() -> None:
    rows = torch.eye(4)[[0, 0, 1, 2]]
    visibility = torch.tensor([[0.5], [0.5], [0.8], [0.0]])
    sample = PartEmbeddings(("a",), (rows,), visibility)
    first = Reduction.fit(sample, {"a": 1}, matcher=VisibilityWeightedMatcher())
    # Two rows at 0.5 weigh 2 · 0.25, one at 0.8 weighs 0.64; the hidden row weighs nothing.
    assert first.projections["a"].flatten().tolist() == pytest.approx([0, 1, 0, 0])
    assert first.explained["a"] == pytest.approx(0.64 / 1.14)
    assert Reduction.fit(sample, {"a": 1}, matcher=PlainMatcher()).projections["a"].flatten().tolist() == pytest.approx(
        [1, 0, 0, 0]
    )


@pytest.mark.parametrize("matcher", [VisibilityWeightedMatcher(), DistanceSumMatcher()], ids=lambda m: m.metric)
def test_what_lies_in_the_kept_directions_keeps_its_distances(matcher) -> None:
    """Rows of rank 5 in 12 and 8 numbers, reduced to 5: no distance may change."""
    generator = torch.Generator().manual_seed(3)
    base = [torch.randn(5, width, generator=generator) for width in (12, 8)]
    slots = tuple(torch.randn(60, 5, generator=generator) @ b for b in base)
    rows = PartEmbeddings(NAMES, slots, torch.ones(60, 2))
    reduction = Reduction.fit(rows[:40], {"global": 5, "part_1": 5}, matcher=matcher)
    small = reduction.apply(rows)
    numbers = np.arange(40), np.arange(20, 60)
    before, after = matcher.pairs(rows, rows, *numbers), matcher.pairs(small, small, *numbers)
    np.testing.assert_allclose(after, before, atol=5e-6)
    assert min(reduction.explained.values()) == pytest.approx(1, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 12),
    metric=st.sampled_from(["cosine", "euclidean", "raw"]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.float64]),
)
def test_one_row_alone_is_reduced_as_it_is_among_others(seed, width, metric, dtype) -> None:
    sample = make(64, seed)
    matcher = VisibilityWeightedMatcher(
        metric="cosine" if metric == "cosine" else "euclidean", **({"normalize": False} if metric == "raw" else {})
    )
    reduction = Reduction.fit(sample, {"global": width, "part_1": 2}, matcher=matcher)
    rows = make(64, seed + 1).to(dtype=dtype)
    together = reduction.apply(rows)
    alone = PartEmbeddings.cat([reduction.apply(rows[i : i + 1]) for i in range(64)])
    for name in NAMES:
        assert together.slot(name).dtype == dtype
        scale = max(1.0, float(together.slot(name).abs().max()))
        step = 1e-3 if dtype == torch.float16 else 1e-5
        torch.testing.assert_close(together.slot(name), alone.slot(name), rtol=0, atol=step * scale)
    assert torch.equal(together.visibility, rows.visibility)


def test_lengths_of_any_size_and_zero_vectors_pass() -> None:
    sample = make(50, 4)
    reduction = Reduction.fit(sample, {"global": 4}, matcher=PlainMatcher())
    row = sample.slot("global")[:1]
    rows = torch.cat([row, row * 1e30, row * 1e-30, torch.zeros_like(row)])
    got = reduction.apply(PartEmbeddings(NAMES, (rows, torch.ones(4, 8)), torch.ones(4, 2))).slot("global")
    torch.testing.assert_close(got[1:3], got[:1].expand(2, 4), rtol=1e-5, atol=1e-6)
    assert got[3].tolist() == [0, 0, 0, 0]


def test_the_same_sample_gives_the_same_fingerprint_and_signs_are_fixed() -> None:
    sample = make(120, 5)
    first, second = (Reduction.fit(sample, {"global": 4, "part_1": 3}, matcher=PlainMatcher()) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 12
    for projection in first.projections.values():
        assert bool((projection.gather(0, projection.abs().argmax(0, keepdim=True)) > 0).all())
    others = [
        Reduction.fit(sample, {"global": 5, "part_1": 3}, matcher=PlainMatcher()),
        Reduction.fit(sample, {"global": 4}, matcher=PlainMatcher()),
        Reduction.fit(sample[:100], {"global": 4, "part_1": 3}, matcher=PlainMatcher()),
        Reduction.fit(sample, {"global": 4, "part_1": 3}, matcher=PlainMatcher(metric="euclidean", normalize=False)),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_slots_may_come_in_another_order_and_a_full_width_is_left_alone() -> None:
    sample = make(60, 6)
    reduction = Reduction.fit(sample, {"global": 4, "part_1": 8}, matcher=PlainMatcher())
    assert set(reduction.projections) == {"global"}
    assert reduction.slots_out == {"global": 4, "part_1": 8}
    turned = reduction.apply(sample.select(("part_1", "global")))
    assert turned.names == NAMES
    torch.testing.assert_close(turned.slot("global"), reduction.apply(sample).slot("global"))
    assert reduction.bytes_per_image() == (40, 24)
    assert reduction.fits(sample)
    assert not reduction.fits(turned)
    with pytest.raises(EmbeddingError, match=r"takes the slots .*'global': 12.*hold \{'global': 4"):
        reduction.apply(turned)


def test_it_is_saved_and_loaded_and_checked(tmp_path) -> None:
    sample = make(60, 7)
    matcher = PlainMatcher(metric="euclidean", normalize=False)
    reduction = Reduction.fit(sample, {"global": 4}, matcher=matcher, model="sorn@1")
    file = tmp_path / "reduction.safetensors"
    reduction.save(file)
    found = Reduction.load(file)
    assert found.fingerprint == reduction.fingerprint
    assert (found.model, found.normalize, found.explained, found.rows) == (
        "sorn@1",
        False,
        reduction.explained,
        reduction.rows,
    )
    assert torch.equal(found.apply(sample).slot("global"), reduction.apply(sample).slot("global"))

    tensors, metadata = read_safetensors(file)
    flipped = {**tensors, "projection.global": tensors["projection.global"].clone()}
    flipped["projection.global"][0, 0] += 1e-4
    short = {**tensors, "projection.global": tensors["projection.global"][:, :3]}
    newer = {"reduction": json.dumps({**json.loads(metadata["reduction"]), "format_version": 2})}
    foreign = {"reduction": json.dumps({"format": "something"})}
    lacking = {"mean.global": tensors["mean.global"]}
    for content, told, message in (
        (flipped, metadata, "its content is"),
        (short, metadata, "damaged"),
        (lacking, metadata, "damaged"),
        (tensors, newer, "format 2"),
        (tensors, foreign, "no reduction"),
        (tensors, {}, "no reduction"),
    ):
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, file, told)
        with pytest.raises(EmbeddingError, match=message):
            Reduction.load(file)
    with pytest.raises(EmbeddingError, match="could not be read"):
        Reduction.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"globl": 4}, "Did you mean 'global'"),
        ({"global": 13}, "it has 12"),
        ({"global": 0}, "from 1 to 12"),
        ({"global": 2.5}, "whole number"),
        ({"global": True}, "whole number"),
        ({"global": 12}, "nothing gets smaller"),
        ({}, "nothing gets smaller"),
    ],
)
def test_widths_that_make_no_sense_are_refused(widths, message) -> None:
    with pytest.raises(EmbeddingError, match=message):
        Reduction.fit(make(60, 8), widths, matcher=PlainMatcher())


def test_a_slot_that_too_few_rows_show_is_refused() -> None:
    sample = make(30, 9, hidden=0.9)
    seen = int(sample.visibility[:, 1].sum())
    assert 0 < seen < 8
    with pytest.raises(EmbeddingError, match=f"'part_1' is visible in {seen} of the 30 rows"):
        Reduction.fit(sample, {"part_1": 7}, matcher=VisibilityWeightedMatcher())
    assert Reduction.fit(sample, {"part_1": 7}, matcher=PlainMatcher()).rows == {"part_1": 30}
    with pytest.raises(EmbeddingError, match="at least 11 rows"):
        Reduction.fit(sample[:10], {"global": 11}, matcher=PlainMatcher())


def test_it_is_refused_for_another_matcher_or_model() -> None:
    reduction = Reduction.fit(make(60, 10), {"global": 4}, matcher=PlainMatcher(), model="sorn@1")
    reduction.require(matcher=VisibilityWeightedMatcher(), model="sorn@1")
    reduction.require(matcher=DistanceSumMatcher())
    with pytest.raises(EmbeddingError, match="regard to lengths"):
        reduction.require(matcher=DistanceSumMatcher(normalize=False))
    with pytest.raises(EmbeddingError, match=r"of sorn@1; this model is sorn@2"):
        reduction.require(matcher=PlainMatcher(), model="sorn@2")


class Foreign(Matcher):
    """A matcher that is none of ours: what lengths mean to it is its own business."""

    prepare = tile = tolerance = scorer = explain = None

    @property
    def config(self):
        return {"type": "foreign", "options": {}}


def test_a_matcher_that_does_not_say_whether_lengths_count_is_asked_about() -> None:
    sample = make(60, 11)
    with pytest.raises(EmbeddingError, match="normalize=True"):
        Reduction.fit(sample, {"global": 4}, matcher=Foreign())
    said = Reduction.fit(sample, {"global": 4}, matcher=Foreign(), normalize=True)
    assert said.normalize
    said.require(matcher=Foreign())
