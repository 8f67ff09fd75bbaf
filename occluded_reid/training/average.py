"""An exponential moving average of a model's weights: smoother than the last step, and better on unseen people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from occluded_reid.errors import CheckpointError

__all__ = ["WeightAverage"]

_UPDATES = "updates"


class WeightAverage:
    """θ̄ ← d·θ̄ + (1 - d)·θ after every step, of all weights and running statistics (Polyak averaging).

    In the n-th step d is min(decay, (1 + n)/(10 + n)), so that the first weights, which are random, are soon forgotten.
    What belongs to the losses alone is left out.

    Args:
        model: whose weights are averaged; its tensors stay where they are.
        decay: d, below 1; 0.999 looks back on about a thousand steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = model, decay, 0
        self._kept = {name: tensor.clone() for name, tensor in self._current().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self._kept.values()), list(self._current().values()), 1 - decay)

    def take_over(self) -> None:
        """Give the model the averaged weights for good."""
        self._exchange()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights for a while, to be evaluated or saved; then its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, Tensor]:
        """Return the average, to be saved."""
        return {**self._kept, _UPDATES: torch.tensor(self.updates)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` has given.

        Raises:
            CheckpointError: the tensors are of another model, or there are none.
        """
        if set(tensors) != {*self._kept, _UPDATES}:
            raise CheckpointError(
                f"the checkpoint holds an average of {len(tensors)} tensors, this model's has {len(self._kept) + 1}. "
                "Resume with the recipe that the run was started with."
            )
        self.updates = int(tensors[_UPDATES])
        for name, kept in self._kept.items():
            kept.copy_(tensors[name])

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, tensor in self._current().items():
            own = tensor.clone()
            tensor.copy_(self._kept[name])
            self._kept[name].copy_(own)

    def _current(self) -> dict[str, Tensor]:
        return {
            name: tensor.detach()
            for name, tensor in self.model.state_dict().items()
            if tensor.is_floating_point() and not name.startswith("_criterion.")
        }
