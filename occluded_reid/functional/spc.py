"""The spatial-patch contrastive loss (SORN Eq. 5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from occluded_reid.functional.bands import bands
from occluded_reid.functional.checks import require_choice, require_rank

__all__ = ["band_share", "spc_loss"]


def spc_loss(maps: Tensor, reduction: Literal["mean", "sum"] = "sum") -> Tensor:
    """Responses of each map M_n outside its own band R_nn (SORN Eq. 5).

    Args:
        maps: (N, S, h, w) in (0, 1).
        reduction: "sum" over positions and sets, then mean over the batch (Eq. 5); "mean" over all of them.

    Returns:
        Scalar; 0 for one set, which has no other band.

    Raises:
        ShapeError: maps is not (N, S, h, w), or h < S.

    Example:
        >>> maps = torch.full((1, 2, 4, 3), 0.5)
        >>> spc_loss(maps), spc_loss(maps, "mean")
        (tensor(6.), tensor(0.5000))
    """
    require_choice(reduction, ("mean", "sum"), "reduction")
    total = (maps * _off_band(maps)).sum()
    count, sets, height, width = maps.shape
    # The bands share out the rows, so each position is inside one band and off S - 1 of them.
    return total / (count if reduction == "sum" else count * max(1, (sets - 1) * height * width))


def band_share(maps: Tensor) -> Tensor:
    """Share of each map's responses ΣM_n that lies inside its own band; 1/S for a uniform map and equal bands.

    What the SPC loss is meant to raise: compare it with the share of the same model trained without that loss.

    Args:
        maps: (N, S, h, w), positive.

    Returns:
        (S,), over all images.

    Raises:
        ShapeError: maps is not (N, S, h, w), or h < S.

    Example:
        >>> band_share(torch.ones(2, 2, 4, 3))
        tensor([0.5000, 0.5000])
    """
    inside = maps * (1 - _off_band(maps))
    return inside.sum((0, 2, 3)) / maps.sum((0, 2, 3))


def _off_band(maps: Tensor) -> Tensor:
    """(S, h, 1): 1 off the own band, 0 inside it."""
    require_rank(maps, 4, "maps", "(N, S, h, w)")
    off = torch.ones(maps.shape[1], maps.shape[2], 1, dtype=maps.dtype, device=maps.device)
    for n, (start, stop) in enumerate(bands(maps.shape[2], maps.shape[1])):
        off[n, start:stop] = 0
    return off
