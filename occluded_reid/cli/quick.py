"""A quick start of the program: packages that import more than any command uses are imported without it.

Half of the time until a search began went into modules that nothing here ever calls: the compiler of torch, which
torchvision and timm mention; the clients of a catalogue service, of which lancedb has several hundred classes; pandas,
which pyarrow looks for. While such a package is imported, stand-ins take the place of what is left out; afterwards the
real modules can be imported as ever, and a stand-in that is called after all fetches them.

This is for the program alone, whose process is its own: a library that others import leaves other packages as they are.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["quick_imports", "wait_quietly"]

_COMPILER = ("torch._dynamo",)
_CLIENTS = ("lance_namespace", "lance_namespace_urllib3_client", "pandas")
LEFT_OUT: dict[str, tuple[str, ...]] = {
    "torch": (),
    "torchvision": _COMPILER,
    "timm": _COMPILER,
    "pyarrow": ("pandas",),
    "lancedb": _CLIENTS,
}
"""Package that takes long to import -> what it is imported without."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """While entered, packages of `LEFT_OUT` that are imported for the first time are imported without that."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def wait_quietly() -> None:
    """Let threads of torch sleep while they wait, instead of spinning; for commands that compute little, before torch.

    One query would keep every core busy for seconds otherwise, most of all on a machine that others use too.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Finder(MetaPathFinder):
    """Finds the packages of `LEFT_OUT` as ever, and wraps how they are loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in LEFT_OUT:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuickLoader(spec.loader, LEFT_OUT[name])
        return spec


class _QuickLoader(Loader):
    """Runs a package with stand-ins; where it wants more of them than they give, once more without."""

    def __init__(self, loader: Loader, left_out: tuple[str, ...]) -> None:
        self._loader, self._left_out = loader, left_out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # resources of the package, for whoever asks its loader for them

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        before = set(sys.modules)
        try:
            with _no_collection(), _stand_ins(self._left_out):
                self._loader.exec_module(module)
        except (ImportError, AttributeError, TypeError):
            for name in [n for n in sys.modules if n.startswith(f"{module.__name__}.") and n not in before]:
                del sys.modules[name]
            self._loader.exec_module(module)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no garbage meanwhile, and never among what is there then: modules make a lot, and drop nothing."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def _stand_ins(names: tuple[str, ...]) -> Iterator[None]:
    """Put stand-ins in the place of modules, and of all below them, unless they have been imported already."""
    finder = _StandInFinder(tuple(name for name in names if name not in sys.modules))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if isinstance(vars(sys.modules.get(parent, finder)).get(child), _StandIn):
                delattr(sys.modules[parent], child)


class _StandInFinder(MetaPathFinder, Loader):
    """Finds a stand-in for some modules; says of pandas that it is not there, which pyarrow is prepared for."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - what the import system hands to every finder
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if not any(name == left_out or name.startswith(f"{left_out}.") for left_out in self._names):
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if spec.name == "pandas":
            raise ImportError("pandas is not needed here", name="pandas")
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _StandIn(ModuleType):
    """A module whose every name is a class that becomes the real thing when it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == "torch._dynamo" and name == "disable":
            return _not_compiled
        found = _Later(name, (), {"__module__": self.__name__, "__doc__": None})
        setattr(self, name, found)
        return found


def _not_compiled(function: Callable[..., Any] | None = None, recursive: bool = True, **_: Any) -> Any:
    """`torch._dynamo.disable` where nothing is compiled: the function itself."""
    return functools.partial(_not_compiled, recursive=recursive) if function is None else function


class _Later(type):
    """A name of a module that is imported when it is called, looked into, or compared with."""

    def _real(cls) -> Any:
        return getattr(importlib.import_module(cls.__module__), cls.__name__)

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return cls._real()(*args, **options)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._real(), name)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls._real())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls._real())
