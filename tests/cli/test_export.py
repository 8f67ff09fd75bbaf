"""`occluded-reid export`: what it writes is a model for every command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_an_exported_model_measures_the_same(cli: Cli, trained: Path, people: Path, tmp_path: Path) -> None:
    done = cli("export", trained / "model", tmp_path / "sorn.onnx", "--json")
    assert done.code == 0, done.err
    assert done.json["slots"].keys() == {"global", "part_1", "part_2", "part_3"}
    assert done.json["bytes"] == (tmp_path / "sorn.onnx").stat().st_size
    data = ("--data", people, "--option", "own=true", "--json")
    own, exported = (cli("evaluate", path, *data) for path in (trained / "model", tmp_path / "sorn.onnx"))
    assert exported.code == 0, exported.err
    rates = [found.json["conditions"][0]["metrics"]["mAP"] for found in (own, exported)]
    assert rates[0] == pytest.approx(rates[1], abs=1e-6)


def test_the_installed_program_exports(trained: Path, tmp_path: Path) -> None:
    """In a process of its own, where modules are left out so that it starts quickly."""
    command = [sys.executable, "-m", "occluded_reid", "export", str(trained / "model"), str(tmp_path / "sorn.pt2")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "slots global" in done.stdout.replace("\n", " ")


def test_wrong_words(cli: Cli, trained: Path, tmp_path: Path) -> None:
    assert cli("export", trained / "model", tmp_path / "sorn.tflite").code == 2
    assert cli("export", tmp_path / "none", tmp_path / "sorn.onnx").code != 0
    taken = cli("export", trained / "model", tmp_path)
    assert taken.code == 2
    assert not list(tmp_path.iterdir())
