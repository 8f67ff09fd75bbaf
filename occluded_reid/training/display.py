"""What a person sees of training: a bar with rate and named losses, and one line an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from occluded_reid.screen import Bar, Pulse, Screen, draws_bars
from occluded_reid.training.result import EpochRecord

__all__ = ["TrainingDisplay"]


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
