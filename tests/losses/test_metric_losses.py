"""Triplet and centre loss against loops over anchors, positives and negatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from occluded_reid import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, ModelOutput, Targets
from occluded_reid.contracts import StageInfo
from occluded_reid.errors import BuildError, UnknownOptionError
from occluded_reid.functional import center_loss, moved_centers
from occluded_reid.losses import CenterLoss, TripletLoss
from occluded_reid.registry import LOSSES

INFO = BuildInfo(
    stages={"last": StageInfo(6, 16)},
    input_size=(32, 16),
    num_classes=3,
    heads={
        "global": HeadInfo(slots={"global": 6}),
        "local": HeadInfo(slots={"part_1": 6, "part_2": 6}),
        "bare": HeadInfo(),
    },
    name="the loss",
)
LABELS = [0, 0, 1, 1, 1, 2]  # identity 2 has one image: it is nobody's positive


def features(count: int = 6, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


def targets(labels: list[int] = LABELS) -> Targets:
    return Targets(torch.tensor(labels), torch.zeros(len(labels), dtype=torch.long))


def output(**heads: dict[str, Tensor]) -> ModelOutput:
    return ModelOutput(
        FeatureMaps({}, torch.zeros(6, 3, 32, 16)), {name: HeadOutput(features=each) for name, each in heads.items()}
    )


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def naive_triplet(rows: list[list[float]], labels: list[int], margin: float | None) -> float:
    terms = []
    for a, row in enumerate(rows):
        positives = [distance(row, rows[i]) for i in range(len(rows)) if i != a and labels[i] == labels[a]]
        negatives = [distance(row, rows[i]) for i in range(len(rows)) if labels[i] != labels[a]]
        if positives and negatives:
            gap = max(positives) - min(negatives)
            terms.append(math.log(1 + math.exp(gap)) if margin is None else max(0.0, gap + margin))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("margin", [0.3, 0.0, 2.0, None])
def test_triplet_is_the_loop(margin: float | None) -> None:
    rows = features()
    loss = TripletLoss(INFO, on="global", margin=margin)
    found = loss(output(**{"global": {"global": rows}}), targets())
    assert float(found.detach()) == pytest.approx(naive_triplet(rows.tolist(), LABELS, margin), rel=1e-9)


def test_triplet_of_several_slots_and_of_unit_length() -> None:
    first, second = features(), features().detach().flip(0).requires_grad_()
    unit = [(rows / rows.norm(dim=1, keepdim=True)).tolist() for rows in (first, second)]
    for aggregate, divisor in (("sum", 1), ("mean", 2)):
        loss = LOSSES.create("triplet", INFO, on="local", normalize=True, aggregate=aggregate)
        found = loss(output(local={"part_1": first, "part_2": second}), targets())
        wanted = sum(naive_triplet(rows, LABELS, 0.3) for rows in unit) / divisor
        assert float(found.detach()) == pytest.approx(wanted, rel=1e-9)


def test_triplet_gradients() -> None:
    loss = TripletLoss(INFO, on="global", margin=0.3)
    rows = features().detach().mul(0.3).requires_grad_()  # near each other, so that every anchor is within the margin
    torch.autograd.gradcheck(lambda x: loss(output(**{"global": {"global": x}}), targets()), (rows,))


def test_a_batch_without_positives_has_no_triplet() -> None:
    found = TripletLoss(INFO, on="global")(output(**{"global": {"global": features()}}), targets([0, 1, 2, 3, 4, 5]))
    assert float(found.detach()) == 0.0


def test_center_loss_is_the_loop_and_its_centres_take_a_gradient_step() -> None:
    rows, labels = features(), torch.tensor(LABELS)
    centers = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    naive = sum((rows[i, d] - centers[labels[i], d]).item() ** 2 for i in range(6) for d in range(6)) / len(LABELS)
    value = center_loss(rows, centers, labels)
    assert float(value.detach()) == pytest.approx(naive, rel=1e-12)
    value.backward()
    assert centers.grad is not None
    stepped = centers.detach() - 0.5 * centers.grad
    torch.testing.assert_close(moved_centers(centers.detach(), rows.detach(), labels, 0.5), stepped)
    torch.testing.assert_close(stepped[3], centers.detach()[3])  # nobody of identity 3 was there
    torch.autograd.gradcheck(lambda x: center_loss(x, centers.detach(), labels), (rows,))


def test_centres_move_in_training_only_and_after_the_loss() -> None:
    loss = CenterLoss(INFO, on="global", rate=0.5)
    before, rows = loss.centers.clone(), features().float()
    given = output(**{"global": {"global": rows}})
    loss.eval()
    first = loss(given, targets())
    assert torch.equal(loss.centers, before)
    loss.train()
    assert torch.equal(loss(given, targets()), first)
    torch.testing.assert_close(loss.centers, moved_centers(before, rows.detach(), torch.tensor(LABELS), 0.5))
    assert float(loss(given, targets()).detach()) < float(first.detach())


def test_centres_stay_where_they_are_when_the_loss_is_not_finite() -> None:
    loss = CenterLoss(INFO, on="global")
    before, rows = loss.centers.clone(), features().float().detach()
    rows[0, 0] = float("nan")
    assert torch.isnan(loss(output(**{"global": {"global": rows}}), targets()))
    assert torch.equal(loss.centers, before)


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        ("triplet", {"on": "bare"}, BuildError, "has none"),
        ("triplet", {"on": "globl"}, BuildError, "Did you mean 'global'"),
        ("triplet", {"on": "global", "margin": -1.0}, UnknownOptionError, "margin"),
        ("center", {"on": "local"}, BuildError, "part_1, part_2"),
        ("center", {"on": "bare"}, BuildError, "none"),
    ],
)
def test_what_cannot_be(kind: str, options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        LOSSES.create(kind, INFO, **options)


@pytest.mark.parametrize("kind", ["triplet", "center"])
def test_a_head_without_features_is_named(kind: str) -> None:
    loss = LOSSES.create(kind, INFO, on="global")
    with pytest.raises(BuildError, match="head 'global' does not give"):
        loss(output(**{"global": {}}), targets())
