"""Streams and exit codes of the program, in processes of its own: what a shell, a pipe or a code page does to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid.cli.door import exit_code
from occluded_reid.errors import DataError, RecipeError

PROGRAM = [sys.executable, "-m", "occluded_reid"]


def program(
    *arguments: object, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m occluded_reid`."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [*PROGRAM, *map(os.fsencode, map(str, arguments))]
    return subprocess.run(command, env={**os.environ, **(environment or {})}, timeout=300, check=False, **settings)


def test_python_m_is_the_command() -> None:
    found = program("--help")
    assert found.returncode == 0
    assert b"Usage: occluded-reid [OPTIONS] COMMAND" in found.stdout


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
@pytest.mark.parametrize("wanted", [["data", "show"], ["data", "show", "cuhk03", "--json"], ["--help"]])
def test_another_code_page_escapes_what_it_has_not(environment: dict[str, str], wanted: list[str]) -> None:
    found = program(*wanted, environment=environment)
    assert (found.returncode, found.stderr) == (0, b"")
    shown = found.stdout.decode("cp1252")
    assert shown.strip()
    if "--json" in wanted:
        assert json.loads(shown) == json.loads(program(*wanted, environment={"PYTHONIOENCODING": "utf-8"}).stdout)


@pytest.mark.parametrize("name", [b"a\x1b[2J", b"a\x07", "\u202egpj".encode(), b"caf\xe9", b"a\nDataError: no"])
def test_an_error_shows_the_name_and_obeys_nothing(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).mkdir()
    command = [*map(os.fsencode, [*PROGRAM, "data", "verify", "market1501"]), os.fsencode(tmp_path) + b"/" + name]
    found = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert found.returncode == 1
    lines = found.stderr.decode().splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("DataError: the folder '")
    assert not any(line.startswith("DataError") for line in lines[1:])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("wanted", [["data", "show"], ["data", "show", "--json"], ["--version"], ["list", "heads"]])
def test_output_to_a_full_device_is_one_message(wanted: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        found = program(*wanted, stdout=full)
        assert found.returncode == 1
        (line,) = found.stderr.decode().splitlines()
        assert line == "OSError: the output could not be written: No space left on device"
        assert program(*wanted, stdout=full, stderr=full).returncode == 1
        assert program("nonsense", stderr=full).returncode == 2


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        for wanted in (["list", "backbones"], ["data", "show"], ["data", "show", "--json"]):
            found = program(*wanted, stdout=pipe)
            assert (found.returncode, found.stderr) == (1, b"")


def test_closed_streams() -> None:
    line = f'"{sys.executable}" -m occluded_reid data show >&- 2>&-'
    assert subprocess.run(["sh", "-c", line], timeout=300, check=False).returncode == 0


@pytest.mark.parametrize("module", ["occluded_reid.cli.app", "timm.models"])
def test_ctrl_c_while_importing(tmp_path: Path, module: str) -> None:
    """The interrupt comes in the middle of an import, of our own commands or of what they need."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n",
        encoding="utf-8",
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = program("list", "backbones", environment={"PYTHONPATH": paths})
    assert (found.returncode, found.stdout, found.stderr) == (130, b"", b"Stopped.\n")


def test_ctrl_c_that_a_library_makes_an_error_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as cause:
            raise ImportError("initialization failed") from cause

    assert exit_code(command) == 130
    assert capfd.readouterr().err == "Stopped.\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_interrupt_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert exit_code(lambda: os.kill(os.getpid(), signal.SIGINT)) == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("no"), 1, "DataError: no\n"),
        (RecipeError("optim.epoch: no\n  such key\nat all"), 2, "RecipeError: optim.epoch: no\n  such key\n  at all\n"),
        (PermissionError(13, "Permission denied", "x\x1b"), 1, "PermissionError: 'x\\x1b': Permission denied\n"),
        (
            OSError(28, "No space left on device"),
            1,
            "OSError: the output could not be written: No space left on device\n",
        ),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
        (KeyboardInterrupt(), 130, "Stopped.\n"),
        (SystemExit(143), 143, ""),
        (SystemExit("text"), 1, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_exit_codes(capfd: pytest.CaptureFixture[str], error: BaseException, code: int, message: str) -> None:
    assert exit_code(failing(error)) == code
    assert capfd.readouterr().err == message


def test_no_memory(capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code(failing(MemoryError())) == 1
    assert capfd.readouterr().err.startswith("MemoryError: there is not enough memory")


def test_a_mistake_of_the_program_itself_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code(failing(ZeroDivisionError()))
