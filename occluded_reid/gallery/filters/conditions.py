"""Typed conditions on the columns of a gallery, rendered as SQL for LanceDB and as an expression for Milvus.

Unknown values follow SQL: a row whose value is not known fulfils neither a comparison nor its opposite. A condition is
kept without "not" (`~` turns each comparison round), so that both back-ends answer alike whatever they make of NULL.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, NoReturn

import numpy as np

from occluded_reid.arguments import is_several, shown
from occluded_reid.data.camera_names import camera_of_text
from occluded_reid.data.times import read_time, seconds_of
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters.tokens import replace_compared
from occluded_reid.gallery.storage.manifest import LABELS
from occluded_reid.gallery.values import INT64, finite, is_text, is_whole
from occluded_reid.registry import did_you_mean

__all__ = [
    "MILVUS_KNOWN",
    "Condition",
    "Field",
    "equal_to",
    "field",
    "in_seconds",
    "one_of",
    "unknown",
    "unknown_camera",
]

MILVUS_KNOWN = {name: f"{name}_known" for name in ("identity", "camera", "time", "track", "path", "sha256")}
"""Milvus before 2.5 has no NULL: an unknown value is stored there as 0 or "", and this column beside it is false."""

_Operator = Literal["=", "!=", "<", "<=", ">", ">="]
_OPPOSITE: dict[_Operator, _Operator] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_DEEPEST = 20  # "and" within "or" within "and" …, as far as LanceDB's parser follows
_SIDE_BY_SIDE = 1000  # conditions that it is given in one chain


class Condition(ABC):
    """What a row must fulfil, made by `field` and combined with ``&``, ``|`` and ``~``.

    Example:
        >>> ((field("camera") == 3) & ~field("identity").is_in(["0002", "O'Brien"])).sql()
        "(`camera` = 3 AND `identity` NOT IN ('0002', 'O''Brien'))"
    """

    @abstractmethod
    def sql(self) -> str:
        """Return the condition as SQL for LanceDB."""

    @abstractmethod
    def milvus(self) -> str:
        """Return the condition as a Milvus expression."""

    @abstractmethod
    def __invert__(self) -> Condition:
        """Return the opposite; a row whose value is not known fulfils neither."""

    def with_cameras(self, number_of: Callable[[str], int]) -> Condition:  # noqa: ARG002 - most name no camera
        """Return the condition with numbers for the names of cameras, as a gallery knows them."""
        return self

    def __and__(self, other: Condition) -> Condition:
        """Return the condition that both hold."""
        return _joined("and", self, _condition(other, "&"))

    def __or__(self, other: Condition) -> Condition:
        """Return the condition that at least one holds."""
        return _joined("or", self, _condition(other, "|"))

    def __bool__(self) -> NoReturn:
        raise GalleryError(
            "a condition is neither true nor false: 'and', 'or', 'not' and chains such as 1 < field(…) < 3 cannot be "
            "used. Combine with & and |, turn round with ~, each comparison in parentheses; or use between()."
        )


@dataclass(frozen=True)
class _Comparison(Condition):
    column: str
    operator: _Operator
    value: str | int | float

    def sql(self) -> str:
        return f"`{self.column}` {self.operator} {_sql_literal(self.value)}"

    def milvus(self) -> str:
        operator = "==" if self.operator == "=" else self.operator
        return _if_known(self.column, f"{self.column} {operator} {_milvus_literal(self.value)}")

    def __invert__(self) -> Condition:
        return _Comparison(self.column, _OPPOSITE[self.operator], self.value)

    def with_cameras(self, number_of: Callable[[str], int]) -> Condition:
        return replace(self, value=_numbered(self.column, self.value, number_of))


@dataclass(frozen=True)
class _Member(Condition):
    column: str
    values: tuple[str | int | float, ...]
    welcome: bool = True

    def sql(self) -> str:
        if not self.values:
            return "false" if self.welcome else f"`{self.column}` IS NOT NULL"
        listed = ", ".join(_sql_literal(value) for value in self.values)
        return f"`{self.column}` {'IN' if self.welcome else 'NOT IN'} ({listed})"

    def milvus(self) -> str:
        if not self.values:
            return 'key == ""' if self.welcome else _Unknown(self.column, unknown=False).milvus()  # no key is empty
        listed = ", ".join(_milvus_literal(value) for value in self.values)
        return _if_known(self.column, f"{self.column} {'in' if self.welcome else 'not in'} [{listed}]")

    def __invert__(self) -> Condition:
        return _Member(self.column, self.values, not self.welcome)

    def with_cameras(self, number_of: Callable[[str], int]) -> Condition:
        return replace(self, values=tuple(_numbered(self.column, value, number_of) for value in self.values))


@dataclass(frozen=True)
class _Unknown(Condition):
    column: str
    unknown: bool = True

    def sql(self) -> str:
        return f"`{self.column}` IS {'NULL' if self.unknown else 'NOT NULL'}"

    def milvus(self) -> str:
        if self.column not in MILVUS_KNOWN:  # key and metadata are always there
            return 'key == ""' if self.unknown else 'key != ""'
        return f"{MILVUS_KNOWN[self.column]} == {'false' if self.unknown else 'true'}"

    def __invert__(self) -> Condition:
        return _Unknown(self.column, not self.unknown)


@dataclass(frozen=True)
class _Joined(Condition):
    """Any number of conditions side by side, so that a chain of a thousand is no deeper than one of two."""

    how: Literal["and", "or"]
    parts: tuple[Condition, ...]
    depth: int

    def sql(self) -> str:
        return _chain([part.sql() for part in _together(self.how, self.parts)], f" {self.how.upper()} ")

    def milvus(self) -> str:
        return _chain([part.milvus() for part in _together(self.how, self.parts)], f" {self.how} ")

    def __invert__(self) -> Condition:
        return _Joined("or" if self.how == "and" else "and", tuple(~part for part in self.parts), self.depth)

    def with_cameras(self, number_of: Callable[[str], int]) -> Condition:
        return replace(self, parts=tuple(part.with_cameras(number_of) for part in self.parts))


def _joined(how: Literal["and", "or"], *sides: Condition) -> Condition:
    """Join conditions; what is joined in the same way already is continued, not nested.

    Raises:
        GalleryError: they are nested too deep.
    """
    parts: list[Condition] = []
    for side in sides:
        parts += side.parts if isinstance(side, _Joined) and side.how == how else [side]
    depth = 1 + max(part.depth if isinstance(part, _Joined) else 0 for part in parts)
    if depth > _DEEPEST:
        raise GalleryError(
            f"where: conditions are nested more than {_DEEPEST} deep, '&' within '|' within '&' and so on. Join like "
            "with like, as many as you want, or ask with is_in() where values are listed."
        )
    return _Joined(how, tuple(parts), depth)


def _together(how: Literal["and", "or"], parts: Sequence[Condition]) -> list[Condition]:
    """Make one list of all values that a column is welcome to have ("or"), or must not have ("and")."""
    welcome = how == "or"
    lists: dict[str, dict[str | int | float, None]] = {}
    found: list[Condition | str] = []
    for part in parts:
        if isinstance(part, _Member) and part.welcome == welcome:
            column, values = part.column, part.values
        elif isinstance(part, _Comparison) and part.operator == ("=" if welcome else "!="):
            column, values = part.column, (part.value,)
        else:
            found.append(part)
            continue
        if column not in lists:
            found.append(column)
        lists.setdefault(column, {}).update(dict.fromkeys(values))
    return [_Member(one, tuple(lists[one]), welcome) if isinstance(one, str) else one for one in found]


def _chain(texts: list[str], sign: str) -> str:
    """Join texts in parentheses, and where there are very many, in groups of groups."""
    if len(texts) == 1:
        return texts[0]
    while len(texts) > _SIDE_BY_SIDE:
        groups = [texts[first : first + _SIDE_BY_SIDE] for first in range(0, len(texts), _SIDE_BY_SIDE)]
        texts = ["(" + sign.join(group) + ")" for group in groups]
    return "(" + sign.join(texts) + ")"


class Field:
    """A column of the gallery, to be compared; made by `field`."""

    __hash__ = None  # type: ignore[assignment]  # equality makes a condition

    def __init__(self, column: str) -> None:
        self._column = _column(column)

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("=", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("!=", value)

    def __lt__(self, value: object) -> Condition:
        return self._compare("<", value)

    def __le__(self, value: object) -> Condition:
        return self._compare("<=", value)

    def __gt__(self, value: object) -> Condition:
        return self._compare(">", value)

    def __ge__(self, value: object) -> Condition:
        return self._compare(">=", value)

    def between(self, low: object, high: object) -> Condition:
        """Return the condition that the value lies between two, both included."""
        return (self >= low) & (self <= high)

    def is_in(self, values: Iterable[object]) -> Condition:
        """Return the condition that the value is one of these; nothing is in an empty list."""
        if not is_several(values):
            raise GalleryError(f"where: '{self._column}'.is_in takes a list of values; got {shown(values)}.")
        return one_of(self._column, values)

    def is_null(self) -> Condition:
        """Return the condition that the value is not known."""
        return unknown(self._column)

    def __repr__(self) -> str:
        return f"field({self._column!r})"

    def _compare(self, operator: _Operator, value: object) -> Condition:
        if value is None:
            raise GalleryError(
                f"where: '{self._column}' is compared with None; "
                f"ask field('{self._column}').is_null(), or ~field('{self._column}').is_null()."
            )
        if self._column == "camera" and isinstance(value, str) and operator not in ("=", "!="):
            raise GalleryError(f"where: 'camera' is ordered against {value!r}; names have no order: use == or is_in.")
        return _Comparison(self._column, operator, _value(self._column, value))


def field(column: str) -> Field:
    """Return a column of the gallery to make conditions of.

    Args:
        column: `key`, `identity`, `camera` (a number, or a name that the gallery knows), `time`, `track`, `path`,
            `sha256` or `metadata` (JSON text).

    Raises:
        GalleryError: there is no such column; or, when it is compared, a value has another type than the column.

    Example:
        >>> (field("time").between(8.5, 17) | field("time").is_null()).sql()
        '((`time` >= 8.5 AND `time` <= 17.0) OR `time` IS NULL)'
    """
    return Field(column)


def equal_to(column: str, value: object) -> Condition:
    """Return the condition that a column holds this value."""
    return _Comparison(_column(column), "=", _value(column, value))


def unknown(column: str) -> Condition:
    """Return the condition that the value is not known."""
    return _Unknown(_column(column))


def one_of(column: str, values: Iterable[object]) -> Condition:
    """Return the condition that a column holds one of these values."""
    ordered = sorted(values, key=repr) if isinstance(values, set | frozenset) else values
    return _Member(_column(column), tuple(_value(column, value) for value in ordered))


def _column(column: object) -> str:
    if not isinstance(column, str) or column not in LABELS:
        raise GalleryError(
            f"where: no column is named '{column}'.{did_you_mean(str(column), LABELS)} Columns: {', '.join(LABELS)}."
        )
    return column


def _condition(other: object, sign: str) -> Condition:
    if not isinstance(other, Condition):
        raise GalleryError(
            f"where: {other!r} stands beside '{sign}' and is no condition. Put each comparison in parentheses: "
            "(field('camera') == 3) & (field('track') == 'a')."
        )
    return other


def _value(column: str, value: object) -> str | int | float:
    """Return a value of the column's own type, as `add` would keep it, or refuse it."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    elif isinstance(value, np.generic):
        value = value.item()
    wanted = {
        "camera": "a whole number of 64 bits, a camera's name",
        "time": "a finite number, a datetime, a time such as '2024-05-01T10:00' or '20240501_100000'",
        "identity": "a text that UTF-8 can hold, a whole number",
        "track": "a text that UTF-8 can hold, a whole number",
    }.get(column, "a text that UTF-8 can hold")
    if column == "time" and isinstance(value, datetime):
        value = seconds_of(value)
    elif column == "time" and isinstance(value, str):
        with suppress(ValueError, OverflowError):
            value = read_time(value)
    if column in ("identity", "track") and is_whole(value):
        return str(value)
    if column not in ("camera", "time"):
        if isinstance(value, str) and is_text(value):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool) and finite(value):
        if column == "time":
            return float(value) + 0.0  # -0.0 is 0.0 here, which databases tell apart
        if value == int(value) and abs(value) < INT64:
            return int(value)
    if (
        column == "camera"
        and isinstance(value, str)
        and is_text(value)
        and isinstance(camera_of_text(value), str)
        and value
    ):
        return value  # a name, which a gallery turns into its number
    raise GalleryError(
        f"where: '{column}' is compared with {shown(value)}; give {wanted}, None, or a list of such values."
    )


def in_seconds(where: str) -> str:
    """Return a text with seconds for the times in quotes that `time` is compared with.

    Raises:
        GalleryError: one of them is no time.

    Example:
        >>> in_seconds("time >= '2024-05-01T10:00' AND camera = 3")
        'time >= 1714557600.0 AND camera = 3'
    """
    return replace_compared(where, "time", lambda text: repr(_value("time", text)))


def _numbered(column: str, value: str | int | float, number_of: Callable[[str], int]) -> str | int | float:
    return number_of(value) if column == "camera" and isinstance(value, str) else value


def unknown_camera(name: str) -> NoReturn:
    """Refuse a camera's name that no gallery has turned into a number."""
    raise GalleryError(
        f"where: the camera '{name}' is a name, which only a gallery knows; search one, or give a number."
    )


def _sql_literal(value: str | int | float) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _milvus_literal(value: str | int | float) -> str:
    # JSON's escapes are those of Milvus's string literals.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _if_known(column: str, comparison: str) -> str:
    return f"({MILVUS_KNOWN[column]} == true and {comparison})" if column in MILVUS_KNOWN else comparison
