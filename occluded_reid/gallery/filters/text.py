"""What a `where` text may hold, looked at before it goes down to a database.

A database reads such a text by functions that call themselves. A long sum or a deep nest ends the process there, and a
function that repeats a text fills the memory, so that both are bounded here, where an error is still an error.
"""

from __future__ import annotations

import re
from typing import NoReturn

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters.tokens import tokens
from occluded_reid.registry import did_you_mean

__all__ = ["FUNCTIONS", "LONGEST_WHERE", "require_bounds", "require_where"]

LONGEST_WHERE = 1_000_000
"""Characters of a `where` text: a list of some ten thousand keys."""

FUNCTIONS = (
    "abs", "array_has", "btrim", "cast", "char_length", "character_length", "coalesce", "concat", "contains",
    "date_part", "ends_with", "greatest", "instr", "isnan", "least", "left", "length", "lower", "ltrim", "nullif",
    "octet_length", "regexp_like", "regexp_match", "reverse", "right", "round", "rtrim", "split_part", "sqrt",
    "starts_with", "strpos", "to_timestamp", "trunc", "try_cast", "upper",
)  # fmt: skip
"""Functions that a `where` text may call: none of them makes more of a value than it was given."""

_DEEPEST = 40  # parentheses and brackets within each other
_JOINED = 5000  # AND and OR
_SIGNS = 200  # of arithmetic: LanceDB's time for a sum grows with the square of its length
_LONGEST_TERM = 400  # words and signs between two of AND, OR and comma: each may lie within the one before
_SHOWN = 80

_BEFORE_PARENTHESIS = {
    "and", "or", "not", "in", "is", "between", "like", "ilike", "escape", "any", "all", "case", "when", "then", "else",
}  # fmt: skip
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")
_LAST_WORDS = {"null", "true", "false", "unknown", "end", "nan"}
_BEFORE_VALUE = {*_BEFORE_PARENTHESIS, "from", "distinct", "similar", "to"}
_ARITHMETIC = {"+", "-", "*", "/", "%", "^", "&", "|", "||", "::", ".", "~", "[", "case"}


def require_bounds(text: str) -> None:
    """Refuse a text in any language that is too long, or nests more brackets than anybody writes.

    Raises:
        GalleryError: it does.
    """
    if len(text) > LONGEST_WHERE:
        _refuse(text, f"has {len(text):,} characters; at most {LONGEST_WHERE:,} are read")
    depth = 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if depth > _DEEPEST:
            _refuse(text, f"nests parentheses more than {_DEEPEST} deep")


def require_where(text: str) -> None:
    """Refuse SQL that LanceDB should not be given.

    Raises:
        GalleryError: it is too long or too deep, holds a remark or a sign that no filter has, or calls a function that
            is not among `FUNCTIONS`, or ends with a word that LanceDB would take for a name of the filter and forget.

    Example:
        >>> require_where("camera = 3 AND lower(identity) IN ('a', 'b')")
    """
    if len(text) > LONGEST_WHERE:
        _refuse(text, f"has {len(text):,} characters; at most {LONGEST_WHERE:,} are read")
    joined = signs = term = 0
    terms: list[int] = []
    before = ""  # the word or name that stands directly before
    last = ""  # the token before, and whether a value ends with it
    value = loose = False
    for kind, token, start, stop in tokens(text):
        if not kind:
            raise GalleryError(
                f"where {_shown(text)} is not understood: {token!r} at character {start + 1} is no part of a "
                "filter, or is not closed. Write SQL such as \"camera = 3 AND identity = '0002'\", with a quote inside "
                "a string doubled, or give a mapping: {'camera': 3}."
            )
        if kind == "remark":
            _refuse(text, f"holds the remark {token!r}; leave remarks out, and put a space between two minus signs")
        if kind == "text" and before and text[start - 1] not in " \t\r\n":
            _refuse(text, f"holds {before + token[:1]}…, a kind of text that is not read; write 'text' alone")
        if kind == "number" and (day := _DAY.match(text, start)):
            raise GalleryError(
                f"where {_shown(text)} holds {day[0]} without quotes, which would be a subtraction. Quote times: "
                f"time >= '{day[0]}T10:00', in UTC unless they say otherwise, or give seconds since 1970."
            )
        if kind == "number" and not _NUMBER.fullmatch(token):
            raise GalleryError(
                f"where {_shown(text)} holds {text[start:stop]!r}, which is no number. Quote a text: 'a'; and a time: "
                "time >= '2024-05-01T10:00'."
            )
        named = kind == "name" or (kind == "word" and token not in _BEFORE_VALUE | _LAST_WORDS)
        loose = not terms and named and (value or last == "as")
        value = named or kind in ("text", "number", "close") or token in _LAST_WORDS
        last = token
        if kind == "open":
            if token == "(" and before:
                _require_function(text, before)
            terms.append(term)
            term = 0
            if len(terms) > _DEEPEST:
                _refuse(text, f"nests parentheses more than {_DEEPEST} deep")
        elif kind == "close":
            term = terms.pop() if terms else 0
        elif kind == "comma" or token in ("and", "or"):
            joined += token in ("and", "or")
            term = 0
        elif kind not in ("text", "number"):
            term += 1
        signs += token in _ARITHMETIC
        before = token if kind in ("word", "name") else ""
        if joined > _JOINED:
            _refuse(text, f"joins more than {_JOINED:,} conditions")
        if signs > _SIGNS or term > _LONGEST_TERM:
            _refuse(text, f"calculates with more than {min(_SIGNS, _LONGEST_TERM)} signs")
    if loose:
        raise GalleryError(
            f"where {_shown(text)} ends with {last!r}, which would change nothing. Join conditions by AND or OR, and "
            "quote texts, as in identity = 'anna'."
        )


def _require_function(text: str, before: str) -> None:
    name = before.strip('`"')
    if name not in FUNCTIONS and before not in _BEFORE_PARENTHESIS:
        raise GalleryError(
            f"where {_shown(text)} calls '{name}', which is no function that a filter may call."
            f"{did_you_mean(name, FUNCTIONS)} Functions: {', '.join(FUNCTIONS)}."
        )


def _refuse(text: str, why: str) -> NoReturn:
    raise GalleryError(
        f"where {_shown(text)} {why}. A list is short in SQL, too: camera IN (1, 2, 3); or give typed conditions, such "
        "as field('key').is_in(keys)."
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
