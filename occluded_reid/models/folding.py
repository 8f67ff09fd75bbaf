"""Batch normalisations folded into the convolutions before them: fewer passes over the maps, the same numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["fold_normalizations"]


@torch.inference_mode(False)
@torch.no_grad()
def fold_normalizations(network: nn.Module, images: Tensor) -> int:
    """Fold each batch normalisation that sees the output of one convolution alone into that convolution, in place.

    In evaluation mode a batch normalisation is y = (x - μ)·γ/√(σ² + ε) + β with fixed numbers, and so it is part of the
    weights and the bias of the convolution that gives x. Which belong together is watched in one pass. Whether another
    layer looks at x as well is not seen: compare the outputs before and after.

    Args:
        network: in evaluation mode.
        images: what it takes, for that pass.

    Returns:
        How many were folded.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    before: dict[str, nn.Conv2d] = {}
    calls: Counter[nn.Module] = Counter()

    def after_convolution(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d):  # the tensor is kept, so that no other gets its id
            made[id(output)] = (module, output, output._version)

    def at_normalization(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        convolution, _, version = made.get(id(inputs[0]), (None, None, None))
        if convolution is not None and inputs[0]._version == version:  # not changed in place meanwhile
            before[names[module]] = convolution

    names = {module: name for name, module in network.named_modules()}
    handles = []
    for module in names:
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after_convolution))
        elif _is_plain(module):
            handles.append(module.register_forward_pre_hook(at_normalization))
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    shared = Counter(before.values())
    folded = 0
    for name, convolution in before.items():
        normalization: Any = network.get_submodule(name)
        if calls[convolution] == calls[normalization] == shared[convolution] == 1:
            _fold(convolution, normalization)
            rest = nn.Sequential(normalization.drop, normalization.act) if hasattr(normalization, "act") else None
            network.set_submodule(name, rest or nn.Identity())
            folded += 1
    return folded


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation with statistics of its own, and perhaps timm's activation behind it."""
    known = type(module) is nn.BatchNorm2d or isinstance(module, BatchNormAct2d)
    return known and getattr(module, "running_mean", None) is not None


def _fold(convolution: nn.Conv2d, normalization: Any) -> None:
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        normalization.running_mean,
        normalization.running_var,
        normalization.eps,
        normalization.weight,
        normalization.bias,
    )
