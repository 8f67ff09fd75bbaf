"""What reaches a terminal: names of strangers are text, and work that lasts says how far it is."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.table import Table

from occluded_reid.gallery import Hit, hits_table
from occluded_reid.printable import printable
from occluded_reid.screen import Bar, Pulse, Screen, cell, draws_bars, progress_bar

EVIL = {
    "\x1b[2J": r"\x1b[2J",
    "\x1b]0;owned\x07": r"\x1b]0;owned\x07",
    "\x9b31m": r"\x9b31m",
    "one\ntwo\r\tthree": r"one\ntwo\r\tthree",
    "a\x0bb\x0cc\x08d\x7f": r"a\x0bb\x0cc\x08d\x7f",
    "\u202egpj.exe": r"\u202egpj.exe",
    "\u2066a\u2069\u200f": r"\u2066a\u2069\u200f",
    "a\u2028b\u2029c": r"a\u2028b\u2029c",
    "a\u200bb\ufeff": r"a\u200bb\ufeff",
    "caf\udce9": r"caf\xe9",  # Latin-1 in the name of a file
    "\ud83d": r"\ud83d",
}


@pytest.mark.parametrize("text", EVIL)
def test_what_a_terminal_would_obey_is_written_out(text: str) -> None:
    assert printable(text) == EVIL[text]
    assert printable(text).isprintable()


@pytest.mark.parametrize("text", ["Größe 3 × 4 → 海", "می\u200cخواهم", "👨\u200d👩\u200d👧", "a b", "[red]x", r"a\n"])
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == text


def test_line_breaks_of_ones_own_may_stay() -> None:
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_a_number_is_shown_as_text() -> None:
    assert printable(Path("a\nb")) == r"a\nb"
    assert printable(3) == "3"


@pytest.mark.parametrize("name", [*EVIL, ":bomb:.png", "[red]a[/red].png", "[/].png"])
def test_every_way_to_print_shows_names_as_they_are_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    table = Table(title=cell(name), caption=cell(name))
    table.add_column(cell(name))
    table.add_row(cell(name))
    hit = Hit(name, 0.5, 1, slot_distances={}, shared_visibility={}, identity=name, camera=1, track=name)
    screen.print(table)
    screen.say(name)
    screen.card(f"first\nsecond {name}")
    screen.print(hits_table([hit]))
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    assert screen.width > 60
    assert shown.count(printable(name)) >= (4 if "\n" in name else 5)  # the card keeps its line breaks
    assert "first\nsecond" in shown


def test_a_bar_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Bar("indexing", started=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: 160.0)
    assert bar.text() == "indexing: at work for 60 s"
    bar.total = 5000
    assert bar.text() == "indexing: 0 of 5,000 after 60 s"
    bar.done = 1250
    assert bar.text() == "indexing: 1,250 of 5,000 after 60 s, about 180 s left"
    # What a resumed run found done does not count as fast.
    assert Bar("epoch 3", done=60, total=100, before=50, started=100.0).text() == (
        "epoch 3: 60 of 100 after 60 s, about 240 s left"
    )
    bar.done = 5000
    assert bar.text() == "indexing: 5,000 of 5,000 after 60 s"


def read(file: int, lines: int) -> list[str]:
    """So many lines from a pipe, or the test's time limit."""
    with os.fdopen(file, encoding="utf-8", newline="\n") as stream:
        return [stream.readline().rstrip("\n") for _ in range(lines)]


class Elsewhere(io.StringIO):
    """A stderr whose descriptor is a pipe."""

    encoding = "cp1252"  # type: ignore[assignment]

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor


def test_a_pulse_writes_lines_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stderr", Elsewhere(writer))
    with Pulse(lambda: "how far\x1b → 1", seconds=0.01):
        assert read(reader, 3) == [r"how far\x1b \u2192 1"] * 3
    os.close(writer)


def test_a_line_of_somebody_else_puts_the_next_one_off(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = Pulse(lambda: "tick", seconds=30.0)
    for now in (100.0, 110.0):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        pulse.said()
        assert pulse._due == now + 30


def test_a_stderr_that_is_gone_ends_the_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[threading.Thread] = []

    def describe() -> str:
        asked.append(threading.current_thread())
        return "tick"

    monkeypatch.setattr(sys, "stderr", None)
    with Pulse(describe, seconds=0.001):
        while not asked:
            time.sleep(0.001)
        asked[0].join(20)
        assert not asked[0].is_alive()
    assert len(asked) == 1


def pulses() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_nothing_is_written_once_a_pulse_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left in the middle of a line that takes its time, while the descriptor is used for something else."""
    describing, go_on = threading.Event(), threading.Event()
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stderr", Elsewhere(writer))
    monkeypatch.setattr("occluded_reid.screen._PATIENCE", 0.05)

    def describe() -> str:
        describing.set()
        go_on.wait(20)
        return "too late"

    with Pulse(describe, seconds=0.001):
        assert describing.wait(20)
    (thread,) = pulses()  # whoever leaves it does not wait for ever
    go_on.set()
    thread.join(20)
    assert not thread.is_alive()
    os.close(writer)
    assert read(reader, 1) == [""]


def test_a_pulse_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stderr", Elsewhere(writer))
    for _ in range(50):
        with Pulse(lambda: "tick", seconds=0.0):
            pass
        assert not pulses()
    os.close(writer)
    os.close(reader)


def test_a_pulse_may_be_left_from_within_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stderr", Elsewhere(writer))

    def describe() -> str:
        pulse.__exit__(None, None, None)
        return "never"

    pulse = Pulse(describe, seconds=0.001)
    pulse.__enter__()
    for thread in pulses():
        thread.join(20)
    assert not pulses()
    os.close(writer)
    assert read(reader, 1) == [""]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be asked there")
def test_a_pipe_that_nobody_empties_does_not_hold_a_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    full = 0
    while True:
        try:
            full += os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    monkeypatch.setattr(sys, "stderr", Elsewhere(writer))
    described = threading.Semaphore(0)

    def describe() -> str:
        described.release()
        return "tick"

    started = time.monotonic()
    with Pulse(describe, seconds=0.001):
        for _ in range(3):
            assert described.acquire(timeout=20)
    assert time.monotonic() - started < 20
    assert not pulses()
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == b"x" * full


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_leaves_a_pulse_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occluded_reid.screen._PATIENCE", 0.05)
    with Pulse(lambda: "tick", seconds=30.0) as pulse, pulse._writing:
        child = os.fork()
        if child == 0:  # the lock is held by a thread that the child has not
            try:
                pulse.__exit__(None, None, None)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_bars_inside_bars_share_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occluded_reid.screen.PULSE", 0.01)
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stderr", Elsewhere(writer))
    assert not draws_bars()
    with os.fdopen(reader, encoding="utf-8", newline="\n") as told:

        def wait_for(words: str) -> None:
            assert any(words in line for line in iter(told.readline, ""))

        with progress_bar("outer\n") as outer:
            wait_for("outer\\n: at work")
            with progress_bar("inner") as inner:
                inner(1, 2)
                wait_for("inner: 1 of 2")
                outer(1, 3)
                wait_for("outer\\n: 1 of 3")
                inner(2, 2)
                wait_for("inner: 2 of 2")
            wait_for("outer\\n: 1 of 3")
        os.close(writer)
    with pytest.raises(ZeroDivisionError), progress_bar("broken"):
        _ = 1 / 0
    with progress_bar("again") as move:
        move(1, 1)


def test_bars_are_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert draws_bars()
    with progress_bar("out[red]er\x07") as outer, progress_bar("inner") as inner:
        outer(1, 4)
        inner(2, 4)
    drawn = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert r"out[red]er\x07" in drawn
    assert "inner" in drawn
    monkeypatch.setenv("TERM", "dumb")
    assert not draws_bars()
