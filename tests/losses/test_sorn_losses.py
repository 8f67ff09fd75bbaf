"""SORN's losses as a model calls them: against loops over images and pixels, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid import LOSSES, BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, ModelOutput, Targets
from occluded_reid.contracts import StageInfo
from occluded_reid.errors import BuildError, MaskError, ShapeError, UnknownOptionError
from occluded_reid.losses import Criterion, IdentityLoss, SegmentationLoss, SPCLoss

COUNT, CLASSES, SETS, PARTS = 3, 5, 2, 4
INFO = BuildInfo(
    stages={"last": StageInfo(8, 16)},
    input_size=(32, 16),
    num_classes=CLASSES,
    heads={
        "global": HeadInfo(slots={"global": 8}, maps={"aggregation": MapInfo(SETS, 16)}),
        "local": HeadInfo(slots={"part_1": 8, "part_2": 8, "part_3": 8}),
        "semantic": HeadInfo(maps={"segmentation": MapInfo(PARTS, 4)}),
    },
    name="the loss",
)


@pytest.fixture
def output() -> ModelOutput:
    """What three heads might give, in float64."""
    source = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64).requires_grad_()

    heads = {
        "global": HeadOutput(
            logits={"global": random(COUNT, CLASSES)}, maps={"aggregation": random(COUNT, SETS, 5, 3).sigmoid()}
        ),
        "local": HeadOutput(logits={f"part_{p}": random(COUNT, CLASSES) for p in (1, 2, 3)}),
        "semantic": HeadOutput(maps={"segmentation": random(COUNT, PARTS, 8, 4)}),
    }
    return ModelOutput(FeatureMaps({}, torch.zeros(COUNT, 3, 32, 16)), heads)


@pytest.fixture
def targets() -> Targets:
    """Labels for them; the part masks are four times as large as the map."""
    masks = torch.randint(0, PARTS, (COUNT, 32, 16), generator=torch.Generator().manual_seed(1))
    return Targets(torch.tensor([4, 0, 2]), torch.zeros(COUNT, dtype=torch.long), ("a", "b", "c"), masks)


def number(value: torch.Tensor) -> float:
    return float(value.detach())


def cross_entropy(logits: np.ndarray, label: int, smoothing: float) -> float:
    """-Σ_k q_k log p_k with q = (1 - ε) at the label and ε/K everywhere."""
    total = sum(math.exp(z) for z in logits)
    loss = 0.0
    for k, z in enumerate(logits):
        q = smoothing / len(logits) + (1 - smoothing if k == label else 0.0)
        loss -= q * math.log(math.exp(z) / total)
    return loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_identity_sums_the_parts_and_means_the_batch(output, targets, aggregate: str, smoothing: float) -> None:
    parts = [logits.detach().numpy() for logits in output["local"].logits.values()]
    expected = 0.0
    for i in range(COUNT):
        terms = [cross_entropy(part[i], int(targets.identity[i]), smoothing) for part in parts]
        expected += (sum(terms) if aggregate == "sum" else sum(terms) / len(terms)) / COUNT
    loss = LOSSES.create("identity", INFO, on="local", aggregate=aggregate, smoothing=smoothing)
    assert isinstance(loss, IdentityLoss)
    assert number(loss(output, targets)) == pytest.approx(expected, rel=1e-12)


def test_identity_of_one_slot_is_equation_6(output, targets) -> None:
    logits = output["global"].logits["global"].detach().numpy()
    expected = sum(cross_entropy(logits[i], int(targets.identity[i]), 0.0) for i in range(COUNT)) / COUNT
    for aggregate in ("sum", "mean"):
        assert number(IdentityLoss(INFO, on="global", aggregate=aggregate)(output, targets)) == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_spc_adds_what_lies_off_the_own_band(output, targets, reduction: str) -> None:
    maps = output["global"].maps["aggregation"].detach().numpy()
    band_of_row = [0, 0, 0, 1, 1]  # the rule of the bands: 5 rows in two halves, cut at ⌊5/2 + ½⌋ = 3
    terms = [
        maps[i, n, y, x]
        for i in range(COUNT)
        for n in range(SETS)
        for y in range(5)
        for x in range(3)
        if band_of_row[y] != n
    ]
    expected = sum(terms) / (COUNT if reduction == "sum" else len(terms))
    assert number(SPCLoss(INFO, reduction=reduction)(output, targets)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ignore", [None, 0])
@pytest.mark.parametrize("balanced", [False, True])
def test_segmentation_is_the_mean_over_the_pixels_of_the_map(output, targets, balanced: bool, ignore) -> None:
    logits = output["semantic"].maps["segmentation"].detach().numpy()
    per_class: dict[int, list[float]] = {}
    for i in range(COUNT):
        for y in range(8):
            for x in range(4):
                # Nearest neighbour by pixel centres: the centre of a 4×4 block lies on the pixel 2 from its edge.
                label = int(targets.parsing[i, 4 * y + 2, 4 * x + 2])
                if label != ignore:
                    per_class.setdefault(label, []).append(cross_entropy(logits[i, :, y, x], label, 0.1))
    if balanced:
        expected = sum(sum(terms) / len(terms) for terms in per_class.values()) / len(per_class)
    else:
        pixels = [term for terms in per_class.values() for term in terms]
        expected = sum(pixels) / len(pixels)
    loss = SegmentationLoss(INFO, class_balanced=balanced, ignore_index=ignore)
    assert number(loss(output, targets)) == pytest.approx(expected, rel=1e-12)


def test_masks_of_the_maps_size_are_taken_as_they_are(output, targets) -> None:
    small = targets.parsing[:, 2::4, 2::4].contiguous()
    loss = SegmentationLoss(INFO)
    resized = Targets(targets.identity, targets.camera, targets.path, small)
    assert number(loss(output, resized)) == number(loss(output, targets))


def test_a_loss_of_weight_zero_is_logged_and_moves_nothing(output, targets) -> None:
    losses = {"parts": IdentityLoss(INFO, on="local"), "spc": SPCLoss(INFO), "seg": SegmentationLoss(INFO)}
    criterion = Criterion(losses, {"parts": 2.0, "spc": 0.0, "seg": 0.5})
    values = criterion(output, targets)
    assert {name: number(value) for name, value in values.named.items()} == {
        name: number(loss(output, targets)) for name, loss in losses.items()
    }
    assert number(values.named["spc"]) > 0
    expected = 2 * number(values.named["parts"]) + 0.5 * number(values.named["seg"])
    assert number(values.total) == pytest.approx(expected)
    values.total.backward()
    gradients = {
        "spc": torch.autograd.grad(criterion(output, targets).total, output["global"].maps["aggregation"])[0],
        "seg": output["semantic"].maps["segmentation"].grad,
        "parts": output["local"].logits["part_2"].grad,
    }
    assert not gradients["spc"].any()
    assert gradients["seg"].any()
    assert gradients["parts"].any()
    assert output["global"].logits["global"].grad is None


def test_a_loss_that_waits_is_logged_and_moves_nothing_until_its_epoch(output, targets) -> None:
    losses = {"parts": IdentityLoss(INFO, on="local"), "spc": SPCLoss(INFO)}
    criterion = Criterion(losses, {"parts": 2.0, "spc": 3.0}, {"spc": 4})
    parts, spc = (number(loss(output, targets)) for loss in losses.values())
    for epoch, weight in ((None, 3), (1, 0), (3, 0), (4, 3), (5, 3)):
        criterion.epoch = epoch
        values = criterion(output, targets)
        assert number(values.named["spc"]) == spc
        assert number(values.total) == pytest.approx(2 * parts + weight * spc)
    assert criterion.never(3) == ("spc",)
    assert criterion.never(4) == ()


def test_a_criterion_without_losses_is_zero(output, targets) -> None:
    values = Criterion({}, {})(output, targets)
    assert number(values.total) == 0
    assert values.total.is_floating_point()
    assert values.named == {}


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "identity",
            {"on": "locl"},
            BuildError,
            "'locl'.*does not have. Did you mean 'local'.*local, semantic",
        ),
        ("identity", {"on": "semantic"}, BuildError, "'the loss' classifies slots, but head 'semantic' has none"),
        ("spc", {"on": "local"}, BuildError, "needs the map 'aggregation'.*'local' does not give .it gives no maps"),
        ("segmentation", {"on": "global"}, BuildError, r"needs the map 'segmentation'.*gives aggregation\)"),
        ("identity", {"on": "local", "aggregate": "max"}, UnknownOptionError, "'aggregate' was given 'max'"),
        ("spc", {"reduce": "sum"}, UnknownOptionError, "Did you mean 'reduction'"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_built(name: str, options: dict[str, Any], error, message: str) -> None:
    with pytest.raises(error, match=message):
        LOSSES.create(name, INFO, **options)


def test_a_batch_without_masks_says_where_they_come_from(output, targets) -> None:
    bare = Targets(targets.identity, targets.camera, targets.path)
    with pytest.raises(MaskError, match=r"needs part masks, but this batch has none.*data\.masks: 8, 5 or 2"):
        SegmentationLoss(INFO)(output, bare)


def test_masks_with_more_classes_than_the_map_are_refused(output, targets) -> None:
    strange = Targets(targets.identity, targets.camera, targets.path, targets.parsing + 1)
    with pytest.raises(ShapeError, match=r"a label is 4, but the logits have classes 0 … 3"):
        SegmentationLoss(INFO)(output, strange)


def test_a_head_that_gives_no_logits_is_named(output, targets) -> None:
    output.heads["local"].logits.clear()
    with pytest.raises(BuildError, match="'the loss' needs identity logits, which head 'local' does not give"):
        IdentityLoss(INFO, on="local")(output, targets)
