"""Texts in a filter that a column is compared with: times as people write them, and names of cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from occluded_reid import Gallery, PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery import field
from occluded_reid.gallery.filters.tokens import replace_compared, tokens
from occluded_reid.gallery.filters.where import to_milvus, to_sql

TEN = 1714557600.0
"""2024-05-01 10:00 UTC."""


def times(where: str) -> str:
    return replace_compared(where, "time", lambda text: f"<{text}>")


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("time >= 'x'", "time >= <x>"),
        ('time="x"', "time=<x>"),
        ("`time` != 'x' AND \"time\" <> 'y'", '`time` != <x> AND "time" <> <y>'),
        ("TIME < 'X'", "TIME < <X>"),
        ("'x' <= time", "<x> <= time"),
        ("time BETWEEN 'x' AND 'y' AND key > 'z'", "time BETWEEN <x> AND <y> AND key > 'z'"),
        ("time not between 1 and 'y'", "time not between 1 and <y>"),
        ("time IN ('x', 3, \"y\") OR key IN ('z')", "time IN (<x>, 3, <y>) OR key IN ('z')"),
        ("(time NOT IN ('x')) and track = 'y'", "(time NOT IN (<x>)) and track = 'y'"),
        ("time == 'it''s'", "time == <it's>"),
        ("time in ['x']", "time in [<x>]"),
    ],
)
def test_what_a_column_is_compared_with_is_replaced(where: str, wanted: str) -> None:
    assert times(where) == wanted


@pytest.mark.parametrize(
    "where",
    [
        "key = 'time > ''x'''",
        "key = 'time' AND track = 'x'",
        "daytime > 'x'",
        "time_known = 'x'",
        "times IN ('x')",
        "a.time > 'x'",
        "time('x') > 3",
        "time IS NULL AND key > 'x'",
        'time = "key"',
        "time IN (abs(3), lower('x'))",
        "time > 3",
        "key BETWEEN 'x' AND 'y' AND time > 3",
        "",
    ],
)
def test_everything_else_stays(where: str) -> None:
    assert times(where) == where


def test_what_is_not_understood_comes_back_as_it_is() -> None:
    assert times("time > 'x' AND key = 'open") == "time > <x> AND key = 'open"
    assert times("time IN ('x'") == "time IN (<x>"
    assert times("time IN ('x'))) AND time = 'y'") == "time IN (<x>))) AND time = <y>"


@given(st.text(alphabet="time '\"()`,.=<>aéINand\n\0", max_size=40))
def test_tokens_cover_a_text_whatever_it_holds(where: str) -> None:
    place = 0
    for token in tokens(where):
        assert not where[place : token.start].strip()
        assert token.stop > token.start
        place = token.stop
    assert not where[place:].strip()
    assert replace_compared(where, "time", lambda text: f"'{text}'").replace("'", "") == (
        where.replace("'", "")
        if '"' not in where
        else replace_compared(where, "time", lambda text: text).replace("'", "")
    )


@given(st.text(alphabet="x'\" ", max_size=8))
def test_a_text_is_handed_over_as_it_was_meant(text: str) -> None:
    seen: list[str] = []
    replace_compared("time = '" + text.replace("'", "''") + "'", "time", lambda found: seen.append(found) or "0")
    assert seen == [text]


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T10:00",
        "2024-05-01 10:00:00",
        "2024-05-01T10:00Z",
        "2024-05-01T12:00+02:00",
        "20240501_100000",
        "1714557600",
        "1714557600000",
    ],
)
def test_times_are_understood_in_every_kind_of_filter(text: str) -> None:
    assert to_sql(f"time >= '{text}'") == f"time >= {TEN!r}"
    assert to_milvus(f'time >= "{text}"') == f"time >= {TEN!r}"
    assert to_sql({"time": text}) == to_sql({"time": TEN})
    assert (field("time") >= text).sql() == (field("time") >= TEN).sql()
    assert to_sql({"time": [text, 3]}) == to_sql({"time": [TEN, 3]})


@pytest.mark.parametrize("text", ["abc", "2024-13-01", "", "nan", "1e400", "9" * 400])
def test_what_is_no_time_says_what_is_wanted(text: str) -> None:
    for where in (f"time >= '{text}'", f'"{text}" < time' if text else "time = ''", {"time": text}):
        with pytest.raises(
            GalleryError, match=r"'time' is compared with .*; give a finite number, a datetime, a time such as"
        ):
            to_sql(where)


@pytest.mark.parametrize("where", ["time > 2024-05-01", "time >= 2024-05-01T10:00 AND camera = 3"])
def test_a_day_without_quotes_is_no_subtraction(where: str) -> None:
    with pytest.raises(GalleryError, match=r"2024-05-01 without quotes.*Quote times: time >= '2024-05-01T10:00'"):
        to_sql(where)
    assert to_sql("time > 2024 - 05 - 01") == "time > 2024 - 05 - 01"


@pytest.fixture
def shop(tmp_path: Path) -> Gallery:
    gallery = Gallery.create(tmp_path / "shop", slots={"global": 4})
    rows = PartEmbeddings(("global",), (torch.eye(4),), torch.ones(4, 1))
    hours: list[Any] = [TEN - 3600, TEN, TEN + 3600, None]
    gallery.add(rows, keys=list("abcd"), camera=["hall", "door", "hall", None], time=hours)
    return gallery


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("time >= '2024-05-01T10:00'", "bc"),
        ('time < "2024-05-01T10:00"', "a"),
        ("NOT time > '2024-05-01T10:00'", "ab"),
        ("time BETWEEN '2024-05-01 09:30' AND '2024-05-01 10:30'", "b"),
        ("camera = \"hall\" AND time > '2024-05-01T10:00'", "c"),
        ("camera IN ('hall', \"door\") AND '2024-05-01T10:00' = time", "b"),
        ({"time": "2024-05-01T10:00"}, "b"),
        (field("time").between("2024-05-01T09:00", "2024-05-01T10:00"), "ab"),
    ],
)
def test_a_gallery_is_asked_for_times(shop: Gallery, where: Any, wanted: str) -> None:
    assert "".join(image.key for image in shop.list(where)) == wanted
    rows = PartEmbeddings(("global",), (torch.ones(1, 4),), torch.ones(1, 1))
    assert "".join(sorted(hit.key for hit in shop.search(rows, where=where)[0])) == wanted
