"""What a start of the program imports, and what the stand-ins for the rest become when somebody uses them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid.cli import quick

Cli = Callable[..., Any]

NEVER_NEEDED = {
    "accelerate",
    "lance_namespace",
    "lance_namespace_urllib3_client",
    "matplotlib",
    "pandas",
    "pytorch_metric_learning",
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo",
}


def python(code: str, *arguments: object) -> list[str]:
    """Run some code in a process of its own and return the lines that it printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()


PROGRAM = """
import sys
from occluded_reid.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
IMPORTED = PROGRAM + "print('imported:', *sys.modules)"


def imported(*arguments: object) -> set[str]:
    (line,) = [line for line in python(IMPORTED, *arguments) if line.startswith("imported: ")]
    return set(line.split()[1:])


def test_the_package_and_help_import_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "timm", "lancedb", "pyarrow", "numpy", *NEVER_NEEDED}
    (line,) = python("import occluded_reid, sys; print(*sys.modules)")
    assert not heavy & set(line.split())
    assert not heavy & imported("search", "--help")


def test_a_search_imports_what_it_needs_and_gives_the_same_answer(
    cli: Cli, people: Path, trained: Path, tmp_path: Path
) -> None:
    model, asked = trained / "model", next((people / "query").iterdir())
    assert cli("index", tmp_path / "g", "--model", model, "--data", people, "--dataset", "synthetic").code == 0
    arguments = ["search", tmp_path / "g", asked, "--model", model]
    assert not NEVER_NEEDED & imported(*arguments)
    assert python(PROGRAM, *arguments, "--json") == cli(*arguments, "--json").out.splitlines()


def test_what_was_left_out_can_be_imported_and_used_afterwards() -> None:
    lines = python(
        """
import sys
from occluded_reid.cli.quick import quick_imports
with quick_imports():
    import timm, lancedb, lancedb.db
    left_out = [name for name in ("torch._dynamo", "lance_namespace", "pandas") if name in sys.modules]
print(left_out, [type(finder).__name__ for finder in sys.meta_path if "Finder" == type(finder).__name__])
import torch
stand_in = lancedb.db.ListTablesResponse
made = stand_in(tables=["a"])
import lance_namespace
print(type(made) is lance_namespace.ListTablesResponse, isinstance(made, stand_in), made.tables)
print(issubclass(lance_namespace.ListTablesResponse, stand_in), stand_in.model_fields is made.__class__.model_fields)
try:
    raise lancedb.db.TableNotFoundError("none")
except lance_namespace.errors.TableNotFoundError as error:
    print("raised", error)
torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1).step()
print("torch._dynamo" in sys.modules, callable(torch.compiler.disable(lambda: 0)))
"""
    )
    assert lines == ["[] []", "True True ['a']", "True True", "raised none", "True True"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package `heavy_one`, in whose place the tests write, and the module `left_out_one`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(quick.LEFT_OUT, "heavy_one", ("left_out_one",))
    folder = tmp_path / "heavy_one"
    folder.mkdir()
    (tmp_path / "left_out_one.py").write_text("value = 3\nclass Base: pass\n", encoding="utf-8")
    for name in ("heavy_one", "heavy_one.part", "left_out_one"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def test_a_package_that_wants_more_is_imported_as_ever(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "part.py").write_text("from left_out_one import value\ntotal = value + 1\n", encoding="utf-8")
    (package / "__init__.py").write_text("from heavy_one.part import total\n", encoding="utf-8")
    with quick.quick_imports():
        import heavy_one  # type: ignore[import-not-found]
    assert heavy_one.total == 4
    for name in ("heavy_one", "heavy_one.part", "left_out_one"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_mistake_of_the_package_itself_is_raised_on(package: Path) -> None:
    (package / "__init__.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    with quick.quick_imports(), pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        import heavy_one  # noqa: F401
    assert "heavy_one" not in sys.modules
    assert not any(isinstance(finder, quick._Finder | quick._StandInFinder) for finder in sys.meta_path)
