"""Help pages that fit a narrow terminal: no word is cut, no column is squeezed."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from occluded_reid.cli.words import require_words

__all__ = ["Commands", "help_page"]

F = TypeVar("F", bound=Callable[..., Any])

_WIDEST = 100  # longer lines are hard to read
_COLUMN = 26  # where explanations begin; what is longer before them has a line of its own


def help_page(command: Any, context: Any) -> str:
    """Return what `--help` shows of a command: usage, explanation, arguments, options, and commands below it."""
    width = min(context.terminal_width or shutil.get_terminal_size().columns, _WIDEST)
    usage = f"Usage: {context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    parts = [_wrapped(usage, width, "", " " * 8)]
    parts += [_wrapped(text, width, "  ", "  ") for text in _paragraphs(command.help or "")]
    arguments: list[tuple[str, str]] = []
    options: list[tuple[str, str]] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            (arguments if parameter.param_type_name == "argument" else options).append(record)
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    below = [(name, _first_sentence(command.get_command(context, name).help or "")) for name in names]
    for title, rows in (("Arguments", arguments), ("Options", options), ("Commands", below)):
        if rows:
            parts.append("\n".join([f"{title}:", *_rows(rows, width)]))
    return "\n\n".join(parts)


def _paragraphs(text: str) -> list[str]:
    plain = re.sub(r"\[/?bold\]", "", text)
    return [" ".join(paragraph.split()) for paragraph in plain.split("\n\n") if paragraph.strip()]


def _first_sentence(text: str) -> str:
    first = _paragraphs(text)[0] if text else ""
    return re.split(r"(?<=[.:;])\s", first)[0].rstrip(".:;")


def _rows(rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Names, and what they mean beside them, or below them where a name is long."""
    for name, meaning in rows:
        shown = "  " + re.sub(r"<list\[(.+?)\]>", r"<\1>", name)
        explained = _wrapped(" ".join(meaning.split()), width, " " * _COLUMN, " " * _COLUMN)
        if len(shown) <= _COLUMN - 2:
            yield f"{shown:<{_COLUMN}}{explained.lstrip()}".rstrip()
        else:
            yield shown
            if meaning:
                yield explained


def _wrapped(text: str, width: int, first: str, others: str) -> str:
    return textwrap.fill(
        text,
        width=width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


class _Command(TyperCommand):
    """A command whose help is a page of ours, and which looks at its words first."""

    def get_help(self, ctx: Any) -> str:
        """Return it."""
        return help_page(self, ctx)

    def invoke(self, ctx: Any) -> Any:
        """Look at what was named, then do it."""
        require_words(ctx)
        return super().invoke(ctx)


class _Group(TyperGroup):
    """A group of commands whose help is a page of ours."""

    def get_help(self, ctx: Any) -> str:
        """Return it."""
        return help_page(self, ctx)


class Commands(typer.Typer):
    """A group of commands with help pages of ours.

    Args:
        name: of the group.
        help: what they are for.
    """

    def __init__(self, name: str, help: str) -> None:
        super().__init__(
            name=name,
            help=help,
            cls=_Group,
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Register a function as a command."""
        return super().command(name, **{"cls": _Command, **options})
