"""One training step: forward and backward pass with its own random numbers, checks, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from occluded_reid.config import OptimConfig
from occluded_reid.contracts import Batch, HeadOutput, ModelOutput, Targets
from occluded_reid.errors import NonFiniteLossError, TrainingError
from occluded_reid.losses.criterion import LossValues
from occluded_reid.models import ReIDModel
from occluded_reid.training.alone import Alone
from occluded_reid.training.processes import Processes

__all__ = ["Stepper", "TrainingStep", "seeded_step"]


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


class Stepper:
    """Moves a model by one batch at a time, in two halves, so that the next batch can be prepared between them.

    Args:
        model: built for training, on its device.
        optimizer: over its parameters.
        processes: the processes that train together; their accelerator wraps both for this machine.
        optim: gradient clipping.
        seed: of the run.
        note: prints a line to the user.

    Attributes:
        alone: what learns in these steps, where not all of the model does.
    """

    def __init__(
        self,
        model: ReIDModel,
        optimizer: Optimizer,
        processes: Processes,
        optim: OptimConfig,
        seed: int,
        note: Callable[[str], None],
    ) -> None:
        self.model, self.optimizer, self.processes, self.accelerator = (
            model,
            optimizer,
            processes,
            processes.accelerator,
        )
        self.clip_norm, self.seed, self._note = optim.clip_norm, seed, note
        network, wrapped = self.accelerator.prepare(TrainingStep(model), optimizer)
        self.network: nn.Module = network
        self._wrapped = wrapped
        self._gradients_checked = False
        self.alone: Alone | None = None
        self.idle: tuple[str, ...] = ()

    def backward(self, batch: Batch, epoch: int, step: int) -> LossValues:
        """Launch the forward and the backward pass.

        Raises:
            TrainingError: the recipe has no loss that reaches a parameter.
        """
        batch = batch.to(self.processes.device)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with seeded_step(self.seed, epoch, step, self.processes.index, self.processes.device):
            values = self._values(images, batch)
            if not values.total.requires_grad:
                raise TrainingError("the recipe has no loss that reaches a parameter. Add one under model.losses.")
            self.accelerator.backward(values.total)
        return values

    def _values(self, images: Tensor, batch: Batch) -> LossValues:
        try:
            values: LossValues = self.network(images, batch.targets)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                f"a batch of {len(batch)} rows ({', '.join(batch.targets.path) or 'no file names'}) is too small for "
                "batch normalisation, which compares the rows. Leave the last, incomplete batch of an epoch out, or "
                "give each process two images or more."
            ) from error
        return values

    def update(self, values: LossValues, batch: Batch, wishes: list[bool]) -> tuple[dict[str, float], list[bool]]:
        """Check losses and gradients, then move the weights.

        Args:
            values: what `backward` returned.
            batch: for its file names.
            wishes: of this process, such as to stop.

        Returns:
            Losses by name, means over the processes, and for each wish whether any process has it.

        Raises:
            NonFiniteLossError: a loss or the gradient is NaN or infinite; nothing was moved.
            TrainingError: there are several processes and some parameters got no gradient.
        """
        if not self._gradients_checked:
            self._check_gradients()
        named = {"total": values.total, **values.named}
        losses = dict(zip(named, torch.stack([v.detach().float() for v in named.values()]).tolist(), strict=True))
        self.accelerator.unscale_gradients()
        if self.alone is not None:
            self.alone.drop_gradients()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm: Tensor = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        # In fp16 an overflowing gradient is ordinary: the scaler skips the step and lowers its scale.
        bad = self.accelerator.scaler is None and not math.isfinite(float(norm))
        bad = bad or not all(math.isfinite(value) for value in losses.values())
        (any_bad, *granted), means = self.processes.share([bad, *wishes], list(losses.values()))
        if any_bad:
            raise NonFiniteLossError(
                _what_is_wrong(losses, batch) if bad else "the loss of another process is not finite."
            )
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        self._wrapped.step()
        self.model.zero_grad(set_to_none=True)
        self.processes.average_statistics(self.model)
        return dict(zip(losses, means, strict=True)), granted

    def _check_gradients(self) -> None:
        """After the first backward pass: say which parameters no loss reaches."""
        self._gradients_checked = True
        self.idle = tuple(name for name, head in self.model.heads.items() if _is_idle(head))
        idle = [name for name, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        if not idle:
            return
        parts = sorted({".".join(name.split(".")[:2]) for name in idle})
        text = f"no loss reaches {len(idle)} parameters of {', '.join(parts)}, such as '{idle[0]}'"
        if self.processes.count > 1:
            raise TrainingError(
                f"{text}. With several processes every trained parameter needs a gradient. "
                "Add the missing loss, remove the head, or freeze the parameters (requires_grad=False)."
            )
        self._note(f"{text}: they stay as they are")


def _is_idle(head: nn.Module) -> bool:
    """Whether it has parameters to be trained, and no loss has reached one of them."""
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return bool(trained) and all(parameter.grad is None for parameter in trained)


def _what_is_wrong(losses: dict[str, float], batch: Batch) -> str:
    wrong = [f"'{name}' is {value}" for name, value in losses.items() if not math.isfinite(value)]
    what = "the loss " + ", ".join(wrong) if wrong else "every loss is finite, but the gradient is not"
    files = ", ".join(batch.targets.path) or "(no file names)"
    return (
        f"{what}. The weights are as they were before this batch of {len(batch)} images: {files}. "
        "Look at these files and their masks; else lower optim.lr, warm up longer, or set optim.precision=no."
    )
