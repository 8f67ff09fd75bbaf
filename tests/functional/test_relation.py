"""Relational weights against loops over pairs of features (OCNet §2.2)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from occluded_reid.errors import ShapeError
from occluded_reid.functional import correct_features, relation_pairs, relation_vectors, relation_weights


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Layers:
    """FC2(ReLU(FC1(x))) with weights of its own, as tensors and as a loop."""

    def __init__(self, seen: int, hidden: int, told: int) -> None:
        self.a, self.b = random(hidden, seen, seed=10), random(hidden, seed=11)
        self.c, self.d = random(told, hidden, seed=12), random(told, seed=13)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.a.T + self.b).relu() @ self.c.T + self.d

    def loop(self, x: list[float]) -> list[float]:
        rows = zip(self.a.tolist(), self.b.tolist(), strict=True)
        hidden = [max(0.0, sum(w * v for w, v in zip(row, x, strict=True)) + b) for row, b in rows]
        rows = zip(self.c.tolist(), self.d.tolist(), strict=True)
        return [sum(w * v for w, v in zip(row, hidden, strict=True)) + b for row, b in rows]


def activated(relations: list[list[float]], activation: str) -> list[list[float]]:
    """ρ of each feature and channel to w."""
    if activation == "softmax":
        number = len(relations)
        totals = [sum(math.exp(r[c]) for r in relations) for c in range(len(relations[0]))]
        return [[number * math.exp(v) / totals[c] for c, v in enumerate(r)] for r in relations]
    factor = 2 if activation == "2sigmoid" else 1
    return [[factor / (1 + math.exp(-v)) for v in r] for r in relations]


@pytest.mark.parametrize("activation", ["sigmoid", "2sigmoid", "softmax"])
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize("number", [2, 4])
def test_pairs_are_a_loop_over_the_others(number: int, scalar: bool, include_self: bool, activation) -> None:
    features, layers = random(3, number, 5), Layers(10, 4, 1 if scalar else 5)
    got = relation_weights(features, layers, activation=activation, include_self=include_self)
    assert got.shape == (3, number, 1 if scalar else 5)
    for image, weights in zip(features.tolist(), got.tolist(), strict=True):
        relations = []
        for i in range(number):
            others = [j for j in range(number) if include_self or j != i]
            told = [layers.loop(image[i] + image[j]) for j in others]
            relations.append([sum(column) / len(others) for column in zip(*told, strict=True)])
        for mine, expected in zip(weights, activated(relations, activation), strict=True):
            assert mine == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("activation", ["sigmoid", "2sigmoid", "softmax"])
@pytest.mark.parametrize("scalar", [False, True])
def test_se_sees_all_features_at_once(scalar: bool, activation) -> None:
    features, layers = random(3, 4, 5), Layers(20, 2, 4 if scalar else 20)
    got = relation_weights(features, layers, reading="se", activation=activation)
    per_feature = 1 if scalar else 5
    assert got.shape == (3, 4, per_feature)
    for image, weights in zip(features.tolist(), got.tolist(), strict=True):
        told = layers.loop([value for feature in image for value in feature])
        relations = [told[i * per_feature : (i + 1) * per_feature] for i in range(4)]
        for mine, expected in zip(weights, activated(relations, activation), strict=True):
            assert mine == pytest.approx(expected, rel=1e-10)


def test_two_features_see_each_other_once() -> None:
    features, layers = random(1, 2, 3), Layers(6, 4, 3)
    f1, f2 = features[0].tolist()
    expected = activated([layers.loop(f1 + f2), layers.loop(f2 + f1)], "sigmoid")
    assert relation_weights(features, layers)[0].tolist() == [pytest.approx(w, rel=1e-12) for w in expected]


def test_the_order_of_the_others_does_not_matter_and_ones_own_does() -> None:
    features, layers = random(2, 4, 5), Layers(10, 4, 5)
    weights = relation_weights(features, layers)
    for order in itertools.permutations(range(4)):
        shuffled = relation_weights(features[:, list(order)], layers)
        torch.testing.assert_close(shuffled, weights[:, list(order)])
    assert not torch.allclose(weights[:, 0], weights[:, 1])


def test_pairs_name_themselves_first() -> None:
    features = random(2, 3, 4)
    pairs, with_self = relation_pairs(features), relation_pairs(features, include_self=True)
    assert pairs.shape == (2, 3, 2, 8)
    assert with_self.shape == (2, 3, 3, 8)
    for i in range(3):
        others = [j for j in range(3) if j != i]
        for place, j in enumerate(others):
            assert torch.equal(pairs[:, i, place], torch.cat([features[:, i], features[:, j]], 1))
        for j in range(3):
            assert torch.equal(with_self[:, i, j], torch.cat([features[:, i], features[:, j]], 1))


def test_softmax_weights_have_a_mean_of_1() -> None:
    weights = relation_weights(random(3, 4, 5), Layers(10, 4, 5), activation="softmax")
    torch.testing.assert_close(weights.mean(1), torch.ones(3, 5, dtype=torch.float64))


def test_layers_that_say_0_halve_or_keep_the_features() -> None:
    features = random(2, 3, 4)

    def silent(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*x.shape[:-1], 4, dtype=x.dtype)

    for activation, factor in (("sigmoid", 0.5), ("2sigmoid", 1.0), ("softmax", 1.0)):
        final = correct_features(features, relation_weights(features, silent, activation=activation))
        torch.testing.assert_close(final, factor * features.reshape(2, 12))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("scalar", [False, True])
def test_correction_is_a_product_channel_by_channel(scalar: bool, residual: bool) -> None:
    features, weights = random(2, 3, 4), random(2, 3, 1 if scalar else 4, seed=1).sigmoid()
    final = correct_features(features, weights, residual)
    assert final.shape == (2, 12)
    for n, k, d in itertools.product(range(2), range(3), range(4)):
        w = float(weights[n, k, 0 if scalar else d]) + (1 if residual else 0)
        assert float(final[n, 4 * k + d]) == pytest.approx(w * float(features[n, k, d]), rel=1e-12)


@pytest.mark.parametrize("reading", ["pair", "se"])
def test_gradients(reading) -> None:
    layers = Layers(4, 3, 2) if reading == "pair" else Layers(6, 3, 6)

    def final(features: torch.Tensor) -> torch.Tensor:
        return correct_features(features, relation_weights(features, layers, reading=reading))

    assert torch.autograd.gradcheck(final, random(2, 3, 2).requires_grad_())


def test_one_feature_has_no_other() -> None:
    with pytest.raises(ShapeError, match="1 features make no pairs; give at least two, or include_self=True"):
        relation_weights(random(2, 1, 3), Layers(6, 2, 3))
    assert relation_weights(random(2, 1, 3), Layers(6, 2, 3), include_self=True).shape == (2, 1, 3)


def test_what_does_not_fit() -> None:
    features = random(2, 3, 4)
    with pytest.raises(
        ShapeError, match=r"\(2, 3, 2, 8\) into \(2, 3, 2, 4\), or into \(2, 3, 2, 1\).*gave \(2, 3, 2, 3\)"
    ):
        relation_weights(features, Layers(8, 2, 3))
    with pytest.raises(ShapeError, match=r"\(2, 12\) into \(2, 12\), or into \(2, 3\).*gave \(2, 4\)"):
        relation_weights(features, Layers(12, 2, 4), reading="se")
    with pytest.raises(ShapeError, match=r"features must be \(N, K, D\)"):
        relation_weights(features[0], Layers(8, 2, 4))
    with pytest.raises(ShapeError, match="reading is 'rn'"):
        relation_weights(features, Layers(8, 2, 4), reading="rn")
    with pytest.raises(ShapeError, match="activation is 'tanh'"):
        relation_weights(features, Layers(8, 2, 4), activation="tanh")
    with pytest.raises(ShapeError, match=r"weights must be \(2, 3, 4\), or one number for each feature; got \(2, 4\)"):
        correct_features(features, torch.zeros(2, 4))


@pytest.mark.parametrize("include_self", [False, True])
def test_vectors_are_the_mean_over_the_others(include_self: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    found = relation_vectors(features, lambda pair: (pair @ weight.T).tanh(), include_self=include_self)
    for n in range(2):
        for i in range(3):
            for d in range(4):
                others = [j for j in range(3) if include_self or j != i]
                total = 0.0
                for j in others:
                    pair = features[n, i].tolist() + features[n, j].tolist()
                    total += math.tanh(sum(float(w) * x for w, x in zip(weight[d], pair, strict=True)))
                assert float(found[n, i, d]) == pytest.approx(total / len(others), rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda f, w: relation_vectors(f, lambda pair: (pair @ w.T).tanh(), include_self=include_self),
        (features.requires_grad_(), weight.requires_grad_()),
    )
    assert torch.equal(
        relation_weights(features, lambda pair: pair @ weight.T),
        relation_vectors(features, lambda pair: pair @ weight.T).sigmoid(),
    )
