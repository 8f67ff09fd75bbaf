"""What embedding needs of a model, as one module with plain tensors at both ends."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import Tensor, nn

from occluded_reid.contracts import HeadOutput, ModelOutput

if TYPE_CHECKING:
    from occluded_reid.models.model import ReIDModel

__all__ = ["InferenceGraph"]


class InferenceGraph(nn.Module):
    """Images (N, 3, H, W) in, normalised; every slot (N, D_s) and, last, the visibility (N, S) out.

    Args:
        model: whose backbone and heads these are.
        copied: take copies of them, in evaluation mode and without gradients, which may be changed freely.
    """

    def __init__(self, model: ReIDModel, *, copied: bool = False) -> None:
        super().__init__()
        self._model = (model,)  # no part of this module: the heads' own names may be words of Python
        self.names = [name for name, head in model.parts.items() if not head.info.training_only]
        parts = (model.backbone, nn.ModuleList(model.parts[name] for name in self.names))
        self.backbone, self.heads = copy.deepcopy(parts) if copied else parts
        if copied:
            self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the slots in the model's order, and the visibility."""
        features = self.backbone(images)
        context: dict[str, HeadOutput] = {}
        for name, head in zip(self.names, self.heads, strict=True):
            context[name] = head(features, context, None)
        embeddings, visibility = self._model[0].slot_tensors(ModelOutput(features, context))
        # An output that is another output's tensor would lose its name in an exported graph.
        return (*(rows.clone() for rows in embeddings), visibility.clone())
