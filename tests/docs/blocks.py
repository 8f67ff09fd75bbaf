"""The code blocks of README.md and docs/: found, taken apart, and run one after the other."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

SHELL, PYTHON = ("sh", "bash", "console"), ("python",)
OTHER = ("yaml", "toml", "text")
"""`yaml` is a recipe or a part of one, and is built; `toml` is parsed; `text` is no code: formulas, trees, output."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\s*$")
_MARKER = re.compile(r"^ *<!-- not run: (?P<reason>.+?) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path below the repository's root.
        line: number of its first line of code, from 1.
        language: what stands behind the fence.
        text: the code.
        not_run: why it cannot be run here: the words of `<!-- not run: … -->` above it.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    marker: str | None = None
    start, opened = 0, None
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if opened is not None:
            if fence and not fence["language"]:
                indent = len(opened["indent"])
                code = "\n".join(each[indent:] for each in lines[start - 1 : number - 1]) + "\n"
                found.append(Block(str(page.relative_to(ROOT)), start, opened["language"], code, marker))
                opened, marker = None, None
        elif fence:
            start, opened = number + 1, fence
        elif note := _MARKER.match(line):
            marker = note["reason"]
        elif line.strip():
            marker = None
    if opened is not None:
        raise ValueError(f"{page}: the block that begins at line {start} does not end")
    return found


def unfenced(page: Path) -> list[int]:
    """Return the lines that begin a block by indentation: Markdown shows it as code, and nobody would run it."""
    found, inside, listed, before = [], False, False, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if _FENCE.match(line):
            inside = not inside
        if not inside:
            if re.match(r"^( *[-*] | *\d+\. )", line):
                listed = True
            elif line.strip() and not line.startswith(" "):
                listed = False
            if line.startswith("    ") and not before.strip() and not listed:
                found.append(number)
        before = line
    return found


def commands_of(block: Block) -> list[str]:
    """Return the commands of a shell block, each on one line; of a console's lines those behind a prompt."""
    text = block.text
    if block.language == "console":
        prompted = (re.match(r"^[$>] (.*)$|^ +(.*)$", line) for line in text.splitlines())
        text = "\n".join(match[1] or match[2] or "" for match in prompted if match)
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def words_of(command: str) -> list[str] | None:
    """Return a plain command as a shell would hand it over; None where it takes a shell: pipes, variables, loops."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words = list(lexer)
    shell = any(word in ("|", "||", "&", "&&", ";", "<", ">", ">>", "(", ")") for word in words)
    return None if shell or any(sign in word for word in words for sign in "$`*?") else words


def run_block(block: Block, namespace: dict[str, Any], call: Callable[[Sequence[str]], None]) -> None:
    """Run a block of Python or of a shell in the present folder.

    Args:
        block: what to run.
        namespace: names that the Python blocks of a page share.
        call: runs `occluded-reid` with these arguments in this process; anything else goes to bash.
    """
    if block.language in PYTHON:
        # Empty lines before it, so that a traceback names the line of the page.
        code = compile("\n" * (block.line - 1) + block.text, block.page, "exec", dont_inherit=True)
        exec(code, namespace)  # noqa: S102
        return
    commands = commands_of(block)
    words = [words_of(command) for command in commands]
    if all(each is not None and (not each or each[0] == "occluded-reid") for each in words):
        for each in words:
            if each:
                call(each[1:])
        return
    if any("occluded-reid" in command for command in commands):
        raise AssertionError("this block takes a shell, in which commands would train for hours: write it plainly")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        timeout=300,
    )
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def expanded(block: Block) -> list[list[str]]:
    """Return the words of every command of a shell block that is not run, as a shell would hand them over.

    Variables, arrays and loops are the shell's own work; the programs are stood in for by what writes its words down.
    """
    names = ("occluded-reid", "python", "pip", "make", "torchrun")
    stubs = [f"{name}() {{ printf '%s\\0' {name} \"$@\"; printf '\\n\\0'; }}" for name in names]
    script = "\n".join(["set -euf", "PATH=/nowhere", *stubs, block.text])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"{block}: {done.stderr}")
    found: list[list[str]] = [[]]
    for word in done.stdout.split("\0")[:-1]:
        if word == "\n":
            found.append([])
        else:
            found[-1].append(word)
    return found[:-1]


def parse_command(app: Any, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Parse the words behind `occluded-reid` as the command line does; nothing is run.

    Returns:
        The command, such as "gallery verify", and its parameters by name.

    Raises:
        click.UsageError: there is no such command or option.
    """
    context = app.make_context("occluded-reid", list(words))
    names: list[str] = []
    while hasattr(context.command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        names.append(name)
        context = command.make_context(name, rest, parent=context)
    return " ".join(names), context.params
