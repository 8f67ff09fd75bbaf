"""Optimisers by name, their state as plain tensors named after the parameters, and each epoch's learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from occluded_reid.config import OptimConfig
from occluded_reid.errors import CheckpointError, TrainingError
from occluded_reid.models import ReIDModel

__all__ = ["load_optimizer_state", "make_optimizer", "optimizer_state", "rate_factor", "set_rate"]


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


def rate_factor(optim: OptimConfig, epoch: int) -> float:
    """Return what the learning rate is multiplied by throughout an epoch.

    Warm-up over w epochs rises linearly from `warmup_start` in epoch 1 to 1 in epoch w; with w = 1 epoch 1 is already
    at the full rate. `steps` {e: f} multiply by f from epoch e on. With `cosine_end` the rate falls along a half cosine
    from its full value in epoch max(w, 1), or in epoch `cosine_start` as if there were no warm-up, to that share of it
    in the last epoch.

    Args:
        optim: the recipe's optimisation part.
        epoch: counted from 1.

    Returns:
        A factor for the rate of every parameter group.

    Example:
        SORN: 3e-5 rising to 3e-4 in epochs 1 to 10, 3e-5 from epoch 30, 3e-6 from epoch 60 (SORN §IV-B).

        >>> sorn = OptimConfig(epochs=80, warmup_epochs=10, warmup_start=0.1, steps={30: 0.1, 60: 0.1})
        >>> [round(3e-4 * rate_factor(sorn, epoch), 8) for epoch in (1, 10, 29, 30, 60)]
        [3e-05, 0.0003, 0.0003, 3e-05, 3e-06]
    """
    factor = 1.0
    if epoch < optim.warmup_epochs:
        factor = optim.warmup_start + (1 - optim.warmup_start) * (epoch - 1) / (optim.warmup_epochs - 1)
    for start, multiplier in sorted(optim.steps.items()):
        factor *= multiplier if epoch >= start else 1.0
    full = max(optim.warmup_epochs, 1)
    if optim.cosine_end is not None and epoch >= full:
        first = full if optim.cosine_start is None else optim.cosine_start
        # An epoch past the last one (a run that was prolonged) stays at the end of the curve.
        share = min(1.0, (epoch - first) / max(1, optim.epochs - first))
        factor *= optim.cosine_end + (1 - optim.cosine_end) * (1 + math.cos(math.pi * share)) / 2
    return factor
