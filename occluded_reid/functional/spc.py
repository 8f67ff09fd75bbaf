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
    """
    require_choice(reduction, ("mean", "sum"), "reduction")
    off = _off_band(maps)
    total = (maps * off).sum()
    per_image = maps.shape[0] if reduction == "sum" else maps.shape[0] * max(1.0, float(off.sum()))
    return total / per_image


def band_share(maps: Tensor) -> Tensor:
    """Share of each map's responses that lies inside its own band; 1/S for a uniform map.

    Args:
        maps: (N, S, h, w), positive.

    Returns:
        (S,), over all images.
    """
    inside = maps * (1 - _off_band(maps))
    return inside.sum((0, 2, 3)) / maps.sum((0, 2, 3))


def _off_band(maps: Tensor) -> Tensor:
    """(S, h, w): 1 off the own band, 0 inside it."""
    require_rank(maps, 4, "maps", "(N, S, h, w)")
    off = torch.ones(maps.shape[1:], dtype=maps.dtype, device=maps.device)
    for n, (start, stop) in enumerate(bands(maps.shape[2], maps.shape[1])):
        off[n, start:stop] = 0
    return off
