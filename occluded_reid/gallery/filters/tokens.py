"""The words of a `where` text, and the texts in it that a column is compared with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from occluded_reid.gallery.storage.manifest import LABELS

__all__ = ["Token", "replace_compared", "tokens"]

# Possessive, so that no text makes it try again and again.
_TOKEN = re.compile(
    r"(?P<space>\s++)"
    r"|(?P<text>'(?:[^']|'')*+')"
    r"|(?P<name>`[^`]*+`|\"[^\"]*+\")"
    r"|(?P<number>\d[\w.]*+(?:(?<=[eE])[-+]\d++)?|\.\d++)"
    r"|(?P<word>[^\W\d]\w*+)"
    r"|(?P<remark>--|/\*)"
    r"|(?P<sign><=|>=|<>|!=|==|&&|\|\||::|[-+*/%<>=!~^&|.:])"
    r"|(?P<comma>,)"
    r"|(?P<open>[(\[])"
    r"|(?P<close>[)\]])"
)
_COMPARISONS = {"=", "==", "!=", "<>", "<", "<=", ">", ">="}


class Token(NamedTuple):
    """A word, a text, a number or a sign.

    Attributes:
        kind: text, name, number, word, remark, sign, comma, open or close; "" for what is no part of a filter.
        text: as it stands there, in lower case.
        start: its place; of what is no part of a filter, all that follows belongs to it.
        stop: the place behind it.
    """

    kind: str
    text: str
    start: int
    stop: int


def tokens(where: str) -> Iterator[Token]:
    """Yield the tokens of a text up to what is none; spaces are left out."""
    place = 0
    while place < len(where):
        found = _TOKEN.match(where, place)
        if found is None:
            yield Token("", where[place], place, len(where))
            return
        if found.lastgroup != "space":
            yield Token(str(found.lastgroup), found[0].lower(), place, found.end())
        place = found.end()


def replace_compared(where: str, column: str, value_of: Callable[[str], str]) -> str:
    """Return a text with other values for the texts that a column is compared with, on either side and in lists.

    Texts stand in quotes, single or double ones: what stands in double ones and is no column is taken for a text.

    Args:
        where: the text; where it is none that is understood, it comes back as it is.
        column: name of the column.
        value_of: gives what is written for a text.

    Example:
        >>> replace_compared("time > 'ten' AND 'time' = key OR time IN (1, 'ten')", "time", lambda text: "10")
        "time > 10 AND 'time' = key OR time IN (1, 10)"
    """
    if column not in where.lower():
        return where
    found = [token for token in tokens(where) if token.kind]
    parts, done = [], 0
    lists: list[bool] = []  # of each bracket that is open, whether the column is looked for in it
    for place, token in enumerate(found):
        if token.kind == "open":
            lists.append(_follows(found, place - 1, "in", column))
        elif token.kind == "close" and lists:
            lists.pop()
        elif _is_text(token) and ((lists and lists[-1]) or _is_compared(found, place, column)):
            quote = token.text[0]
            content = where[token.start + 1 : token.stop - 1].replace(quote * 2, quote)
            parts += [where[done : token.start], value_of(content)]
            done = token.stop
    return "".join([*parts, where[done:]])


def _is_text(token: Token) -> bool:
    return token.kind == "text" or (token.text[0] == '"' and token.text[1:-1] not in LABELS)


def _is_compared(found: list[Token], place: int, column: str) -> bool:
    """Whether a text is compared with a column: ``column = text``, ``text = column``, or between."""
    if _text_at(found, place - 1) in _COMPARISONS and _is_column(found, place - 2, column):
        return True
    if _text_at(found, place + 1) in _COMPARISONS and _is_column(found, place + 2, column):
        return True
    low = place - 2 if _text_at(found, place - 1) == "and" else place
    return _follows(found, low - 1, "between", column)


def _follows(found: list[Token], place: int, word: str, column: str) -> bool:
    """Whether "column word" or "column not word" ends here."""
    before = place - 2 if _text_at(found, place - 1) == "not" else place - 1
    return _text_at(found, place) == word and _is_column(found, before, column)


def _is_column(found: list[Token], place: int, column: str) -> bool:
    """Whether the column stands here, and nothing else of its name: a part of a thing, or a function."""
    around = (_text_at(found, place - 1), _text_at(found, place + 1))
    return _text_at(found, place) in (column, f"`{column}`", f'"{column}"') and "." not in around and around[1] != "("


def _text_at(found: list[Token], place: int) -> str:
    return found[place].text if 0 <= place < len(found) else ""
