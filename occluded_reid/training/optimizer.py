"""Optimisers by name, and their state as plain tensors named after the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from occluded_reid.config import OptimConfig
from occluded_reid.errors import CheckpointError, TrainingError
from occluded_reid.models import ReIDModel

__all__ = ["load_optimizer_state", "make_optimizer", "optimizer_state", "set_rate"]


def make_optimizer(model: ReIDModel, optim: OptimConfig) -> Optimizer:
    """Make the recipe's optimiser over the model's parameter groups; each group remembers its full rate.

    Args:
        model: its `parameter_groups` decide rates and weight decay.
        optim: type, momentum.

    Raises:
        TrainingError: no parameter is left to train.
    """
    groups = [{**group, "full_lr": group["lr"]} for group in model.parameter_groups(optim)]
    if not any(group["params"] for group in groups):
        raise TrainingError(
            "the model has no parameter to train: all are frozen, or their rate is scaled to 0. "
            "Unfreeze some, or set optim.backbone_scale above 0."
        )
    if optim.type == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)
    kind = torch.optim.Adam if optim.type == "adam" else torch.optim.AdamW
    return kind(groups, lr=optim.lr)


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to its full rate times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors as ``parameter name|state name``; rates come from the schedule.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(layer.parameters())
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> sorted(optimizer_state(layer, optimizer))[:3]
        ['bias|exp_avg', 'bias|exp_avg_sq', 'bias|step']
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}|{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }


def load_optimizer_state(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_state` has given.

    Raises:
        CheckpointError: a tensor belongs to no parameter of this model, or has another shape.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, state = key.rpartition("|")
        parameter = parameters.get(name)
        if parameter is None:
            raise CheckpointError(
                f"the checkpoint has optimiser state for '{name}', which this model does not have. "
                "Resume with the model that the run was started with."
            )
        if state == "step":  # counters are scalars and stay on the CPU, as torch's own optimisers keep them
            optimizer.state[parameter][state] = value.clone()
            continue
        if value.shape != parameter.shape:
            raise CheckpointError(
                f"the checkpoint's optimiser state '{key}' has shape {tuple(value.shape)}; the parameter has "
                f"{tuple(parameter.shape)}. Resume with the model that the run was started with."
            )
        # The parameter's own memory layout: other strides may take another kernel, and differ in the last bit.
        optimizer.state[parameter][state] = torch.empty_like(parameter).copy_(value).detach()
