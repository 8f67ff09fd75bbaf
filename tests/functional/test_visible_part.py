"""The loss of visible parts against SGAM Eq. 5 in plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import part_identity_loss, visible_part_loss


def make(count, regions, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, regions, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return logits, labels, torch.rand(count, regions, generator=generator, dtype=torch.float64)


def by_definition(logits, labels, visibility, thresholds):
    count, regions, _ = logits.shape
    total = 0.0
    for n in range(count):
        for i in range(regions):
            weight = max(float(visibility[n, i]) - thresholds[i], 0.0)
            scores = logits[n, i].tolist()
            probability = math.exp(scores[int(labels[n])]) / sum(math.exp(z) for z in scores)
            total -= weight * math.log(probability)  # Eq. 5
    return total / count


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.data())
def test_against_the_equation(count, regions, classes, data):
    logits, labels, visibility = make(count, regions, classes, seed=classes)
    thresholds = data.draw(st.lists(st.floats(0, 1), min_size=regions, max_size=regions))
    expected = by_definition(logits, labels, visibility, thresholds)
    assert float(visible_part_loss(logits, labels, visibility, thresholds)) == pytest.approx(expected, abs=1e-12)
    assert float(visible_part_loss(logits, labels, visibility, torch.tensor(thresholds))) == pytest.approx(
        expected, abs=1e-6
    )
    same = by_definition(logits, labels, visibility, [0.3] * regions)
    assert float(visible_part_loss(logits, labels, visibility, 0.3)) == pytest.approx(same, abs=1e-12)


def test_seen_in_full_it_is_the_plain_cross_entropy():
    logits, labels, visibility = make(3, 4, 5)
    plain = part_identity_loss(logits, labels)
    torch.testing.assert_close(visible_part_loss(logits, labels, torch.ones_like(visibility), 0.0), plain)


def test_at_the_threshold_a_region_says_nothing():
    logits, labels, _ = make(2, 2, 3)
    logits.requires_grad_()
    loss = visible_part_loss(logits, labels, torch.tensor([[0.2, 1.0], [0.1, 0.0]]), 0.2)
    loss.backward()
    silent = torch.tensor([[True, False], [True, True]])
    assert (logits.grad[silent] == 0).all()
    assert (logits.grad[~silent] != 0).all()
    nothing = visible_part_loss(logits, labels, torch.zeros(2, 2), 0.2)
    assert nothing.item() == 0


def test_the_gradient_reaches_the_logits_and_not_the_visibility():
    logits, labels, visibility = make(2, 3, 4)
    logits.requires_grad_()
    visibility.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: visible_part_loss(z, labels, visibility, 0.2), logits)
    visible_part_loss(logits, labels, visibility, 0.2).backward()
    assert visibility.grad is None


LOGITS, LABELS, SEEN = torch.zeros(2, 3, 4), torch.tensor([0, 3]), torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: visible_part_loss(LOGITS[0], LABELS, SEEN, 0.2), r"logits must be \(N, R, C\)"),
        (lambda: visible_part_loss(LOGITS, LABELS + 1, SEEN, 0.2), "a label is 4, but the logits have classes 0 … 3"),
        (lambda: visible_part_loss(LOGITS, LABELS, SEEN[:, :2], 0.2), r"visibility must be \(2, 3\).*got \(2, 2\)"),
        (lambda: visible_part_loss(LOGITS, LABELS, SEEN, [0.2] * 4), "thresholds must be one number, or 3"),
        (lambda: visible_part_loss(LOGITS, LABELS, SEEN, -0.1), r"thresholds must lie in \[0, 1\]"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(ShapeError, match=message):
        call()
