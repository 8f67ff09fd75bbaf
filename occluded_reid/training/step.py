"""One training step as a module, and the random numbers it may draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from occluded_reid.contracts import HeadOutput, ModelOutput, Targets
from occluded_reid.losses.criterion import LossValues
from occluded_reid.models import ReIDModel

__all__ = ["TrainingStep", "seeded_step"]


class TrainingStep(nn.Module):
    """Model and criterion as one module: a wrapper for several processes or mixed precision sees one forward pass.

    The losses are computed in float32 whatever the precision of the network: Σ over positions and log Σ exp overflow or
    lose digits in half precision.

    Args:
        model: built for training.
    """

    def __init__(self, model: ReIDModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, targets: Targets) -> LossValues:
        """Return the total loss and the named parts."""
        output: ModelOutput = self.model(images, targets)
        with torch.autocast(images.device.type, enabled=False):
            values: LossValues = self.model.criterion(_in_float32(output), targets)
        return values


@contextmanager
def seeded_step(seed: int, epoch: int, step: int, process: int, device: torch.device) -> Iterator[None]:
    """Let dropout and stochastic depth draw from a generator decided by (seed, epoch, step, process).

    A resumed run then draws what the unbroken one would have drawn, with no generator's state in any checkpoint. The
    global generators are put back afterwards.

    Args:
        seed: of the run.
        epoch: counted from 1.
        step: within the epoch, counted from 0.
        process: rank, so that processes do not draw alike.
        device: where the model runs.
    """
    state = np.random.SeedSequence([seed, epoch, step, process]).generate_state(1, np.uint64)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(int(state[0] >> np.uint64(1)))
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(int(state[0] >> np.uint64(1)))
        yield


def _in_float32(output: ModelOutput) -> ModelOutput:
    """Cast what heads give; the backbone's maps are large and seldom read by a loss, so they stay as they are."""

    def cast(head: HeadOutput) -> HeadOutput:
        return replace(head, **{name: {key: t.float() for key, t in part.items()} for name, part in vars(head).items()})

    return ModelOutput(output.features, {name: cast(head) for name, head in output.heads.items()})
