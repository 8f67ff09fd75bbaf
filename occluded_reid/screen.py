"""What a person sees: a console that obeys nobody's names, and one progress display for every long piece of work.

On a terminal work draws a bar; elsewhere (a log, `nohup`) it says every half minute how far it is.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape

from occluded_reid.printable import printable

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress
    from rich.text import Text

__all__ = ["PULSE", "Bar", "Pulse", "Screen", "cell", "draws_bars", "progress_bar"]

PULSE = 30.0
"""Seconds between two lines about unfinished work, where there is no terminal."""

_PATIENCE = 2.0  # seconds that the end of a display waits for its thread, which is always enough
_LONGEST_LINE = 512  # bytes that every system takes at once where it takes any (POSIX's least PIPE_BUF)
_LINES = "\n\t"  # what our own texts may hold of the controls


class Screen(Console):
    """A console on stdout, or on stderr, that writes control characters out and knows no emoji codes.

    Names are text: `:bomb:.png` and `[red].png` are shown as they are called. `say` writes line breaks out too, as a
    name may hold one; `print` keeps them, for cards and tables of our own.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn text into styled text, controls written out; every text and every cell of a table comes through here."""
        return super().render_str(printable(text, keep=_LINES), **options)

    def say(self, text: object, *, style: str | None = None) -> None:
        """Print one line, whatever is in it: no markup, no wrapping, no second line."""
        self.print(printable(text), style=style, markup=False, soft_wrap=True)

    def card(self, text: str) -> None:
        """Print several lines of our own, as they are: no markup, no wrapping."""
        self.print(text, markup=False, soft_wrap=True)


def cell(text: object) -> str:
    """Return markup that shows a name as it is called, on one line, for a cell or a title of a table."""
    return escape(printable(text))


@dataclass
class Bar:
    """A piece of work and how far it is.

    Attributes:
        title: what is done.
        done: how much of it.
        total: of how much; None while it is unknown.
        before: how much of it was done already when it started.
        started: when, by the monotonic clock.
    """

    title: str
    done: int = 0
    total: int | None = None
    before: int = 0
    started: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        """Say how far it is, in words: ``indexing: 1,200 of 5,000 after 60 s, about 190 s left``."""
        seconds = time.monotonic() - self.started
        if not self.total:
            return f"{self.title}: at work for {seconds:.0f} s"
        moved, missing = self.done - self.before, self.total - self.done
        left = f", about {seconds * missing / moved:.0f} s left" if moved > 0 and missing > 0 else ""
        return f"{self.title}: {self.done:,} of {self.total:,} after {seconds:.0f} s{left}"


class Pulse:
    """While entered, writes a line to stderr every half minute; a line that nobody reads in time is left out.

    Nothing is written once it is left, whatever stderr's descriptor is used for from then on.

    Args:
        describe: gives the line; it is called in a thread of its own.
        seconds: between two lines; None is half a minute.
    """

    def __init__(self, describe: Callable[[], str], seconds: float | None = None) -> None:
        self._describe, self._seconds = describe, PULSE if seconds is None else seconds
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._due = 0.0

    def __enter__(self) -> Self:
        self.said()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Bounded: a process that was forked in the middle of a line inherits a lock that nobody will open.
        held = self._writing.acquire(timeout=_PATIENCE)
        self._ended.set()
        if held:
            self._writing.release()
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def said(self) -> None:
        """Tell that a line has been written by somebody else; the next one is due half a minute later."""
        self._due = time.monotonic() + self._seconds

    def _run(self) -> None:
        while not self._ended.wait(max(0.0, self._due - time.monotonic())):
            if time.monotonic() < self._due:
                continue
            self.said()
            # Straight to the descriptor: a process forked meanwhile must not inherit a lock of Python's own streams.
            try:
                line = printable(self._describe()).encode(sys.stderr.encoding or "utf-8", "backslashreplace")
                with self._writing:
                    if not self._ended.is_set() and _takes_more(sys.stderr.fileno()):
                        os.write(sys.stderr.fileno(), line[: _LONGEST_LINE - 1] + b"\n")
            except BlockingIOError:
                continue
            except (OSError, ValueError, AttributeError):
                return  # nobody can read it any more: stderr is closed, full, or no file


def _takes_more(descriptor: int) -> bool:
    """Whether a short line can be written at once: a pipe that nobody empties would hold the writer for ever."""
    if sys.platform == "win32":  # there, only sockets can be asked
        return True
    return bool(select.select([], [descriptor], [], 0)[1])


def draws_bars() -> bool:
    """Say whether stderr is a terminal that bars can be drawn on."""
    return bool(sys.stderr and sys.stderr.isatty()) and Screen(stderr=True).is_interactive


class _Lines:
    """Bars as lines of text: the one that moved last is told."""

    def __init__(self) -> None:
        self._bars: list[Bar] = []
        self._pulse = Pulse(self._text)

    def __enter__(self) -> Self:
        self._pulse.__enter__()
        return self

    def __exit__(self, *of: Any) -> None:
        self._pulse.__exit__(*of)

    def _text(self) -> str:
        bars = tuple(self._bars)  # another thread opens and closes them
        return bars[-1].text() if bars else "at work"

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        told = Bar(title)
        self._bars.append(told)

        def move(done: int, total: int) -> None:
            if self._bars[-1] is not told:  # bars of one display may take turns
                self._bars.remove(told)
                self._bars.append(told)
            told.done, told.total = done, total

        try:
            yield move
        finally:
            self._bars.remove(told)


class _Drawn:
    """Bars on a terminal, one below the other, gone when the work is done."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress: Progress = Progress(*columns, console=Screen(stderr=True), transient=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *of: Any) -> None:
        self._progress.stop()

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        task = self._progress.add_task(title, total=None)
        try:
            yield lambda done, total: self._progress.update(task, completed=done, total=total)
        finally:
            self._progress.remove_task(task)


_display: list[_Lines | _Drawn] = []  # the one that is open; bars inside bars share it


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback (done, total) that moves a bar on stderr.

    Where stderr is no terminal nothing is drawn; work that takes longer than half a minute says how far it is, every
    half minute. Bars may be opened within bars.
    """
    if _display:
        with _display[-1].bar(printable(title)) as move:
            yield move
        return
    display = _Drawn() if draws_bars() else _Lines()
    _display.append(display)
    try:
        with display, display.bar(printable(title)) as move:
            yield move
    finally:
        _display.remove(display)
