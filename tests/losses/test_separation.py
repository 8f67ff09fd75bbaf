"""The separation loss as a model calls it, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from occluded_reid import LOSSES
from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, ModelOutput, StageInfo, Targets
from occluded_reid.errors import BuildError, UnknownOptionError
from occluded_reid.losses import SeparationLoss

INFO = BuildInfo(
    stages={"last": StageInfo(8, 16)},
    input_size=(32, 16),
    num_classes=2,
    heads={
        "global": HeadInfo(slots={"global": 6}),
        "top": HeadInfo(slots={"top": 6}),
        "bottom": HeadInfo(slots={"bottom": 6}),
        "stripes": HeadInfo(slots={"part_1": 6, "part_2": 6, "part_3": 6}),
        "wide": HeadInfo(slots={"wide": 7}),
        "mask": HeadInfo(),
    },
    name="the loss",
)
TARGETS = Targets(torch.tensor([0, 1, 0]), torch.zeros(3, dtype=torch.long))


@pytest.fixture
def output() -> ModelOutput:
    """Features before and after the neck of every head, in float64."""
    source = torch.Generator().manual_seed(0)

    def random() -> torch.Tensor:
        return torch.randn(3, 6, generator=source, dtype=torch.float64).requires_grad_()

    heads = {
        name: HeadOutput(features={s: random() for s in given.slots}, embeddings={s: random() for s in given.slots})
        for name, given in INFO.heads.items()
    }
    return ModelOutput(FeatureMaps({}, torch.zeros(3, 3, 32, 16)), heads)


def loop(global_: torch.Tensor, parts: list[torch.Tensor]) -> float:
    total = 0.0
    for i in range(3):
        g = global_[i].tolist()
        for part in parts:
            p = part[i].tolist()
            dot = sum(a * b for a, b in zip(g, p, strict=True))
            total += 1 + dot / math.sqrt(sum(a * a for a in g) * sum(b * b for b in p))
    return total / 3


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("parts", [("top", "bottom"), ("stripes",), ("top", "stripes")])
def test_it_is_equation_1_over_the_slots_of_the_named_heads(output, parts: tuple[str, ...], side) -> None:
    def read(head: str) -> list[torch.Tensor]:
        given = output[head].features if side == "before" else output[head].embeddings
        return list(given.values())

    loss = LOSSES.create("separation", INFO, on="global", parts=parts, side=side)
    assert isinstance(loss, SeparationLoss)
    value = loss(output, TARGETS)
    expected = loop(read("global")[0], [feature for head in parts for feature in read(head)])
    assert float(value.detach()) == pytest.approx(expected, rel=1e-12)
    value.backward()
    assert read("global")[0].grad.any()
    assert all(feature.grad.any() for head in parts for feature in read(head))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"on": "globl"}, BuildError, "head 'globl'.*Did you mean 'global'"),
        ({"on": "stripes"}, BuildError, "one global feature, but head 'stripes' has the slots part_1, part_2, part_3"),
        ({"on": "mask"}, BuildError, "has the slots none"),
        ({"parts": ("topp",)}, BuildError, "part 'topp'.*Did you mean 'top'"),
        ({"parts": ("top", "wide")}, BuildError, r"width 6\).*parts: \['top', 'wide'\] give top 6, wide 7"),
        ({"parts": ("mask",)}, BuildError, r"parts: \['mask'\] give none"),
        ({"parts": ()}, BuildError, r"parts: \[\] give none"),
        ({"side": "inside"}, UnknownOptionError, "'side' was given 'inside'"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_built(options: dict[str, Any], error, message: str) -> None:
    with pytest.raises(error, match=message):
        LOSSES.create("separation", INFO, **options)


def test_after_the_neck_needs_a_neck(output) -> None:
    output["top"].embeddings["top"] = output["top"].features["top"]
    with pytest.raises(BuildError, match=r"head 'top' has none.*model\.heads\.top\.options\.neck: bnneck"):
        SeparationLoss(INFO, side="after")(output, TARGETS)
    assert torch.isfinite(SeparationLoss(INFO)(output, TARGETS))


def test_a_slot_that_is_not_given_is_named(output) -> None:
    output["bottom"].features.clear()
    with pytest.raises(BuildError, match="slot 'bottom' before the neck, which head 'bottom' does not give"):
        SeparationLoss(INFO)(output, TARGETS)
