"""From files to labelled rows: the same in any batch, occluded the same each time, visibility from true masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import ReIDData, ReIDModel, Sample, build_model, embed_samples, load_dataset
from occluded_reid.data.images import open_image, open_mask
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.errors import DataError, EvaluationError, ImageError, MaskError
from occluded_reid.evaluation.embed import Occlusion, embed_with_truth, occluded_sample, true_visibility
from occluded_reid.evaluation.held_out import held_out_scores

Build = Callable[..., ReIDModel]
THINGS = Occluders.generated(0, count=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReIDData:
    options = SyntheticOptions(
        train_identities=1, test_identities=3, cameras=2, images_per_camera=1, distractors=1, width=32, height=96
    )
    return load_dataset("synthetic", generate(tmp_path_factory.mktemp("people") / "set", options))


def assert_rows_equal(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_rows_are_those_of_the_files_in_any_batch(tiny: Build, data: ReIDData, batch_size: int) -> None:
    model = tiny(None)
    told: list[tuple[int, int]] = []
    rows = embed_samples(
        model, data, data.gallery, batch_size=batch_size, progress=lambda done, total: told.append((done, total))
    )
    expected = model.embed(model.preprocess([sample.path for sample in data.gallery]))
    for slot in model.slots:
        assert_rows_equal(rows.embeddings.slot(slot), expected.slot(slot))
    assert torch.equal(rows.embeddings.visibility, expected.visibility)
    assert rows.paths == tuple(sample.name for sample in data.gallery)
    assert np.array_equal(rows.camera, [sample.camera for sample in data.gallery])
    same = [[a.identity == b.identity for a in data.gallery] for b in data.gallery]
    assert np.array_equal(rows.identity[:, None] == rows.identity[None], same)
    assert told == [(min(done + batch_size, 13), 13) for done in range(0, 13, batch_size)]


def test_occlusion_is_settled_by_seed_and_name(data: ReIDData) -> None:
    sample, other = data.query[0], data.query[1]
    first = occluded_sample(sample, Occlusion(0.4, THINGS, seed=3))
    occluded_sample(other, Occlusion(0.4, THINGS, seed=3))  # what is done in between changes nothing
    np.random.default_rng(0).random(7)
    again = occluded_sample(sample, Occlusion(0.4, Occluders.generated(0, count=6), seed=3))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[2] == again[2]
    for different in (
        occluded_sample(sample, Occlusion(0.4, THINGS, seed=4)),
        occluded_sample(replace(sample, name="another name"), Occlusion(0.4, THINGS, seed=3)),
    ):
        assert not np.array_equal(first[0], different[0])


def test_what_is_covered_is_gone_from_the_mask_and_nothing_else_is(data: ReIDData) -> None:
    for sample in data.query:
        assert sample.mask is not None
        image, parts, covered = occluded_sample(sample, Occlusion(0.35, THINGS))
        before = open_mask(sample.mask)
        hidden = (before > 0) & (parts == 0)
        assert covered == pytest.approx(hidden.sum() / (before > 0).sum())
        assert covered == pytest.approx(0.35, abs=0.03)
        assert np.array_equal(parts[~hidden], before[~hidden])
        original = np.asarray(open_image(sample.path))
        changed = (image != original).any(2)
        assert changed[hidden].mean() > 0.9
        assert changed.sum() < 0.9 * changed.size


def test_occluded_rows_do_not_depend_on_the_batch(tiny: Build, data: ReIDData) -> None:
    model, occlusion = tiny(None), Occlusion(0.35, THINGS, seed=1)
    by_two = embed_with_truth(model, data, data.query, occlusion=occlusion, batch_size=2)
    turned = embed_with_truth(model, data, data.query[::-1], occlusion=occlusion)
    pictures = [occluded_sample(sample, occlusion) for sample in data.query]
    direct = model.embed(model.preprocess([image for image, _, _ in pictures]))
    for rows, order in ((by_two, slice(None)), (turned, torch.arange(5, -1, -1))):
        for slot in model.slots:
            assert_rows_equal(rows.embedded.embeddings.slot(slot), direct.slot(slot)[order])
        assert rows.truth is not None
        assert torch.equal(rows.truth, true_visibility(model, [mask for _, mask, _ in pictures])[order])
        assert rows.covered == pytest.approx(np.mean([share for _, _, share in pictures]))
    clean = embed_with_truth(model, data, data.query)
    assert clean.covered == 0
    assert not torch.equal(clean.embedded.embeddings.slot("global"), by_two.embedded.embeddings.slot("global"))


@pytest.mark.parametrize("visibility", ["binary", "soft"])
@pytest.mark.parametrize("scale", [1, 2])
def test_true_visibility_is_the_models_rule_on_the_true_mask(
    tiny: Build, data: ReIDData, visibility: str, scale: int
) -> None:
    model = tiny(None, **{"model.heads.semantic.options.visibility": visibility})
    masks = [open_mask(sample.mask) for sample in data.query if sample.mask is not None]
    masks += [np.zeros((96, 32), np.uint8), np.full((96, 32), 7, np.uint8)]
    expected = []
    for mask in masks:
        row = [1.0]  # the global slot: no head speaks of it
        for part in range(3):  # a map of 6 rows over 96 pixels: two of its rows, or 32 pixels, a stripe
            seen = [bool(mask[y, x]) for y in range(32 * part, 32 * part + 32) for x in range(32)]
            fraction = sum(seen) / len(seen)
            row.append(fraction if visibility == "soft" else float(fraction >= 0.15))
        expected.append(row)
    enlarged = [np.kron(mask, np.ones((scale, scale), np.uint8)) for mask in masks]
    got = true_visibility(model, enlarged)
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-6, atol=1e-6)
    assert 0 < got[: len(data.query), 1:].mean() < 1 or visibility == "binary"


def test_truth_follows_the_samples_masks(tiny: Build, data: ReIDData) -> None:
    model = tiny(None)
    rows = embed_with_truth(model, data, data.gallery, batch_size=4)
    assert rows.truth is not None
    masks = [open_mask(sample.mask) for sample in data.gallery if sample.mask is not None]
    assert torch.equal(rows.truth, true_visibility(model, masks))
    assert embed_with_truth(model, data, data.gallery, truth=False).truth is None


def test_nobody_is_occluded_by_himself(data: ReIDData) -> None:
    sample = data.query[0]
    assert sample.mask is not None
    image, mask = np.asarray(open_image(sample.path)), open_mask(sample.mask)
    himself = Occluders.pedestrians([image], [mask], [sample.identity])
    with pytest.raises(DataError, match=f"show identity '{sample.identity}', who is to be occluded"):
        occluded_sample(sample, Occlusion(0.3, himself))
    somebody = Occluders.pedestrians([image], [mask], ["somebody else"])
    assert occluded_sample(sample, Occlusion(0.3, somebody))[2] > 0.2


def test_what_is_missing_is_named(tiny: Build, data: ReIDData, tmp_path: Path) -> None:
    model = tiny(None)
    bare = [replace(sample, mask=None) for sample in data.query]
    assert len(embed_samples(model, data, bare)) == len(bare), "without occlusion and truth no mask is needed"
    with pytest.raises(MaskError, match=f"'{bare[0].name}' has no part mask.*masks=FOLDER"):
        embed_with_truth(model, data, bare)
    with pytest.raises(MaskError, match=f"'{bare[0].name}' has no part mask"):
        embed_samples(model, data, bare, occlusion=Occlusion(0.2, THINGS))
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    wrong = [replace(data.query[0], mask=tmp_path / "small.png")]
    for call in (
        lambda: embed_with_truth(model, data, wrong),
        lambda: embed_samples(model, data, wrong, occlusion=Occlusion(0.2, THINGS)),
    ):
        with pytest.raises(MaskError, match=r"small\.png' is 8×8, its image 32×96"):
            call()
    gone = Sample("gone.png", tmp_path / "gone.png", data.query[0].identity, 0)
    with pytest.raises(ImageError, match=r"gone\.png' does not exist"):
        embed_samples(model, data, [gone])
    with pytest.raises(EvaluationError, match=r"has no such samples.*holdout"):
        embed_samples(model, data, [])
    with pytest.raises(EvaluationError, match="batch_size is 0"):
        embed_samples(model, data, data.query, batch_size=0)


def test_a_model_without_a_rule_has_no_true_visibility(tiny: Build, data: ReIDData) -> None:
    blind = build_model(tiny(None).recipe, heads={"semantic": None})
    with pytest.raises(EvaluationError, match="no head that makes visibility from a mask"):
        embed_with_truth(blind, data, data.query)


def test_held_out_scores_are_those_of_the_evaluation(tiny: Build, data: ReIDData) -> None:
    from occluded_reid import Protocol, evaluate

    model = tiny(None)
    report = evaluate(
        embed_samples(model, data, data.query),
        embed_samples(model, data, data.gallery),
        model.matcher,
        Protocol(bootstrap=0),
    )
    assert held_out_scores(data)(model) == {"Rank-1": report.rank(1), "mAP": report.mAP}
    with pytest.raises(EvaluationError, match="no queries or no gallery"):
        held_out_scores(replace(data, query=()))
