"""The learning rate of each epoch: linear warm-up, then steps or a half cosine."""

from __future__ import annotations

import math

from occluded_reid.config import OptimConfig

__all__ = ["rate_factor"]


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
