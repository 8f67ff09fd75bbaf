from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from occluded_reid.config import OptimConfig
from occluded_reid.errors import CheckpointError, TrainingError
from occluded_reid.training.optim import load_optimizer_state, make_optimizer, optimizer_state, set_rate


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_kind_and_settings(tiny: ModuleType, name: str, kind: type) -> None:
    model = tiny.make_model(tiny.tiny_recipe())
    optim = OptimConfig(type=name, lr=0.01, weight_decay=1e-4, momentum=0.8, nesterov=True)  # type: ignore[arg-type]
    optimizer = make_optimizer(model, optim)
    assert type(optimizer) is kind
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    if name == "sgd":
        assert optimizer.param_groups[0]["momentum"] == 0.8
        assert optimizer.param_groups[0]["nesterov"]


def test_each_group_keeps_its_share_of_the_rate(tiny: ModuleType) -> None:
    model = tiny.make_model(tiny.tiny_recipe())
    optimizer = make_optimizer(model, OptimConfig(lr=0.1, backbone_scale=0.1, bias_scale=2.0))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for factor in (0.5, 0.01, 1.0):
        set_rate(optimizer, factor)
        seen = 0
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[parameter]
                scale = (0.1 if name.startswith("backbone.") else 1.0) * (2.0 if name.endswith("bias") else 1.0)
                assert group["lr"] == pytest.approx(0.1 * factor * scale), name
                seen += 1
        assert seen == len(names)


def test_nothing_to_train(tiny: ModuleType) -> None:
    model = tiny.make_model(tiny.tiny_recipe()).requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameter to train"):
        make_optimizer(model, OptimConfig())


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    model(images).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    ],
)
def test_state_goes_on_bit_for_bit(make: Any) -> None:
    first, second = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()) for _ in range(2))
    for model in (first, second):
        model.to(memory_format=torch.channels_last)
    optimizer = make(first.parameters())
    step(first, optimizer, 0)
    second.load_state_dict(first.state_dict())
    other = make(second.parameters())
    load_optimizer_state(second, other, {k: v.contiguous() for k, v in optimizer_state(first, optimizer).items()})
    for seed in (1, 2):
        step(first, optimizer, seed)
        step(second, other, seed)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for state in other.state.values():  # the layout of the parameter, whatever the layout in the file
        for value in state.values():
            if value is not None and value.ndim == 4:
                assert value.is_contiguous(memory_format=torch.channels_last)


def test_foreign_state_is_refused() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(CheckpointError, match=r"'neck\.weight', which this model does not have"):
        load_optimizer_state(model, optimizer, {"neck.weight|exp_avg": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"shape \(3, 2\); the parameter has \(1, 2\)"):
        load_optimizer_state(model, optimizer, {"weight|exp_avg": torch.zeros(3, 2)})
