"""Times as people write them into file names and tables: seconds, ISO 8601, or a format of their own."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

__all__ = ["TIME_FORMATS", "read_time", "seconds_of", "time_text"]

TIME_FORMATS = (
    "seconds or frames (12.5, 000123), milliseconds since 1970 (13 digits), 20240501093000, 20240501_093000 or "
    "ISO 8601 (2024-05-01T09:30:00)"
)
"""What `read_time` understands without a format, for messages."""

_DATES = (1e8, 1e11)  # seconds since 1970 from 1973 to 5138; numbers of frames are smaller, milliseconds larger
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?", re.ASCII)
_COMPACT = re.compile(r"(\d{8})[T_ -]?(\d{6})(?:[.,](\d{1,6}))?", re.ASCII)
_DASHED = re.compile(r"(\d{4}-\d{2}-\d{2})[T_ ](\d{2})[:-](\d{2})[:-](\d{2}(?:[.,]\d{1,6})?)", re.ASCII)


def read_time(text: str, pattern: str | None = None) -> float:
    """Return the seconds that a text means.

    Args:
        text: a time; dates are UTC unless they say otherwise, and become seconds since 1970.
        pattern: how it is written, as of `datetime.strptime`: "%d.%m.%Y %H:%M". None understands plain numbers, which
            stay what they are, 13 digits as milliseconds since 1970, 14 as year to second, and ISO 8601 (in file names
            with "_" for the "T", and "-" for the colons).

    Raises:
        ValueError: it is none of these.

    Example:
        >>> [read_time(text) for text in ("000123", "12.5", "20240501_093000", "2024-05-01T11:30:00+02:00")]
        [123.0, 12.5, 1714555800.0, 1714555800.0]
    """
    text = text.strip()
    if pattern is not None:
        return seconds_of(datetime.strptime(text, pattern))
    if found := _COMPACT.fullmatch(text):
        day, clock, rest = found.groups()
        moment = datetime.strptime(day + clock, "%Y%m%d%H%M%S")
        return seconds_of(moment) + float(f"0.{rest or 0}")
    if _NUMBER.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("it is not finite")
        return number / 1000 if len(text) == 13 and text.isdigit() else number
    if found := _DASHED.fullmatch(text):
        day, hours, minutes, seconds = found.groups()
        text = f"{day}T{hours}:{minutes}:{seconds.replace(',', '.')}"
    return seconds_of(datetime.fromisoformat(text))


def time_text(seconds: float) -> str:
    """Return a time for people to read: a date in UTC, which `read_time` understands, or the number that it is.

    Nobody says in which unit a time was given. What would be a date from 1973 on is shown as one.

    Example:
        >>> [time_text(time) for time in (1714557600.0, 1714557600.25, 12.5, 123.0)]
        ['2024-05-01T10:00:00Z', '2024-05-01T10:00:00.25Z', '12.5', '123']
    """
    if not _DATES[0] <= seconds < _DATES[1]:
        return f"{seconds:.15g}"
    moment = datetime.fromtimestamp(seconds, UTC)
    rest = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{rest}Z"


def seconds_of(moment: datetime) -> float:
    """Return seconds since 1970; a moment without a zone is UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
