"""SGAM's loss of visible parts as a model calls it: against loops, where it takes visibility from, what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from occluded_reid import LOSSES, BuildInfo, FeatureMaps, HeadInfo, HeadOutput, ModelOutput, Targets
from occluded_reid.contracts import StageInfo
from occluded_reid.errors import BuildError, UnknownOptionError
from occluded_reid.losses import Criterion, IdentityLoss, VisiblePartLoss

COUNT, CLASSES = 3, 5
SLOTS = ("head", "upper_body", "shoes")
INFO = BuildInfo(
    stages={"last": StageInfo(8, 16)},
    input_size=(32, 16),
    num_classes=CLASSES,
    heads={
        "global": HeadInfo(slots={"global": 8}),
        "region_pooling": HeadInfo(slots=dict.fromkeys(SLOTS, 8), visibility_of=SLOTS),
        "local": HeadInfo(slots={"part_1": 8, "part_2": 8}),
        "semantic": HeadInfo(visibility_of=("part_1", "part_2")),
        "bare": HeadInfo(slots={"bare": 8}),
    },
    name="the loss",
)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.fixture
def output() -> ModelOutput:
    """What the heads might give, in float64; the slots stand in another order than in the head's info."""
    heads = {
        "global": HeadOutput(logits={"global": random(COUNT, CLASSES, seed=0)}),
        "region_pooling": HeadOutput(
            logits={slot: random(COUNT, CLASSES, seed=i) for i, slot in enumerate(reversed(SLOTS))},
            visibility={slot: random(COUNT, seed=9 + i).sigmoid() for i, slot in enumerate(SLOTS)},
        ),
        "local": HeadOutput(logits={f"part_{p}": random(COUNT, CLASSES, seed=p) for p in (1, 2)}),
        "semantic": HeadOutput(visibility={f"part_{p}": torch.tensor([1.0, 0.0, 1.0]) for p in (1, 2)}),
    }
    return ModelOutput(FeatureMaps({}, torch.zeros(COUNT, 3, 32, 16)), heads)


@pytest.fixture
def targets() -> Targets:
    return Targets(torch.tensor([4, 0, 2]), torch.zeros(COUNT, dtype=torch.long))


def cross_entropy(logits: list[float], label: int) -> float:
    return math.log(sum(math.exp(z) for z in logits)) - logits[label]


@pytest.mark.parametrize("thresholds", [0.2, [0.1, 0.9, 0.5], {"shoes": 0.5, "head": 0.1, "upper_body": 0.9}])
def test_visible_regions_pay_by_how_much_is_seen(output, targets, thresholds) -> None:
    limits = dict(zip(SLOTS, [0.2] * 3 if thresholds == 0.2 else [0.1, 0.9, 0.5], strict=True))
    expected = 0.0
    for n in range(COUNT):
        for slot in SLOTS:
            weight = max(output["region_pooling"].visibility[slot][n].item() - limits[slot], 0)
            logits = output["region_pooling"].logits[slot][n].tolist()
            expected += weight * cross_entropy(logits, int(targets.identity[n])) / COUNT
    loss = LOSSES.create("visible_part", INFO, thresholds=thresholds)
    assert isinstance(loss, VisiblePartLoss)
    assert loss(output, targets).item() == pytest.approx(expected, rel=1e-12)
    counted = VisiblePartLoss(INFO, thresholds=thresholds, pixels=192)  # max(192 · v - 192 · t, 0) · CE
    assert counted(output, targets).item() == pytest.approx(192 * expected, rel=1e-12)


def test_visibility_comes_from_whichever_head_gives_it(output, targets) -> None:
    expected = 0.0
    for n in (0, 2):  # the second image shows nothing
        for part in ("part_1", "part_2"):
            logits = output["local"].logits[part][n].tolist()
            expected += (1 - 0.25) * cross_entropy(logits, int(targets.identity[n])) / COUNT
    loss = VisiblePartLoss(INFO, on="local", thresholds=0.25)
    assert loss(output, targets).item() == pytest.approx(expected, rel=1e-12)


def test_the_total_is_lambda_of_the_whole_and_the_rest_of_the_parts(output, targets) -> None:
    losses = {"global": IdentityLoss(INFO, on="global"), "parts": VisiblePartLoss(INFO)}
    values = Criterion(losses, {"global": 0.2, "parts": 0.8})(output, targets)
    expected = 0.2 * values.named["global"].item() + 0.8 * values.named["parts"].item()
    assert values.total.item() == pytest.approx(expected)
    values.total.backward()
    assert output["region_pooling"].logits["head"].grad.any()
    seen = output["region_pooling"].visibility["head"]
    assert torch.autograd.grad(VisiblePartLoss(INFO)(output, targets), seen, allow_unused=True) == (None,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"on": "regions"}, BuildError, "works on head 'regions', which this model does not have"),
        ({"on": "semantic"}, BuildError, "classifies slots, but head 'semantic' has none"),
        ({"on": "bare"}, BuildError, "no head gives that of bare. Add a head that does, or take the loss 'identity'"),
        (
            {"thresholds": [0.1, 0.2]},
            BuildError,
            "'the loss': thresholds holds 2 numbers for 3: head, upper_body, shoes",
        ),
        ({"thresholds": {"head": 0.1}}, BuildError, "thresholds lacks upper_body, shoes"),
        ({"thresholds": {"legs": 0.1}}, BuildError, "thresholds names 'legs', which is none of head, upper_body"),
        ({"thresholds": 1.5}, UnknownOptionError, "'thresholds' was given 1.5"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_built(options: dict[str, Any], error, message: str) -> None:
    with pytest.raises(error, match=message):
        LOSSES.create("visible_part", INFO, **options)


def test_a_head_that_gives_no_logits_is_named(output, targets) -> None:
    given = output["region_pooling"]
    output.heads["region_pooling"] = replace(given, logits={"shoes": given.logits["shoes"]})
    with pytest.raises(BuildError, match=r"needs identity logits for each slot.*gives none for head, upper_body"):
        VisiblePartLoss(INFO)(output, targets)
