"""The matcher, announced by entry point alone."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from occluded_reid import PartEmbeddings
from occluded_reid.matchers import SlotMatcher


class WaistOnlyMatcher(SlotMatcher):
    """Counts the waist, and every other slot only a little.

    Args:
        metric: distance of a slot.
        others: visibility that every other slot is given.
    """

    name: ClassVar[str] = "waist_only"

    def __init__(self, *, metric: Literal["cosine", "euclidean"] = "cosine", others: float = 0.0) -> None:
        super().__init__(metric=metric)
        self.others = others

    @property
    def options(self) -> dict[str, Any]:
        """The options that make a difference."""
        return {**super().options, "others": self.others}

    def visibility_of(self, rows: PartEmbeddings) -> Tensor:
        """Return 1 for the waist and `others` for the rest, (N, S)."""
        counted = [1.0 if name == "waist" else self.others for name in rows.names]
        return torch.tensor(counted).expand(len(rows), -1)
