"""Tests that cannot be fooled: named losses fall, gradients reach every parameter, the parts add up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch


def test_every_trainable_parameter_gets_a_gradient(tiny, batch):
    model = tiny()
    images, targets = batch()
    model.train()
    model.criterion(model(images, targets), targets).total.backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().any())]
    assert silent == []


def test_the_total_is_the_weighted_sum_of_the_named_parts(tiny, batch):
    model = tiny()
    images, targets = batch()
    values = model.criterion(model(images, targets), targets)
    weights = {"local": 1.0, "global": 0.75, "spc": 0.5, "segmentation": 1.5}  # SORN: λ1 .75, λ2 .5, λ3 1.5
    assert set(values.named) == set(weights)
    expected = sum(weights[name] * float(value.detach()) for name, value in values.named.items())
    assert float(values.total.detach()) == pytest.approx(expected, rel=1e-6)


def test_identity_terms_start_at_the_logarithm_of_the_classes(tiny, batch):
    images, targets = batch(count=16, classes=50)
    model = tiny(50)
    model.train()
    named = model.criterion(model(images, targets), targets).named
    assert float(named["global"].detach()) == pytest.approx(math.log(50), abs=0.05)
    assert float(named["local"].detach()) / 3 == pytest.approx(math.log(50), abs=0.05)
    assert float(named["segmentation"].detach()) == pytest.approx(math.log(8), abs=0.05)


def test_each_named_loss_falls_on_a_fixed_batch(tiny, batch):
    model = tiny()
    images, targets = batch()
    # A part mask that depends on the place, so that there is something to learn from the image's layout.
    parsing = (torch.arange(96)[:, None] // 12).expand(96, 32).repeat(8, 1, 1)
    targets = replace(targets, parsing=parsing)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    first = {k: float(v.detach()) for k, v in model.criterion(model(images, targets), targets).named.items()}
    for _ in range(200):
        values = model.criterion(model(images, targets), targets)
        optimizer.zero_grad()
        values.total.backward()
        optimizer.step()
    last = {name: float(value.detach()) for name, value in values.named.items()}
    assert last["local"] < 0.1
    assert last["global"] < 0.1
    assert last["spc"] < 0.35 * first["spc"]
    # Smoothed labels have an entropy of their own below which no prediction can go: 0.60 for K = 8, ε = 0.1.
    assert last["segmentation"] < 1.0


def test_without_a_loss_nothing_else_moves_its_branch(tiny, batch):
    model = tiny(**{"model.losses.segmentation": None})
    images, targets = batch()
    model.criterion(model(images, targets), targets).total.backward()
    assert all(p.grad is None for p in model.heads["semantic"].parameters())
