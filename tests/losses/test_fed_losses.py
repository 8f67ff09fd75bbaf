"""FED's losses as a model calls them: against loops over views, images and parts; and their sum (SPEC of FED, L)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from occluded_reid import LOSSES, BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, ModelOutput, Targets
from occluded_reid.contracts import StageInfo
from occluded_reid.errors import BuildError, MaskError, UnknownOptionError
from occluded_reid.losses import IdentityLoss, MemoryContrastLoss, OcclusionScoresLoss

IMAGES, CLASSES, PARTS = 3, 5, 4
INFO = BuildInfo(
    stages={"last": StageInfo(8, 16)},
    input_size=(64, 32),
    num_classes=CLASSES,
    heads={
        "erasing": HeadInfo(slots={"erased": 8}, maps={"scores": MapInfo(PARTS, 16)}),
        "memory": HeadInfo(maps={"bank": MapInfo(8, 64)}, training_only=True),
    },
    name="the loss",
)
IDENTITY = [4, 0, 2, 4, 0, 2]
# Of three occluded views: one stripe hidden, a pillar over all stripes, and an occluder over the lower half.
VISIBLE = [[1.0] * 4] * 3 + [[0.0, 1, 1, 1], [1.0] * 4, [1.0, 1, 0, 0]]


@pytest.fixture
def output() -> ModelOutput:
    source = torch.Generator().manual_seed(0)
    heads = {
        "erasing": HeadOutput(
            logits={"erased": torch.randn(6, CLASSES, generator=source, dtype=torch.float64)},
            maps={"scores": torch.rand(6, PARTS, 1, 1, generator=source, dtype=torch.float64).requires_grad_()},
        ),
        "memory": HeadOutput(logits={"memory": torch.randn(6, CLASSES, generator=source, dtype=torch.float64)}),
    }
    return ModelOutput(FeatureMaps({}, torch.zeros(6, 3, 64, 32)), heads)


def make_targets(views: bool = True, masks: bool = True) -> Targets:
    mask = torch.zeros(6, 64, 32)
    mask[3, :16] = 1
    mask[4, :, :8] = 1
    mask[5, 32:] = 1
    return Targets(
        torch.tensor(IDENTITY),
        torch.zeros(6, dtype=torch.long),
        occlusion_mask=mask if masks else None,
        view=torch.tensor([0, 0, 0, 1, 1, 1]) if views else None,
    )


def test_scores_are_compared_with_one_and_with_the_mask(output: ModelOutput) -> None:
    scores = output["erasing"].maps["scores"].detach()[:, :, 0, 0].tolist()
    clean = sum((scores[i][p] - 1) ** 2 for i in range(3) for p in range(4)) / 12
    occluded = sum((scores[i][p] - VISIBLE[i][p]) ** 2 for i in range(3, 6) for p in range(4)) / 12
    loss = OcclusionScoresLoss(INFO)
    assert float(loss(output, make_targets()).detach()) == pytest.approx(clean + occluded, rel=1e-12)
    assert float(loss(output, make_targets(views=False)).detach()) == pytest.approx((clean + occluded) / 2, rel=1e-12)


def test_the_order_of_the_views_does_not_matter(output: ModelOutput) -> None:
    targets, loss = make_targets(), OcclusionScoresLoss(INFO)
    mixed = torch.tensor([3, 0, 5, 4, 2, 1])
    other = Targets(
        targets.identity[mixed],
        targets.camera,
        occlusion_mask=targets.occlusion_mask[mixed],  # type: ignore[index]
        view=targets.view[mixed],  # type: ignore[index]
    )
    moved = HeadOutput(maps={"scores": output["erasing"].maps["scores"][mixed]})
    again = loss(ModelOutput(output.features, {"erasing": moved}), other)
    torch.testing.assert_close(again, loss(output, targets))


def test_the_rules_of_the_mask_are_options(output: ModelOutput) -> None:
    pillar = OcclusionScoresLoss(INFO, vertical_all_visible=False)
    share = OcclusionScoresLoss(INFO, rule="fraction", threshold=0.2)
    usual = OcclusionScoresLoss(INFO)
    values = {float(loss(output, make_targets()).detach()) for loss in (pillar, usual)}
    assert len(values) == 2
    # A pillar of a quarter of the width covers 0.25 of each stripe, and hides none for reaching over all.
    assert float(share(output, make_targets()).detach()) == pytest.approx(
        float(usual(output, make_targets()).detach()), rel=1e-12
    )


def test_the_gradient_of_the_scores(output: ModelOutput) -> None:
    scores, targets, loss = output["erasing"].maps["scores"], make_targets(), OcclusionScoresLoss(INFO)

    def value(scores: torch.Tensor) -> torch.Tensor:
        return loss(ModelOutput(output.features, {"erasing": HeadOutput(maps={"scores": scores})}), targets)

    assert torch.autograd.gradcheck(value, (scores,))


@pytest.mark.parametrize(("clean", "occluded"), [(1.0, 0.3), (0.5, 0.5), (0.0, 1.0)])
def test_contrast_weighs_the_views(output: ModelOutput, clean: float, occluded: float) -> None:
    logits = output["memory"].logits["memory"].tolist()
    values = []
    for row, label in zip(logits, IDENTITY, strict=True):
        exponents = [math.exp(z) for z in row]
        values.append(-math.log(exponents[label] / sum(exponents) + 1e-6))
    loss = MemoryContrastLoss(INFO, clean=clean, occluded=occluded)
    expected = clean * sum(values[:3]) / 3 + occluded * sum(values[3:]) / 3
    assert float(loss(output, make_targets())) == pytest.approx(expected, rel=1e-12)
    assert float(loss(output, make_targets(views=False))) == pytest.approx(clean * sum(values) / 6, rel=1e-12)


def test_identity_over_both_views_is_the_mean_of_the_two(output: ModelOutput) -> None:
    """½ [CE(z¹) + CE(z²)] is the plain mean over the doubled batch."""
    logits = output["erasing"].logits["erased"].tolist()
    terms = []
    for row, label in zip(logits, IDENTITY, strict=True):
        terms.append(math.log(sum(math.exp(z) for z in row)) - row[label])
    expected = 0.5 * (sum(terms[:3]) / 3 + sum(terms[3:]) / 3)
    assert float(IdentityLoss(INFO, on="erasing")(output, make_targets())) == pytest.approx(expected, rel=1e-12)


def test_a_batch_without_masks_says_where_they_come_from(output: ModelOutput) -> None:
    with pytest.raises(MaskError, match=r"needs the masks of pasted occluders.*data\.views=clean_and_occluded"):
        OcclusionScoresLoss(INFO)(output, make_targets(masks=False))


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("occlusion_scores", {"on": "memory"}, BuildError, "needs the map 'scores', which head 'memory' does not give"),
        ("occlusion_scores", {"on": "erasin"}, BuildError, "Did you mean 'erasing'"),
        ("occlusion_scores", {"threshold": 0.0}, UnknownOptionError, "'threshold' was given 0.0"),
        ("memory_contrast", {"on": "erasing"}, BuildError, "contrasts with a memory, which head 'erasing' is not"),
        ("memory_contrast", {"clean": -1.0}, UnknownOptionError, "'clean' was given -1.0"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_built(name: str, options: dict[str, Any], error, message: str) -> None:
    with pytest.raises(error, match=message):
        LOSSES.create(name, INFO, **options)


def test_images_whose_rows_are_no_multiple_of_the_maps_are_refused() -> None:
    heads = {"erasing": HeadInfo(slots={"erased": 8}, maps={"scores": MapInfo(PARTS, 16)})}
    with pytest.raises(BuildError, match="masks of 100 rows over a map of 7 rows"):
        OcclusionScoresLoss(BuildInfo(stages={}, input_size=(100, 32), heads=heads, name="scores"))
