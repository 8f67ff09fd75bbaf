"""Registries: names, aliases, duplicates, options, and the built-ins' strings."""

import ast
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

import occluded_reid
from occluded_reid import errors, registry
from occluded_reid.errors import (
    DuplicateNameError,
    PluginWarning,
    RegistryError,
    UnknownNameError,
    UnknownOptionError,
)
from occluded_reid.registry import HEADS, LOSSES, MATCHERS, Registry, check_options, did_you_mean

REGISTRIES = {name: getattr(registry, name) for name in registry.__all__ if name.isupper()}
BUILTINS = [
    pytest.param(name, key, target, id=f"{name}-{key}")
    for name, each in sorted(REGISTRIES.items())
    for key, target in sorted(each._builtins.items())
]


@pytest.fixture
def shapes() -> Registry[object]:
    made: Registry[object] = Registry("shape", {"decimal": "decimal:Decimal"}, {"number": "decimal"})

    @made.register("circle", aliases=("disc", "round"))
    class Circle:
        def __init__(self, *, radius: float = 1.0) -> None:
            self.radius = radius

    return made


def test_the_registries_are_the_promised_ones():
    assert sorted(REGISTRIES) == [
        *("BACKBONES", "DATASETS", "HEADS", "INDEXES", "LOSSES", "MATCHERS", "MODELS", "PARSERS"),
    ]
    assert REGISTRIES["INDEXES"].group == "occluded_reid.indexes"
    assert {r.group for r in REGISTRIES.values()} == {f"occluded_reid.{name.lower()}" for name in REGISTRIES}


@pytest.mark.parametrize(("name", "key", "target"), BUILTINS)
def test_each_builtin_is_where_its_string_says(name, key, target):
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert REGISTRIES[name].get(key) is found
    assert inspect.getdoc(found)


def decorated() -> set[tuple[str, str, str]]:
    """(registry, name, "module:attribute") of every `@HEADS.register("…")` in the package, without importing it."""
    root = Path(occluded_reid.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        module = ".".join(("occluded_reid", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register":
                    found.add((call.func.value.id, call.args[0].value, f"{module}:{node.name}"))
    return {entry for entry in found if entry[0] in REGISTRIES}


def test_the_strings_equal_the_decorators():
    """A decorator without a string would exist only after an import; a string without a decorator is a lie."""
    assert {p.values for p in BUILTINS} == decorated()


def test_decorator_and_call_form(shapes):
    @shapes.register("square")
    class Square:
        pass

    class Line:
        pass

    assert shapes.register("line")(Line) is Line
    assert shapes.get("square") is Square
    assert shapes.get("line") is Line
    assert isinstance(shapes.create("line"), Line)
    assert shapes.names() == list(shapes) == ["circle", "decimal", "line", "square"]
    assert shapes.names("*e") == ["circle", "line", "square"]
    assert len(shapes) == 4
    assert repr(shapes) == "Registry('shape', 4 names)"


def test_aliases_lead_to_the_same_object_and_are_not_listed(shapes):
    assert shapes.get("disc") is shapes.get("round") is shapes.get("circle")
    assert "disc" in shapes
    assert "disc" not in shapes.names()
    assert shapes.aliases() == {"disc": "circle", "round": "circle", "number": "decimal"}
    assert shapes.create("disc", radius=2).radius == 2.0


def test_a_builtin_is_imported_on_first_need(shapes):
    import decimal

    assert shapes._entries["decimal"] == "decimal:Decimal"
    assert shapes.get("number") is decimal.Decimal
    assert shapes._entries["decimal"] is decimal.Decimal


@pytest.mark.parametrize(
    ("wrong", "meant"), [("circel", "circle"), ("dics", "disc"), ("decmal", "decimal"), ("xyz", None)]
)
def test_unknown_names_suggest_the_closest(shapes, wrong, meant):
    with pytest.raises(UnknownNameError) as caught:
        shapes.get(wrong)
    hint = f" Did you mean '{meant}'?" if meant else ""
    assert str(caught.value) == f"no shape is named '{wrong}'.{hint} Registered: circle, decimal."
    assert wrong not in shapes
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, errors.OccludedReIDError)


def test_the_message_of_the_design():
    with pytest.raises(UnknownNameError, match=r"no head is named 'locl'\. Did you mean 'local'\? Registered: "):
        HEADS.get("locl")
    with pytest.raises(UnknownNameError, match="nothing yet"):
        Registry("thing").get("x")


@pytest.mark.parametrize("taken", ["circle", "disc", "decimal", "number"])
def test_a_taken_name_is_refused_naming_its_owner(shapes, taken):
    owner = "decimal:Decimal" if taken in ("decimal", "number") else "Circle"
    before = dict(shapes._entries), shapes.aliases()
    for names in ((taken, ()), ("free", (taken,))):
        with pytest.raises(
            DuplicateNameError, match=rf"the shape name '{taken}' is taken by \S*{owner}.*override=True"
        ):
            shapes.register(names[0], aliases=names[1])(dict)
    assert (dict(shapes._entries), shapes.aliases()) == before


def test_a_builtin_head_is_protected_without_being_imported():
    fresh: Registry[object] = Registry("head", {"local": "no_such_module:Head"})
    with pytest.raises(DuplicateNameError, match="no_such_module:Head"):
        fresh.register("local")(dict)
    with pytest.raises(DuplicateNameError, match=r"occluded_reid\.heads\.local:LocalHead"):
        HEADS.register("local")(dict)


def test_the_same_object_may_register_twice(shapes):
    circle = shapes.get("circle")
    assert shapes.register("circle", aliases=("disc",))(circle) is circle
    shapes.unregister("circle")


def test_override_is_on_purpose(shapes):
    shapes.register("circle", override=True)(dict)
    assert shapes.get("circle") is dict
    shapes.register("number", override=True)(int)  # an alias becomes a name of its own
    assert shapes.get("number") is int
    assert shapes.get("decimal") is not int


def test_unregister(shapes):
    shapes.unregister("circle")
    assert "circle" not in shapes
    assert "disc" not in shapes
    shapes.register("decimal", override=True)(dict)
    shapes.unregister("decimal")  # a built-in comes back
    assert shapes.get("decimal").__name__ == "Decimal"
    with pytest.raises(UnknownNameError, match="circle"):
        shapes.unregister("circle")


def test_create_refuses_unknown_keywords_and_wrong_types(shapes):
    with pytest.raises(UnknownOptionError) as caught:
        shapes.create("circle", radus=1)
    assert str(caught.value) == "shape 'circle' takes no 'radus'. Did you mean 'radius'? Accepted: radius."
    assert isinstance(caught.value, TypeError)
    with pytest.raises(UnknownOptionError, match=r"shape 'circle': 'radius' was given 'wide'.*valid number"):
        shapes.create("circle", radius="wide")


def test_a_positional_argument_cannot_be_given_again():
    made: Registry[object] = Registry("pair")
    made.register("pair")(lambda first, second=2: (first, second))
    assert made.create("pair", 1, second=3) == (1, 3)
    with pytest.raises(UnknownOptionError, match="takes no 'first'"):
        made.create("pair", 1, first=2)


@pytest.mark.parametrize("each", [HEADS, LOSSES, MATCHERS], ids=lambda r: r.kind)
def test_every_builtin_refuses_a_made_up_option(each):
    for name in each._builtins:
        with pytest.raises(UnknownOptionError, match="takes no 'made_up'"):
            check_options(each.get(name), {"made_up": 1}, name)


@dataclass
class Size:
    height: int


def options(
    info: object,
    *,
    widths: tuple[int, int] = (1, 2),
    mode: Literal["a", "b"] = "a",
    part: str | int = 1,
    by_name: Mapping[str, float] | None = None,
    size: Size | None = None,
    anything=None,
) -> None:
    """Takes what a recipe may hold."""


def test_options_are_converted_as_annotated():
    given = {"widths": [3, 4], "mode": "b", "part": "x", "by_name": {"a": 1}, "size": {"height": 2}, "anything": {1}}
    checked = check_options(options, given, "here", skip=1)
    assert checked == {**given, "widths": (3, 4), "size": Size(2)}
    assert check_options(options, {"widths": (5, 6), "by_name": None}, "here")["widths"] == (5, 6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"widths": [1, 2, 3]}, "here: 'widths' was given .1, 2, 3.; tuple should have at most 2 items"),
        ({"widths": [1, "many"]}, "'widths' was given"),
        ({"mode": "c"}, "'mode' was given 'c'; input should be 'a' or 'b'"),
        ({"by_name": [1]}, "'by_name' was given"),
        ({"info": 1}, "here takes no 'info'"),
        ({"mod": "a"}, "here takes no 'mod'. Did you mean 'mode'. Accepted: widths, mode, part"),
    ],
)
def test_options_that_do_not_fit(given, message):
    with pytest.raises(UnknownOptionError, match=message):
        check_options(options, given, "here", skip=1)


def test_open_ended_options_pass():
    assert check_options(lambda **more: more, {"x": 1}, "here") == {"x": 1}


def test_did_you_mean_is_silent_when_nothing_is_close():
    assert did_you_mean("num_part", ["num_parts", "neck"]) == " Did you mean 'num_parts'?"
    assert did_you_mean("zzz", ["num_parts"]) == did_you_mean("zzz", []) == ""


@pytest.mark.parametrize("raised", [SystemExit(3), GeneratorExit(), ImportError("no libwaist.so")])
def test_a_plugin_that_wants_to_end_the_process_only_warns(monkeypatch, raised):
    registry = Registry("head")

    class Point:
        name, value, module = "waist", "waist_plugin:WaistHead", "waist_plugin"

        def load(self):
            raise raised

    monkeypatch.setattr(registry, "_plugins", {"waist": Point()})
    with (
        pytest.warns(PluginWarning, match=rf"'waist' of .* could not be loaded: {type(raised).__name__}"),
        pytest.raises(RegistryError, match="failed to load"),
    ):
        registry.get("waist")


def test_ctrl_c_while_a_plugin_is_loaded_is_ctrl_c(monkeypatch):
    registry = Registry("head")

    class Point:
        name, value, module = "waist", "waist_plugin:WaistHead", "waist_plugin"

        def load(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(registry, "_plugins", {"waist": Point()})
    with pytest.raises(KeyboardInterrupt):
        registry.get("waist")
