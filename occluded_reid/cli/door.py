"""What every command goes through: streams that can write anything, one message for what failed, and the exit code."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TextIO, cast

import typer

from occluded_reid.errors import BuildError, OccludedReIDError, RecipeError, UnknownNameError, UnknownOptionError
from occluded_reid.printable import printable

__all__ = ["exit_code", "harmless_output"]

DONE, FAILED, WRONG_USAGE, STOPPED = 0, 1, 2, 130

_WRONG_WORDS = (RecipeError, UnknownNameError, UnknownOptionError, BuildError)
"""Errors about a name, a key or a value that the user has written: wrong usage, not work that failed."""


def exit_code(command: Callable[[], Any]) -> int:
    """Run a command and say how it went: 0 done, 1 the work failed, 2 wrong usage, 130 stopped by the user.

    What failed is one message on stderr. A mistake of this program itself is raised on, with its traceback.
    """
    interrupted = _Interrupted()
    try:
        with interrupted:
            code = command()
            sys.stdout.flush()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        if interrupted.happened or isinstance(error, KeyboardInterrupt):
            code = STOPPED  # also where some library has made an error of its own of the interrupt
        elif (code := _explained(error)) is None:
            raise
    if code == STOPPED:
        _say("Stopped.", "yellow")
    return _flushed(code if isinstance(code, int) else DONE)


@contextmanager
def harmless_output() -> Iterator[None]:
    """Let both streams escape what their encoding has not, and make one harmless line of each warning and log record.

    A stream that is closed swallows what is written to it.
    """
    before = (sys.stdout, sys.stderr)
    errors = [_writing_anything("stdout"), _writing_anything("stderr")]
    log = _Log(logging.WARNING)
    logger = logging.getLogger("occluded_reid")
    logger.addHandler(log)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(log)
        sys.stdout, sys.stderr = before
        for stream, former in zip(before, errors, strict=True):
            if former is not None:
                cast("io.TextIOWrapper", stream).reconfigure(errors=former)


def _writing_anything(name: str) -> str | None:
    """Make a standard stream escape what it cannot encode; return how it treated that before, None if left alone."""
    stream = getattr(sys, name)
    if stream is None:  # closed by whoever started the program
        setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if not isinstance(stream, io.TextIOWrapper):
        return None
    former = stream.errors
    stream.reconfigure(errors="backslashreplace")
    return former


class _Usage(Protocol):
    """An error of the argument parser."""

    ctx: Any
    exit_code: int

    def format_message(self) -> str:
        """What is wrong."""

    def show(self) -> None:
        """Write it to stderr."""


# The parser's exceptions stand in different packages in different versions of typer; their ancestors' names are stable.
_PARSER_ERRORS = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _explained(error: BaseException) -> int | None:
    """Write what went wrong to stderr; return the exit code, None for what is nobody's fault but this program's."""
    if isinstance(error, _PARSER_ERRORS):
        return _explained_usage(cast("_Usage", error))
    if isinstance(error, typer.Abort):
        _say("Nothing was done.", "yellow")
        return FAILED
    if isinstance(error, OccludedReIDError):
        _say(f"{type(error).__name__}: {error}", "red")
        return WRONG_USAGE if isinstance(error, _WRONG_WORDS) else FAILED
    if isinstance(error, BrokenPipeError):
        return FAILED  # whoever read the output has enough
    if isinstance(error, OSError):
        what = "the output could not be written" if error.filename is None else f"'{error.filename}'"
        _say(f"{type(error).__name__}: {what}: {error.strerror or error}", "red")
        return FAILED
    if isinstance(error, MemoryError):
        _say("MemoryError: there is not enough memory for this. Give it less at a time, or a smaller model.", "red")
        return FAILED
    return None


def _explained_usage(error: _Usage) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return WRONG_USAGE
    context = getattr(error, "ctx", None)
    if context is not None:
        _say(context.get_usage())
        _say(f"Try '{context.command_path} --help' for help.")
    _say(f"Error: {error.format_message()}", "red")
    return error.exit_code


def _say(text: str, color: str | None = None) -> None:
    """Write a message to stderr, further lines of it indented: a name with a line break cannot pass for a message."""
    first, *others = (printable(line) for line in text.split("\n"))
    lines = [first, *(line if line.startswith("  ") else f"  {line}" for line in others)]
    with suppress(OSError):  # nothing can be said where stderr is full or gone; the exit code says it
        typer.secho("\n".join(lines), fg=color, err=True)


def _flushed(code: int) -> int:
    """Write out what is left; a stream that takes no more is replaced, so that Python's own farewell finds it empty."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            if code == DONE:
                code = FAILED
                if error.errno != errno.EPIPE:
                    _say(f"{type(error).__name__}: the output could not be written: {error.strerror}", "red")
            _drop(stream)
    return code


def _drop(stream: TextIO) -> None:
    """Lead a stream that cannot be written to into nothing."""
    with suppress(OSError, ValueError):  # it has no descriptor
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


class _Interrupted:
    """While entered, remembers that Ctrl-C was pressed, beside raising KeyboardInterrupt.

    Handlers can be installed in the main thread only, and an interrupt that is ignored (`nohup`, `&`) stays so.
    """

    def __init__(self) -> None:
        self.happened = False

    def __enter__(self) -> None:
        self._ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with suppress(ValueError):  # not the main thread
            if self._ours:
                signal.signal(signal.SIGINT, self._handle)

    def __exit__(self, *of: object) -> None:
        with suppress(ValueError):
            if self._ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.happened = True
        signal.default_int_handler(number, frame)


class _Log(logging.Handler):
    """Writes records of this library's log to stderr, as harmless lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        _say(f"{record.levelname.lower()}: {record.getMessage()}", "yellow")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning to stderr as one harmless line; where in the code it arose helps nobody here."""
    del category, filename, lineno, file, line
    _say(f"warning: {message}", "yellow")
