"""`where`: SQL text as LanceDB takes it, or a mapping that is quoted here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.layout import LABELS
from occluded_reid.registry import did_you_mean

__all__ = ["Where", "to_sql"]

Where = str | Mapping[str, Any]
"""``"camera = 3 AND identity = '0002'"`` or ``{"camera": 3, "identity": "0002"}``."""


def to_sql(where: Where | None) -> str | None:
    """Return the filter as SQL.

    Args:
        where: text is passed on as it is (a quote inside a string is doubled: ``'O''Brien'``). In a mapping every entry
            must hold: a value must be equal, a list or set holds the values that are welcome, None means "not known".

    Raises:
        GalleryError: the text is blank, a column does not exist, or a value has a type that no column has.

    Example:
        >>> to_sql({"camera": [1, 3], "track": None, "identity": "O'Brien"})
        "`camera` IN (1, 3) AND `track` IS NULL AND `identity` = 'O''Brien'"
    """
    if where is None:
        return None
    if isinstance(where, str):
        if not where.strip():
            raise GalleryError("where is blank; leave it out to search the whole gallery.")
        return where
    if not isinstance(where, Mapping):
        raise GalleryError(f"where is a {type(where).__name__}; give SQL text or a mapping such as {{'camera': 3}}.")
    return " AND ".join(_condition(column, value) for column, value in where.items()) or None


def _condition(column: str, value: Any) -> str:
    if column not in LABELS:
        raise GalleryError(
            f"where: no column is named '{column}'.{did_you_mean(str(column), LABELS)} Columns: {', '.join(LABELS)}."
        )
    if value is None:
        return f"`{column}` IS NULL"
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        members = [
            _literal(column, member)
            for member in (sorted(value, key=repr) if isinstance(value, set | frozenset) else value)
        ]
        return f"`{column}` IN ({', '.join(members)})" if members else "false"
    return f"`{column}` = {_literal(column, value)}"


def _literal(column: str, value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if column in ("camera", "time"):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return repr(value)
    elif isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    wanted = "a number" if column in ("camera", "time") else "a string"
    raise GalleryError(f"where: '{column}' is compared with {value!r}; give {wanted}, None, or a list of such values.")
