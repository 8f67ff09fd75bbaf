from __future__ import annotations

import datetime
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters import Condition, field, to_milvus, to_sql
from occluded_reid.gallery.layout import Layout

TEXTS = [
    "",
    "a",
    "O'Brien",
    'say "hi"',
    "back\\slash",
    "\\",
    "'",
    "''",
    '"',
    "%",
    "_",
    "é",
    "人",
    "😀",
    "a\nb",
    "--",
    "Z",
]
NUMBERS = [0, 1, -1, 7, 2**53 + 1, -(2**63) + 1, 2**63 - 1]
TIMES = [0.0, 1.5, -2.25, 1e300, 5e-324, 1e16, -1e-5, 3.0]
ROWS: list[dict[str, Any]] = [
    {
        "row": i,
        "key": f"{TEXTS[i % len(TEXTS)]}#{i}",
        "identity": [*TEXTS, None][i * 7 % (len(TEXTS) + 1)],
        "camera": [*NUMBERS, None][i * 3 % (len(NUMBERS) + 1)],
        "time": [*TIMES, None][i * 5 % (len(TIMES) + 1)],
        "track": [None, "t1", "t2"][i % 3],
        "path": None,
        "sha256": None,
        "metadata": "{}",
    }
    for i in range(150)
]
COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

# A condition and what it says about a row: true, false, or None where SQL says "unknown".
Pair = tuple[Condition, Callable[[dict[str, Any]], bool | None]]


def values_of(column: str) -> st.SearchStrategy[Any]:
    if column == "camera":
        return st.sampled_from(NUMBERS) | st.integers(-(2**63) + 1, 2**63 - 1)
    if column == "time":
        return st.sampled_from(TIMES) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-100, 100)
    return st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@st.composite
def leaves(draw: st.DrawFn) -> Pair:
    column = draw(st.sampled_from(["key", "identity", "camera", "time", "track", "metadata"]))
    kind = draw(st.sampled_from(["compare", "between", "in", "null"]))
    if kind == "null":
        return field(column).is_null(), lambda row: row[column] is None
    if kind == "in":
        members = draw(st.lists(values_of(column), max_size=4))
        return field(column).is_in(members), lambda row: None if row[column] is None else row[column] in members
    if kind == "between":
        low, high = draw(values_of(column)), draw(values_of(column))
        return (
            field(column).between(low, high),
            lambda row: None if row[column] is None else low <= row[column] <= high,
        )
    name, value = draw(st.sampled_from(sorted(COMPARISONS))), draw(values_of(column))
    compare = COMPARISONS[name]
    return compare(field(column), value), lambda row: None if row[column] is None else compare(row[column], value)


def joined(pairs: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def both(one: Pair, other: Pair) -> Pair:
        def truth(row: dict[str, Any]) -> bool | None:
            values = {one[1](row), other[1](row)}
            return False if False in values else None if None in values else True

        return one[0] & other[0], truth

    def either(one: Pair, other: Pair) -> Pair:
        def truth(row: dict[str, Any]) -> bool | None:
            values = {one[1](row), other[1](row)}
            return True if True in values else None if None in values else False

        return one[0] | other[0], truth

    def opposite(one: Pair) -> Pair:
        def truth(row: dict[str, Any]) -> bool | None:
            value = one[1](row)
            return None if value is None else not value

        return ~one[0], truth

    return st.builds(both, pairs, pairs) | st.builds(either, pairs, pairs) | st.builds(opposite, pairs)


CONDITIONS = st.recursive(leaves(), joined, max_leaves=6)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    layout = Layout(created=datetime.datetime.now(datetime.UTC).isoformat(), slots={"a": 1}, matcher={})
    schema = pa.schema([f for f in layout.arrow_schema() if f.name in ROWS[0]])
    folder: Path = tmp_path_factory.mktemp("filters")
    return lancedb.connect(str(folder)).create_table("rows", pa.Table.from_pylist(ROWS, schema))


def found(table: Any, sql: str) -> list[int]:
    answer = table.search(None).select(["row"]).where(sql).limit(len(ROWS)).to_arrow()
    return sorted(answer.column("row").to_pylist())


@given(CONDITIONS)
@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_lancedb_answers_a_condition_as_a_loop_does(table: Any, pair: Pair) -> None:
    condition, truth = pair
    sql = to_sql(condition)
    assert sql is not None
    assert found(table, sql) == [row["row"] for row in ROWS if truth(row) is True]


@pytest.mark.parametrize("text", TEXTS)
def test_a_mapping_quotes_what_sql_would_misread(table: Any, text: str) -> None:
    sql = to_sql({"identity": text})
    assert sql is not None
    assert found(table, sql) == [row["row"] for row in ROWS if row["identity"] == text]
    sql = to_sql({"identity": [text, "a"], "track": None})
    assert sql is not None
    wanted = [row["row"] for row in ROWS if row["identity"] in (text, "a") and row["track"] is None]
    assert found(table, sql) == wanted


def test_numbers_may_be_numpys() -> None:
    assert to_sql(field("camera") == np.int64(3)) == "`camera` = 3"
    assert to_sql({"camera": np.array([1, 2]), "time": np.float32(0.5)}) == "`camera` IN (1, 2) AND `time` = 0.5"


def test_nothing_text_and_empty_lists() -> None:
    assert to_sql(None) is None
    assert to_milvus(None) is None
    assert to_sql({}) is None
    assert to_sql("camera = 3") == "camera = 3"
    assert to_milvus("camera == 3") == "camera == 3"
    assert to_sql({"camera": []}) == "false"
    assert to_sql(~field("camera").is_in([])) == "`camera` IS NOT NULL"


def test_milvus_knows_what_is_unknown() -> None:
    wanted = (
        '((camera_known == true and camera != 3) or (identity_known == true and identity not in ["O\'B", "\\"\\\\"]))'
    )
    assert to_milvus(~((field("camera") == 3) & field("identity").is_in(["O'B", '"\\']))) == wanted
    assert to_milvus({"camera": 3, "track": None}) == "(camera_known == true and camera == 3) and track_known == false"
    assert to_milvus(~field("time").is_null()) == "time_known == true"
    assert to_milvus((field("key") < "b") & ~field("key").is_null()) == '(key < "b" and key != "")'
    assert to_milvus(field("identity").is_in([])) == 'key == ""'
    assert to_milvus({"camera": 3}) == to_milvus(field("camera") == 3)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: field("camrea"), r"no column is named 'camrea'.*'camera'"),
        (lambda: field("camera") == "3", r"'camera' is compared with '3'; give a whole number"),
        (lambda: field("camera") == 2.5, r"'camera' is compared with 2.5"),
        (lambda: field("camera") == True, r"'camera' is compared with True"),  # noqa: E712
        (lambda: field("camera") < 2**63, r"64 bits"),
        (lambda: field("time") > float("nan"), r"'time' is compared with nan; give a finite number"),
        (lambda: field("identity") == 2, r"'identity' is compared with 2; give a text"),
        (lambda: field("identity") == "\ud800", r"UTF-8"),
        (lambda: field("identity") == None, r"is_null\(\)"),  # noqa: E711
        (lambda: field("identity").is_in("0002"), r"takes a list of values; got '0002'"),
        (lambda: (field("camera") == 3) & "x", r"'x' stands beside '&' and is no condition"),
        (lambda: (field("camera") == 3) and (field("camera") == 4), r"Combine with & and \|"),
        (lambda: not field("camera").is_null(), r"turn round with ~"),
        (lambda: 1 < field("camera") < 3, r"between\(\)"),
        (lambda: to_sql(" "), r"blank"),
        (lambda: to_milvus(""), r"blank"),
        (lambda: to_sql(3), r"where is a int; give SQL text, a mapping"),
        (lambda: to_sql({"camera": {"a": 1}}), r"'camera' is compared with \{'a': 1\}"),
        (lambda: to_milvus({"where": 1}), r"no column is named 'where'"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], match: str) -> None:
    with pytest.raises(GalleryError, match=match):
        make()


def test_conditions_are_values() -> None:
    assert {field("camera") == 3, field("camera") == 3} == {field("camera") == 3}
    assert repr(field("camera")) == "field('camera')"
    with pytest.raises(TypeError, match="unhashable"):
        hash(field("camera"))
