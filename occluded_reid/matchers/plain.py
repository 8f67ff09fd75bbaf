"""Matching that takes every slot for visible."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers.slots import SlotMatcher
from occluded_reid.registry import MATCHERS

__all__ = ["PlainMatcher"]


@MATCHERS.register("plain")
class PlainMatcher(SlotMatcher):
    """Mean over all slots, visible or not: how PCB, BoT and FED match.

    Args:
        metric: distance of a slot, "cosine" or "euclidean".
        weights: w_s by slot name; a slot left out weighs 1.
        normalize: Euclidean only: bring each slot to length 1 first.

    Raises:
        UnknownOptionError: an option has a value that makes no sense.

    Example:
        >>> rows = PartEmbeddings(("global",), (torch.eye(2),), torch.tensor([[1.0], [0.0]]))
        >>> PlainMatcher().distance(rows, rows)
        tensor([[0., 1.],
                [1., 0.]])
    """

    name: ClassVar[str] = "plain"

    def visibility_of(self, rows: PartEmbeddings) -> Tensor:
        """Return ones, (N, S)."""
        return torch.ones_like(rows.visibility)
