"""Label-smoothed segmentation against SORN Eq. 7-9 in plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import smoothed_segmentation_loss


def by_definition(logits, labels, smoothing, class_balanced=False, ignore=None):
    count, classes, height, width = logits.shape
    by_class = {}
    for i in range(count):
        for y in range(height):
            for x in range(width):
                label = int(labels[i, y, x])
                if label == ignore:
                    continue
                scores = [float(logits[i, k, y, x]) for k in range(classes)]
                total = sum(math.exp(s) for s in scores)
                loss = 0.0
                for k in range(classes):
                    q = 1 - (classes - 1) / classes * smoothing if k == label else smoothing / classes  # Eq. 9
                    loss -= q * math.log(math.exp(scores[k]) / total)  # Eq. 7
                by_class.setdefault(label, []).append(loss)
    if not by_class:
        return 0.0
    if class_balanced:
        return sum(sum(losses) / len(losses) for losses in by_class.values()) / len(by_class)
    return sum(sum(losses) for losses in by_class.values()) / sum(len(losses) for losses in by_class.values())


def make(count, classes, height, width, seed, ignore=None):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, height, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count, height, width), generator=generator)
    if ignore is not None:
        labels[torch.rand(labels.shape, generator=generator) < 0.4] = ignore
    return logits, labels


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from([None, 255, -1]),
    st.integers(0, 1000),
)
def test_against_the_equations(count, classes, height, width, smoothing, balanced, ignore, seed):
    logits, labels = make(count, classes, height, width, seed, ignore)
    loss = smoothed_segmentation_loss(logits, labels, smoothing, class_balanced=balanced, ignore_index=ignore)
    assert float(loss) == pytest.approx(by_definition(logits, labels, smoothing, balanced, ignore), abs=1e-10)


def test_the_papers_smoothing_is_the_default():
    logits, labels = make(2, 8, 3, 2, seed=0)
    assert float(smoothed_segmentation_loss(logits, labels)) == pytest.approx(by_definition(logits, labels, 0.1))
    assert float(smoothed_segmentation_loss(logits, labels, 0)) == pytest.approx(by_definition(logits, labels, 0.0))


def test_an_ignored_class_may_be_an_ordinary_one():
    logits, labels = make(2, 3, 3, 2, seed=4)
    expected = by_definition(logits, labels, 0.1, ignore=0)
    assert float(smoothed_segmentation_loss(logits, labels, ignore_index=0)) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_of_labels(dtype):
    logits, labels = make(1, 4, 2, 3, seed=1)
    assert float(smoothed_segmentation_loss(logits, labels.to(dtype))) == pytest.approx(
        by_definition(logits, labels, 0.1)
    )


def test_everything_ignored_is_zero_with_a_gradient():
    logits = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for balanced in (False, True):
        loss = smoothed_segmentation_loss(logits, torch.full((1, 2, 2), 255), ignore_index=255, class_balanced=balanced)
        loss.backward()
        assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("balanced", [False, True])
def test_gradient(balanced):
    logits, labels = make(2, 3, 2, 2, seed=2, ignore=9)
    assert torch.autograd.gradcheck(
        lambda x: smoothed_segmentation_loss(x, labels, class_balanced=balanced, ignore_index=9),
        logits.requires_grad_(),
    )


def test_refused():
    logits, labels = make(1, 8, 2, 2, seed=3)
    labels[0, 1, 1] = 9
    with pytest.raises(ShapeError, match=r"a label is 9, but the logits have classes 0 … 7. Map the labels first"):
        smoothed_segmentation_loss(logits, labels)
    labels[0, 1, 1] = -1
    with pytest.raises(ShapeError, match="a label is -1"):
        smoothed_segmentation_loss(logits, labels)
    with pytest.raises(ShapeError, match=r"labels must be integers of shape \(1, 2, 2\).*\(1, 4, 4\)"):
        smoothed_segmentation_loss(logits, torch.zeros(1, 4, 4, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"labels must be integers.*float32"):
        smoothed_segmentation_loss(logits, torch.zeros(1, 2, 2))
    with pytest.raises(ShapeError, match=r"logits must be \(N, K, h, w\)"):
        smoothed_segmentation_loss(logits[0], labels)
