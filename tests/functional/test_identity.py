"""Identity losses and the whole loss against SORN Eq. 1, 6 and 10 in plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import identity_loss, part_identity_loss, sorn_total


def by_definition(logits, labels, smoothing=0.0):
    count, parts, classes = logits.shape
    total = 0.0
    for i in range(count):
        for p in range(parts):
            scores = [float(logits[i, p, j]) for j in range(classes)]
            everything = sum(math.exp(s) for s in scores)
            for j in range(classes):
                q = (1.0 - smoothing if j == int(labels[i]) else 0.0) + smoothing / classes
                total -= q * math.log(math.exp(scores[j]) / everything)  # Eq. 1
    return total / count


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 99))
def test_against_the_equations(count, parts, classes, smoothing, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, parts, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    expected = by_definition(logits, labels, smoothing)
    assert float(part_identity_loss(logits, labels, smoothing)) == pytest.approx(expected, abs=1e-12)
    whole = by_definition(logits[:, :1], labels, smoothing)
    assert float(identity_loss(logits[:, 0], labels, smoothing)) == pytest.approx(whole, abs=1e-12)  # Eq. 6


def test_each_part_starts_at_the_logarithm_of_the_classes():
    assert float(part_identity_loss(torch.zeros(4, 3, 751), torch.arange(4))) == pytest.approx(3 * math.log(751))


def test_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda x: part_identity_loss(x, labels, 0.1), logits)
    assert torch.autograd.gradcheck(lambda x: identity_loss(x[:, 0], labels), logits)


def test_total():
    terms = [torch.tensor(v, dtype=torch.float64) for v in (1.0, 10.0, 100.0, 1000.0)]
    assert float(sorn_total(*terms)) == 1 + 0.75 * 10 + 0.5 * 100 + 1.5 * 1000
    assert float(sorn_total(*terms, weights=(1, 0, 2))) == 1 + 10 + 2000
    with pytest.raises(ShapeError, match="λ1, λ2, λ3"):
        sorn_total(*terms, weights=(1, 2))


def test_refused():
    with pytest.raises(ShapeError, match="a label is 3, but the logits have classes 0 … 2"):
        part_identity_loss(torch.zeros(2, 2, 3), torch.tensor([0, 3]))
    with pytest.raises(ShapeError, match="a label is -100"):  # torch would leave it out in silence
        identity_loss(torch.zeros(2, 3), torch.tensor([0, -100]))
    with pytest.raises(ShapeError, match=r"labels must be integers of shape \(2,\).*\(3,\)"):
        part_identity_loss(torch.zeros(2, 2, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"logits must be \(N, P, C\)"):
        part_identity_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"logits must be \(N, C\)"):
        identity_loss(torch.zeros(2, 1, 3), torch.zeros(2, dtype=torch.long))
