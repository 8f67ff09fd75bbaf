"""What processes that train together must agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from occluded_reid.errors import TrainingError
from occluded_reid.files import text_bytes

__all__ = ["Processes", "make_accelerator"]


def make_accelerator(precision: str) -> Any:
    """Return an Accelerator for whatever this machine and launcher offer: a CPU, a GPU, or several under torchrun.

    Args:
        precision: "no", "fp16" or "bf16".

    Raises:
        TrainingError: fp16 is asked for where there is no GPU.
    """
    # Accelerate remembers the precision of a process's first Accelerator and refuses another. Training two recipes in
    # turn is nothing wrong, so what it remembers is dropped (the process group is kept).
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    # Batch statistics are averaged by `average_statistics`, instead of being overwritten by process 0's.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    if precision == "fp16" and not torch.cuda.is_available() and not torch.backends.mps.is_available():
        raise TrainingError("optim.precision is fp16, which needs a GPU; there is none here. Use bf16, or no.")
    return Accelerator(mixed_precision=precision, kwargs_handlers=handlers)


class Processes:
    """Agreement between the processes of one run; with one process everything returns what it was given.

    Args:
        accelerator: knows the processes and their device.
    """

    def __init__(self, accelerator: Any) -> None:
        self.count: int = accelerator.num_processes
        self.index: int = accelerator.process_index
        self.device: torch.device = accelerator.device
        self.accelerator = accelerator

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.index == 0

    def wait(self) -> None:
        """Wait for all."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def share(self, flags: Sequence[bool], values: Sequence[float] = ()) -> tuple[list[bool], list[float]]:
        """Return for each flag whether any process raised it, and for each value its mean, in one exchange."""
        if self.count == 1:
            return list(flags), list(values)
        packed = torch.tensor([*map(float, flags), *values], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(packed)
        numbers = packed.tolist()
        return [n > 0 for n in numbers[: len(flags)]], [n / self.count for n in numbers[len(flags) :]]

    def tell(self, text: str) -> str:
        """Return what the main process said; what others say is ignored."""
        if self.count == 1:
            return text
        said = torch.tensor(list(text_bytes(text) if self.is_main else b""), dtype=torch.int64, device=self.device)
        length = torch.tensor([len(said)], device=self.device)
        torch.distributed.broadcast(length, src=0)
        received = said if self.is_main else torch.empty(int(length), dtype=torch.int64, device=self.device)
        torch.distributed.broadcast(received, src=0)
        return bytes(received.tolist()).decode("utf-8", "surrogatepass")

    def average_statistics(self, model: nn.Module) -> None:
        """Average running means and variances of batch normalisation over the processes.

        Both are linear in what each batch contributes, so the average is what one process would keep that saw all the
        parts and moved its statistics by their mean.
        """
        if self.count == 1:
            return
        buffers: list[Tensor] = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.training
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        if not buffers:
            return
        packed = torch.cat([buffer.reshape(-1) for buffer in buffers])
        torch.distributed.all_reduce(packed)
        for buffer, mean in zip(buffers, torch.split(packed / self.count, [b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))
