"""Help pages on a narrow terminal, and what the shell is offered."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from occluded_reid import DATASETS, PARSERS, list_models
from occluded_reid.cli import app
from occluded_reid.cli.completing import complete_dataset, complete_parser_recipe, complete_recipe, complete_teacher
from occluded_reid.cli.pages import help_page


def pages() -> Iterator[tuple[str, Any]]:
    """Every command and every group, with the context that its help is written in."""
    top = typer.main.get_command(app)
    context: Any = top.make_context("occluded-reid", [], resilient_parsing=True)
    yield "", (top, context)
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        yield name, (command, inner)
        for sub, below in getattr(command, "commands", {}).items():
            yield f"{name} {sub}", (below, below.make_context(sub, [], parent=inner, resilient_parsing=True))


PAGES = dict(pages())


def words(text: str) -> list[str]:
    return re.findall(r"\S+", re.sub(r"\[/?bold\]", "", text))


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_breaks_a_word(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    command, context = PAGES[name]
    monkeypatch.setattr(context, "terminal_width", width)
    page = help_page(command, context)
    for line in page.splitlines():
        assert len(line) <= min(width, 100), line
    shown = words(page)
    for parameter in command.get_params(context):
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("-"):
                assert option in {word.rstrip(",") for word in shown}, f"{option} is broken"
        said = words(parameter.help or "")
        joined = " ".join(shown)
        assert " ".join(said) in joined, f"{parameter.name}: its words are broken"
    for below in getattr(command, "commands", {}):
        assert below in shown


def test_help_is_what_the_program_shows() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "occluded_reid", "calibrate", "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    assert found.startswith("Usage: occluded-reid calibrate [OPTIONS] ")
    assert "\n  --false-match-rate <" in found or "\n  --false-match-rate FLOAT" in found
    assert max(map(len, found.splitlines())) <= 80
    assert "[bold]" not in found


def complete(line: str) -> list[str]:
    """What bash would offer after this line."""
    parts = line.split(" ")
    asked = {"_OCCLUDED_REID_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(parts) - 1)}
    command = [sys.executable, "-m", "occluded_reid"]
    found = subprocess.run(
        command, env={**os.environ, **asked}, capture_output=True, text=True, check=True, timeout=300
    )
    assert found.stderr == ""
    return found.stdout.split()


def test_the_shell_is_offered_commands_and_names() -> None:
    assert complete("occluded-reid tr") == ["train", "train-parser"]
    assert complete("occluded-reid gallery ver") == ["verify", "versions"]
    assert "--include-self" in complete("occluded-reid search --inc")
    assert complete("occluded-reid train sor") == ["sorn", "sorn_lite"]
    assert complete("occluded-reid evaluate --dataset mark") == ["market1501"]
    assert complete("occluded-reid index --split q") == ["query"]


def test_every_name_is_offered() -> None:
    assert set(complete_recipe("")) <= set(list_models())
    assert "sorn" in complete_recipe("")
    assert complete_dataset("") == sorted(DATASETS.names())
    assert complete_teacher("") == sorted(PARSERS.names())
    assert complete_parser_recipe("s") == ["sgam_parser", "small_parser"]
    assert complete_parser_recipe("x") == []


def test_completion_installs(tmp_path: Path) -> None:
    home = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    command = [sys.executable, "-m", "occluded_reid", "--install-completion", "bash"]
    found = subprocess.run(command, env=home, capture_output=True, text=True, check=False, timeout=300)
    if found.returncode == 2:  # where the shell can be detected, it is not named
        found = subprocess.run(command[:-1], env=home, capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 0, found.stderr
    (script,) = tmp_path.rglob("occluded-reid.sh")
    assert "_OCCLUDED_REID_COMPLETE=complete_bash" in script.read_text(encoding="utf-8")
    assert script.name in (tmp_path / ".bashrc").read_text(encoding="utf-8")
