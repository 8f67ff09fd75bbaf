"""`where`: SQL text, a mapping, or a typed condition; rendered for LanceDB as SQL and for Milvus as an expression."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters.conditions import (
    MILVUS_KNOWN,
    Condition,
    Field,
    equal_to,
    field,
    in_seconds,
    one_of,
    unknown,
    unknown_camera,
)
from occluded_reid.gallery.filters.text import require_bounds, require_where

__all__ = ["MILVUS_KNOWN", "Condition", "Field", "Where", "field", "to_milvus", "to_sql"]

Where = str | Mapping[str, Any] | Condition
"""``"camera = 3 AND identity = '0002'"``, ``{"camera": 3, "identity": "0002"}`` or
``(field("camera") == 3) & (field("identity") == "0002")``."""


def to_sql(where: Where | None) -> str | None:
    """Return the filter as SQL for LanceDB.

    Args:
        where: text is passed on (a quote inside a string is doubled: ``'O''Brien'``), once `require_where` has looked
            at its length, its depth and the functions that it calls, with seconds for the times that it compares
            ``time`` with. In a mapping every entry must hold: a value must be equal, a list or set holds the values
            that are welcome, None means "not known". A condition of `field` says more than that.

    Raises:
        GalleryError: the text is blank or beyond those bounds, a column does not exist, or a value has a type that no
            column has.

    Example:
        >>> to_sql({"camera": [1, 3], "track": None, "identity": "O'Brien"})
        "`camera` IN (1, 3) AND `track` IS NULL AND `identity` = 'O''Brien'"
    """
    text, conditions = _parsed(where, require_where)
    return text if text is not None else " AND ".join(condition.sql() for condition in conditions) or None


def to_milvus(where: Where | None) -> str | None:
    """Return the filter as a boolean expression of Milvus.

    The columns have the names that they have elsewhere; of an unknown value see `MILVUS_KNOWN`.

    Args:
        where: as in `to_sql`, but text must be an expression of Milvus, ``'camera == 3 and identity == "0002"'``, of
            which length and depth alone are looked at.

    Raises:
        GalleryError: the text is blank, a column does not exist, or a value has a type that no column has.

    Example:
        >>> to_milvus({"camera": [1, 3], "track": None})
        '(camera_known == true and camera in [1, 3]) and track_known == false'
    """
    text, conditions = _parsed(where, require_bounds)
    return text if text is not None else " and ".join(condition.milvus() for condition in conditions) or None


def _parsed(where: Where | None, check: Callable[[str], None]) -> tuple[str | None, list[Condition]]:
    """Return the text, or the conditions that must all hold."""
    if where is None:
        return None, []
    if isinstance(where, str):
        if not where.strip():
            raise GalleryError("where is blank; leave it out to search the whole gallery.")
        check(where)
        return in_seconds(where), []
    if isinstance(where, Condition):
        return None, [where.with_cameras(unknown_camera)]
    if not isinstance(where, Mapping):
        raise GalleryError(
            f"where is a {type(where).__name__}; give SQL text, a mapping such as {{'camera': 3}}, "
            "or a condition such as field('camera') == 3."
        )
    return None, [_entry(column, value).with_cameras(unknown_camera) for column, value in where.items()]


def _entry(column: str, value: Any) -> Condition:
    if value is None:
        return unknown(column)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return one_of(column, value)
    return equal_to(column, value)
