"""What is told of training: a bar and a line an epoch on the screen, JSON lines on disk, TensorBoard when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from occluded_reid.errors import MissingExtraError, TrainingError
from occluded_reid.files import write_text
from occluded_reid.screen import Bar, Pulse, Screen, draws_bars
from occluded_reid.training.state import EpochRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Journal", "TrainingDisplay"]


class TrainingDisplay:
    """A bar for the epoch on stderr where that is a terminal, and a line when it ends; silent when disabled.

    Where stderr is no terminal, an epoch that takes long says every half minute how far it is.

    Args:
        epochs: of the whole run.
        steps: of one epoch.
        enabled: whether anything is shown.
    """

    def __init__(self, epochs: int, steps: int, *, enabled: bool = True) -> None:
        self.epochs, self.steps, self.enabled = epochs, steps, enabled
        self.console = Screen(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
        )
        drawn = enabled and draws_bars()
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not drawn)
        self.task = self.progress.add_task("training", total=steps, losses="")
        self._bar = Bar("training", total=steps)
        self._losses = ""
        self._pulse = Pulse(lambda: f"{self._bar.text()} {self._losses}") if enabled and not drawn else None

    def __enter__(self) -> Self:
        self.progress.start()
        if self._pulse is not None:
            self._pulse.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        if self._pulse is not None:
            self._pulse.__exit__(kind, error, trace)

    def start_epoch(self, epoch: int, done: int, rate: float) -> None:
        """Begin the bar of an epoch."""
        title = f"epoch {epoch}/{self.epochs} lr {rate:.1e}"
        self.progress.reset(self.task, total=self.steps, completed=done, description=title, losses="")
        self._bar = Bar(title, done, self.steps, before=done)
        self._losses = ""

    def advance(self, done: int, images_per_second: float, losses: Mapping[str, float]) -> None:
        """Move the bar to `done` steps; the losses are means over the epoch so far."""
        shown = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._losses = f"{images_per_second:.0f} images/s {shown}"
        self._bar.done = done
        self.progress.update(self.task, completed=done, losses=self._losses)

    def end_epoch(self, record: EpochRecord) -> None:
        """Print the line of an epoch."""
        if self.enabled:
            values = {**record.losses, **record.scores}
            self.console.say(
                f"epoch {record.epoch:>3}/{self.epochs}  lr {record.lr:.1e}  {record.seconds:.0f} s "
                f"{record.images_per_second:.0f} images/s  "
                + " ".join(f"{name} {value:.3f}" for name, value in values.items())
            )
            self._said()

    def note(self, text: str) -> None:
        """Print a line."""
        if self.enabled:
            self.console.say(text, style="yellow")
            self._said()

    def _said(self) -> None:
        if self._pulse is not None:
            self._pulse.said()


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
