from __future__ import annotations

import datetime
import functools
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
from occluded_reid.gallery.filters.where import Condition, field, to_milvus, to_sql
from occluded_reid.gallery.storage.manifest import Manifest

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
    manifest = Manifest(created=datetime.datetime.now(datetime.UTC).isoformat(), slots={"a": 1}, matcher={})
    schema = pa.schema([f for f in manifest.arrow_schema() if f.name in ROWS[0]])
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
        (lambda: field("identity") == 2.5, r"'identity' is compared with 2.5; give a text"),
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


def test_a_thousand_conditions_are_as_good_as_two(table: Any) -> None:
    keys = [row["key"] for row in ROWS]
    either = functools.reduce(operator.or_, [field("key") == key for key in keys[:50]] + [field("camera") > 5] * 2000)
    sql = to_sql(either)
    assert sql is not None
    assert found(table, sql) == [r["row"] for r in ROWS if r["row"] < 50 or (r["camera"] or 0) > 5]
    both = functools.reduce(operator.and_, [field("key") != key for key in keys[:50]] + [field("track").is_null()])
    for condition in (both, ~~both, ~(~both)):
        sql = to_sql(condition)
        assert sql is not None
        assert sql.count("NOT IN") == 1
        assert found(table, sql) == [r["row"] for r in ROWS if r["row"] >= 50 and r["track"] is None]
    milvus = to_milvus(functools.reduce(operator.or_, [field("camera") == i for i in range(1000)]))
    assert milvus is not None
    assert milvus.count("(") == 1


def test_conditions_that_alternate_go_so_deep_and_no_deeper(table: Any) -> None:
    condition: Condition = field("camera") == 1
    for depth in range(9):
        condition = (field("camera") == 7) | (condition & (field("time") > -float(depth)))
    sql = to_sql(condition)
    assert sql is not None
    assert found(table, sql) == [
        r["row"] for r in ROWS if r["camera"] == 7 or (r["camera"] == 1 and r["time"] is not None and r["time"] > 0)
    ]
    for _ in range(1):
        condition = (field("camera") == 7) | (condition & (field("time") > 0))
    with pytest.raises(GalleryError, match=r"nested more than 20 deep"):
        condition & (field("time") > 0)


@pytest.mark.parametrize(
    "text",
    [
        "camera = 1 OR lower(identity) = 'z'",
        "identity IN ('a', 'O''Brien', '((((', '--', '/*')",
        "`camera` IN (" + ", ".join(map(str, range(5000))) + ")",
        "(camera % 2 = 0 AND NOT (time < -1.5e-5)) OR identity LIKE '%a%'",
        "coalesce(track, 'none') = 'none' AND length(key) BETWEEN 2 AND 4",
        "CAST(camera AS string) = '7' OR starts_with(key, 'a#')",
        " OR ".join(f"camera = {i}" for i in range(3000)),
        "(" * 30 + "camera = 7" + ")" * 30,
        "key = 'a\\' OR camera <> 7",
        "camera = 7 OR 7 = camera",
    ],
    ids=lambda text: text[:40],
)
def test_texts_that_people_write_go_down_as_they_are(table: Any, text: str) -> None:
    assert to_sql(text) == text
    assert len(found(table, text)) in range(1, len(ROWS))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("camera = " + "1 + " * 5000 + "1", "calculates with more than 200 signs"),
        ("(" * 100_000 + "camera = 1" + ")" * 100_000, "nests parentheses more than 40 deep"),
        ("camera IN (" + "[" * 50 + "1" + "]" * 50 + ")", "nests parentheses more than 40 deep"),
        ("camera " + "IS NULL " * 5000, "calculates with more than"),
        ("true " + "= true " * 5000, "calculates with more than"),
        ("camera" + "::bigint" * 300 + " = 1", "calculates with more than 200 signs"),
        ("key = " + "key || " * 300 + "'a'", "calculates with more than 200 signs"),
        (" OR ".join(["camera = 1"] * 6000), "joins more than 5,000 conditions"),
        ("key = '" + "a" * 1_000_000 + "'", r"has 1,000,\d+ characters"),
        ("length(lpad(key, 2147483647, 'x')) > 1", r"calls 'lpad', which is no function.*\. Functions: abs"),
        ("repeat(key, 1000000000) = 'a'", "calls 'repeat'"),
        ("lowr(key) = 'a'", r"calls 'lowr'.*Did you mean 'lower'\?"),
        ('"lpad"(key, 2147483647) = key', "calls 'lpad'"),
        ("`repeat` (key, 2147483647) = key", "calls 'repeat'"),
        ("time > 20250101_000000", "holds '20250101_000000', which is no number"),
        ("camera = 3abc", "holds '3abc', which is no number"),
        ("camera = 1 identity", "ends with 'identity', which would change nothing"),
        ("identity = 'anna' jones", "ends with 'jones', which would change nothing"),
        ("(camera = 1) AS one", "ends with 'one', which would change nothing"),
        ("camera = 1 -- AND camera = 2", "holds the remark '--'"),
        ("camera = 1 /* one */", r"holds the remark '/\*'"),
        ("key = E'a'", "a kind of text that is not read"),
        ("key = $$a$$", r"is not understood: '\$' at character 7"),
        ("camera = 1; DROP TABLE images", "';' at character 11"),
        ("identity = 'O'Brien'", '"\'" at character 20 .* with a quote inside a string doubled'),
    ],
    ids=lambda text: text[:30],
)
def test_texts_that_would_end_the_process_are_refused(text: str, why: str) -> None:
    with pytest.raises(GalleryError, match=why) as refused:
        to_sql(text)
    assert len(str(refused.value)) < 1000


def test_a_text_for_milvus_has_bounds_as_well() -> None:
    assert to_milvus('camera == 1 and identity like "a%"') == 'camera == 1 and identity like "a%"'
    with pytest.raises(GalleryError, match="nests parentheses"):
        to_milvus("(" * 100 + "camera == 1" + ")" * 100)
    with pytest.raises(GalleryError, match="characters"):
        to_milvus("camera == 1" + " " * 1_000_000)


@pytest.mark.parametrize(
    "value", [10**400, True, 7, 1.5, b"a", "\udcff", float("nan"), float("inf"), [1], {}], ids=repr
)
def test_values_of_no_column_are_refused_in_short(value: Any) -> None:
    for column in ("camera", "identity", "time"):
        whole = value == 7 and value is not True
        fits = {"camera": whole, "identity": whole, "time": whole or value == 1.5}
        if fits.get(column, False):
            continue
        with pytest.raises(GalleryError, match=f"where: '{column}' is compared with") as refused:
            field(column) == value  # noqa: B015
        assert len(str(refused.value)) < 300


def test_values_are_compared_as_they_are_kept() -> None:
    noon = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    assert to_sql({"identity": 7, "track": [np.int64(3)]}) == "`identity` = '7' AND `track` IN ('3')"
    assert to_sql(field("time") >= noon) == f"`time` >= {noon.timestamp()!r}"
    assert to_sql(field("time") < np.datetime64("2024-05-01T12:00")) == f"`time` < {noon.timestamp()!r}"
    with pytest.raises(GalleryError, match=r"'key' is compared with 7; give a text"):
        field("key") == 7  # noqa: B015
