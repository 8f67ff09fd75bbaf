"""Modules that have moved: names of the documentation or of programs work for this release, with a warning."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

__all__ = ["MOVED", "RENAMED", "find_moved", "find_renamed"]

MOVED = {
    "occluded_reid.evaluation.study": "occluded_reid.evaluation.studies.study",
    "occluded_reid.gallery.conditions": "occluded_reid.gallery.filters.conditions",
    "occluded_reid.gallery.ledger": "occluded_reid.gallery.storage.ledger",
    "occluded_reid.models.crop_cache": "occluded_reid.models.cropping",
    "occluded_reid.models.export": "occluded_reid.models.checkpoint",
    "occluded_reid.gallery.folder": "occluded_reid.gallery.local",
    "occluded_reid.gallery.remote": "occluded_reid.gallery.object_store",
    "occluded_reid.search.calibration": "occluded_reid.calibration.calibration",
    "occluded_reid.search.candidates": "occluded_reid.search.approximate",
    "occluded_reid.search.reciprocal": "occluded_reid.search.rerank.k_reciprocal",
    "occluded_reid.search.reduction": "occluded_reid.search.projection",
    "occluded_reid.search.slot_index": "occluded_reid.search.index.base",
    "occluded_reid.search.topk": "occluded_reid.search.exact",
}


RENAMED = {
    "occluded_reid.gallery.RemoteGallery": "occluded_reid.gallery.object_store.ObjectStoreGallery",
    "occluded_reid.gallery.local.FolderGallery": "occluded_reid.gallery.local.LocalGallery",
    "occluded_reid.gallery.object_store.RemoteGallery": "occluded_reid.gallery.object_store.ObjectStoreGallery",
}


def find_renamed(module: str, name: str) -> Any:
    """Return what an old name in a module stands for; a module's `__getattr__` asks.

    Raises:
        AttributeError: the module never had such a name.
    """
    new = RENAMED.get(f"{module}.{name}")
    if new is None:
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    text = f"{module}.{name} is called {new} now; the old name goes with the next release."
    warnings.warn(text, DeprecationWarning, stacklevel=3)
    home, _, called = new.rpartition(".")
    return getattr(import_module(home), called)


class _Finder:
    """Asked by Python's import when nothing else knows a module."""

    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, cast(Any, _Loader())) if name in MOVED else None


class _Loader:
    """Puts the module that has moved in the place of its old name."""

    def create_module(self, _spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        text = f"{old} is called {MOVED[old]} now; the old name goes with the next release."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(MOVED[old])


def find_moved() -> None:
    """Let Python find what has moved; called once, by the package."""
    sys.meta_path.append(_Finder())
