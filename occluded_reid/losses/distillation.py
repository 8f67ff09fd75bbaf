"""Distillation: a model's slots learn to say what a stronger model says of the clean, whole crop."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import similarity_distillation, teacher_distance
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["DistillationLoss"]


@LOSSES.register("distillation")
class DistillationLoss(Loss):
    """Mean over a head's slots of the distance to the teacher's embedding, and of its similarities within the batch.

    L = (1 - cos(s, t)) + similarity · CE(softmax cos(t_i, t_j)/τ, softmax cos(s_i, s_j)/τ); see
    `functional.teacher_distance` and `functional.similarity_distillation`. The teacher saw the clean crop and the model
    its augmented view, so what is learnt is to see through the occluder. No label is used.

    Args:
        info: what the builder knows.
        on: head whose embeddings, as they are matched, learn.
        width: of the teacher's embedding, where it is not the slots' own: each slot then has a linear layer of its own
            to that width, which exists in training only.
        similarity: weight of the second term; 0 leaves it out.
        temperature: τ of the second term.

    Raises:
        BuildError: the head has no slots.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str,
        width: Annotated[int, Field(ge=1)] | None = None,
        similarity: Annotated[float, Field(ge=0)] = 0.1,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
    ) -> None:
        super().__init__(info, on=on)
        if not self.head_info.slots:
            raise BuildError(f"loss '{info.name}' teaches slots, but head '{on}' has none. Put it on another head.")
        self.similarity, self.temperature = similarity, temperature
        self.project = nn.ModuleDict(
            {
                slot: nn.Linear(own, width, bias=False)
                for slot, own in self.head_info.slots.items()
                if width not in (None, own)
            }
        )

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            BuildError: there is no teacher, its embedding has another width, or the head gives no embeddings.
        """
        if targets.teacher is None:
            raise BuildError(
                f"loss '{self.name}' needs a teacher's embeddings, and the batch has none. "
                "Name one: data.teacher.model=FILE (--set data.teacher.model=FILE)."
            )
        given = output[self.on].embeddings
        if not given:
            raise BuildError(
                f"loss '{self.name}' teaches embeddings, which head '{self.on}' does not give. "
                "Put the loss on another head."
            )
        each = [self._slot(slot, rows, targets.teacher) for slot, rows in given.items()]
        return torch.stack(each).mean()

    def _slot(self, slot: str, rows: Tensor, teacher: Tensor) -> Tensor:
        projected = self.project[slot](rows) if slot in self.project else rows
        if projected.shape[1] != teacher.shape[1]:
            raise BuildError(
                f"loss '{self.name}' compares slot '{slot}' of {projected.shape[1]} numbers with a teacher of "
                f"{teacher.shape[1]}. Set its option width={teacher.shape[1]}, or make the slot as wide."
            )
        loss = teacher_distance(projected, teacher)
        if self.similarity:
            loss = loss + self.similarity * similarity_distillation(rows, teacher, self.temperature)
        return loss
