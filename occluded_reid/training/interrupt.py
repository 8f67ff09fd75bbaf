"""Ctrl-C and requests to terminate, turned into a wish that the loop grants between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

__all__ = ["StopSignals"]


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is only remembered; a second one stops at once.

    Handlers can be installed in the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def leave(self) -> NoReturn:
        """Stop as the signal would have: KeyboardInterrupt, or exit code 143 when asked to terminate."""
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._owner:
            # A worker that inherited this handler: Ctrl-C is its parent's affair, the batch in hand is still wanted.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.received is not None:
            self.leave()
        self.received = number
