"""Arguments compared with what a signature says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from occluded_reid.arguments import check_fields, checked, is_several, shown
from occluded_reid.errors import DataError, ShapeError
from occluded_reid.numbered import whole_numbers


class Unprintable:
    def __repr__(self) -> str:
        raise TypeError


@checked(DataError)
def door(
    flag: bool = False,
    number: int = 0,
    share: float = 0.0,
    text: str = "",
    path: str | Path = "",
    call: Callable[[int, int], None] | None = None,
    kind: Literal["even", "odd"] = "even",
    several: Sequence[int] = (),
    named: Mapping[str, int | Sequence[int]] | None = None,
    walked: Iterable[int] = (),
    matrix: np.ndarray | None = None,
    *rest: int,
    **others: bool,
) -> tuple[Any, ...]:
    return flag, number, share, text, path, call, kind, several, named, walked, matrix, rest, others


GOOD: dict[str, list[Any]] = {
    "flag": [True, np.bool_(False)],
    "number": [3, -3, 10**30, np.int8(3)],
    "share": [3, 0.5, np.float32(0.5), float("nan")],
    "text": ["", "x"],
    "path": ["x", Path("x")],
    "call": [None, print, lambda done, total: None],
    "kind": ["even", "odd"],
    "several": [(), [1, 2], np.array([1, 2]), range(3)],
    "named": [None, {}, {"a": 1, "b": [1, 2]}],
    "walked": [(), {1, 2}, iter([1])],
    "matrix": ["whatever", 3],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_an_annotation_lets_in_comes_through_as_it_is(name: str) -> None:
    place = list(GOOD).index(name)
    for value in GOOD[name]:
        assert door(**{name: value})[place] is value


@pytest.mark.parametrize(
    ("name", "refused", "wanted"),
    [
        ("flag", [None, 3, 0.5, "x", b"x", ["a"], np.array([True, False]), np.array(True)], "True or False"),
        ("number", [None, True, 0.5, "x", np.array(3)], "a whole number"),
        ("share", [None, True, "x", 1j], "a number"),
        ("text", [None, True, 3, b"x", ["a"]], "a text"),
        ("path", [None, True, 3, b"x", ["a"]], "a text or a path"),
        ("call", [True, 3, "x", [print]], "a function or None"),
        ("kind", [None, True, "eve", ["even"], np.array(["even", "odd"])], "'even' or 'odd'"),
        ("several", [None, 3, "12", b"12", {"a": 1}, {1, 2}, np.array(3)], "a list"),
        ("named", [True, 3, "x", ["a"]], "a mapping or None"),
        ("walked", [None, 3, "x", {"a": 1}, np.array(3)], "several values"),
    ],
)
def test_what_it_does_not_let_in_is_named(name: str, refused: Sequence[Any], wanted: str) -> None:
    for value in refused:
        with pytest.raises(DataError) as raised:
            door(**{name: value})
        assert str(raised.value) == f"{name} is {shown(value)}; give {wanted}."


def test_what_is_wrong_within_a_list_or_a_mapping_is_named_by_its_place() -> None:
    for given, message in (
        ({"several": [1, "b"]}, "several[1] is 'b'; give a whole number."),
        ({"named": {"a": 1, "b": None}}, "named['b'] is None; give a whole number or a list."),
        ({"named": {"a": [1, None]}}, "named['a'][1] is None; give a whole number."),
    ):
        with pytest.raises(DataError) as raised:
            door(**given)  # type: ignore[arg-type]
        assert str(raised.value) == message


def test_a_call_that_fits_no_signature_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="got multiple values for argument 'flag'"):
        door(True, flag=False)
    assert door(True, 1, 1.0, "", "", None, "odd", (), None, (), None, 7, loud="yes")[-2:] == ((7,), {"loud": "yes"})  # type: ignore[arg-type]


def test_a_door_is_the_function_that_it_was() -> None:
    assert door.__name__ == "door"
    assert door.__module__ == __name__


def test_only_what_is_asked_for_is_checked() -> None:
    def plain(flag: bool, number: int) -> tuple[Any, Any]:
        return flag, number

    assert checked(DataError, but=("number",))(plain)(True, "x") == (True, "x")  # type: ignore[arg-type]
    assert checked(DataError, only=("number",))(plain)("x", 1) == ("x", 1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="number is 'x'"):
        checked(DataError, only=("number",))(plain)("x", "x")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Settings:
    flag: bool = False
    sizes: tuple[float, float] = (0.0, 1.0)
    later: Unknown | None = None  # type: ignore[name-defined]  # noqa: F821 - as names for type checkers only are

    def __post_init__(self) -> None:
        check_fields(self, ShapeError)


def test_fields_are_checked_like_arguments() -> None:
    assert Settings(True, (1, 2), "anything").sizes == (1, 2)
    for name, value in (("flag", [True]), ("sizes", ("a", 1.0)), ("sizes", 3)):
        with pytest.raises(ShapeError, match=name):
            Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 100, "'" + "x" * 59 + "…"),
        (10**5000, "a int of very many digits"),
        (Unprintable(), "a Unprintable of no readable form"),
        (np.zeros((2, 2)), "array([[0., 0.], [0., 0.]])"),
        ("a\nb", r"'a\nb'"),
    ],
    ids=["long", "digits", "unprintable", "array", "lines"],
)
def test_a_value_is_shown_short_and_on_one_line(value: Any, said: str) -> None:
    assert shown(value) == said


def test_a_list_that_holds_itself_is_shown() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list of very many levels"


@pytest.mark.parametrize("value", ["ab", b"ab", {"a": 1}, 3, None, np.array(3), np.float64(3)])
def test_one_value_is_not_several(value: Any) -> None:
    assert not is_several(value)
    assert is_several([value])
    assert is_several(np.array([1]))


def test_whole_numbers_are_int64_whatever_holds_them() -> None:
    for given in ([1, 2], (1.0, 2.0), np.array([1, 2], np.uint8), np.array([1.0, 2.0]), np.array([1, 2.0], object)):
        found = whole_numbers("identity", given, ShapeError)
        assert found.dtype == np.int64
        assert found.tolist() == [1, 2]
    assert whole_numbers("identity", [], ShapeError).shape == (0,)
    assert whole_numbers("identity", np.zeros((2, 3)), ShapeError).shape == (2, 3)
    largest = [2**63 - 1, -(2**63)]
    assert whole_numbers("identity", largest, ShapeError).tolist() == largest


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([1, None], r"holds None \(number 1"),
        ([1, float("nan")], r"holds nan \(number 1"),
        ([1, 1.5], "holds 1.5"),
        ([float("inf")], "holds inf"),
        ([1, 10**30], "holds 1000000000000000000000000000000"),
        ([2**63], "holds 9223372036854775808"),
        (np.array([2**63], np.uint64), "holds 9223372036854775808"),
        ([-1e30], "holds -1e"),
        (["0002", "0003"], r"holds '0002' \(number 0.*np\.unique"),
        ([True, False], "holds True"),
        ([1, True, None], "holds True"),
        ("0002", "holds '0002'"),
        (None, "holds None"),
        ([[1], [1, 2]], r"is \[\[1\], \[1, 2\]\]"),
        ([1j], "holds 1j"),
    ],
)
def test_labels_that_are_no_whole_numbers_are_named(values: Any, named: str) -> None:
    with pytest.raises(ShapeError, match=f"identity {named}"):
        whole_numbers("identity", values, ShapeError)
