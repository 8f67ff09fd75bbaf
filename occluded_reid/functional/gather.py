"""Rows of all processes, for state that every process must keep alike."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_rows"]


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of their ranks; without several processes, the rows themselves.

    Memory banks and class centres are changed by every sample of the global batch: each process must see them all, or
    the processes drift apart. No gradient passes.

    Args:
        rows: (N, …), with the same shape in each process.
    """
    rows = rows.detach()
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    rows = rows.contiguous()
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows)
    return torch.cat(gathered)
