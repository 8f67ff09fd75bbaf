"""The run's history on disk: JSON lines, and TensorBoard when asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from occluded_reid.errors import MissingExtraError, TrainingError
from occluded_reid.files import write_text
from occluded_reid.training.result import EpochRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Journal"]


class Journal:
    """Writes ``log.jsonl`` and, when asked, ``tensorboard/``.

    Args:
        output: the run's folder.
        tensorboard: whether to write for TensorBoard too.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(self, output: Path, *, tensorboard: bool = False) -> None:
        self.output = output
        self._writer: SummaryWriter | None = None
        self._make = _summary_writer() if tensorboard else None

    def open(self, history: Sequence[EpochRecord]) -> None:
        """Begin, or go on after the epochs of `history`: what was logged of later ones is dropped."""
        self.write(history)
        if self._make is not None:
            self._writer = self._make(str(self.output / "tensorboard"), purge_step=len(history) + 1)

    def write(self, history: Sequence[EpochRecord]) -> None:
        """Write the whole history anew: a kill leaves the old file or the new one, never half a line."""
        lines = "".join(json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in history)
        write_text(self.output / "log.jsonl", lines, TrainingError)

    def add(self, history: Sequence[EpochRecord]) -> None:
        """Log the last epoch of `history`."""
        self.write(history)
        if self._writer is None:
            return
        record = history[-1]
        scalars = {"learning_rate": record.lr, "images_per_second": record.images_per_second}
        scalars |= {f"loss/{name}": value for name, value in record.losses.items()}
        scalars |= {f"score/{name}": value for name, value in record.scores.items()}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the TensorBoard files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _summary_writer() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "TensorBoard logs need the package tensorboard: pip install 'occluded-reid[tracking]'"
        ) from error
    return SummaryWriter
