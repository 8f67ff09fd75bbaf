"""Modules that have moved are found under the names that the documentation once showed."""

from __future__ import annotations

import importlib
import sys

import pytest

import occluded_reid
from occluded_reid.moved import MOVED, RENAMED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_warns_and_is_the_module_that_has_moved(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    before = importlib.import_module(MOVED[old])
    with pytest.warns(DeprecationWarning, match=f"{old} is called {MOVED[old]} now"):
        found = importlib.import_module(old)
    assert found is before
    assert before.__name__ == MOVED[old]


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_an_old_name_of_a_class_warns_and_is_the_class(old: str) -> None:
    module, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{old} is called {RENAMED[old]} now"):
        found = getattr(importlib.import_module(module), name)
    home, _, called = RENAMED[old].rpartition(".")
    assert found is getattr(importlib.import_module(home), called)


def test_what_was_never_there_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("occluded_reid.search.nowhere")
    assert occluded_reid.__version__
