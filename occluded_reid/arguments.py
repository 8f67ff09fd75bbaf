"""What callers give, compared with what a signature says, so that an odd value is an error of this library's own.

`checked` is for functions, `check_fields` for dataclasses. Both know flags, numbers, texts, paths, callbacks, this
library's classes, and lists and mappings of them. Of other types, and of what a value must be beside its type, the
function itself has to speak.
"""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeGuard, TypeVar, Union, cast, get_args, get_origin

from occluded_reid.errors import OccludedReIDError

__all__ = ["check_fields", "checked", "is_several", "resolve_annotation", "shown"]

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_SHOWN = 60
_OURS = __name__.partition(".")[0]


def shown(value: object) -> str:
    """Return a value as a message shows it: short and on one line, whatever it is.

    Example:
        >>> shown("x" * 100), shown(10**5000)
        ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…", 'a int of very many digits')
    """
    try:
        text = " ".join(repr(value).split())
    except RecursionError:
        return f"a {type(value).__name__} of very many levels"
    except Exception:  # noqa: BLE001 - whatever a stranger's class raises here, or an int of too many digits
        return f"a {type(value).__name__} of {'very many digits' if isinstance(value, int) else 'no readable form'}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def is_several(value: object) -> TypeGuard[Iterable[Any]]:
    """Tell whether a value is several values; texts, mappings and arrays without any axis are one."""
    if isinstance(value, str | bytes | Mapping):
        return False
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0


def checked(
    error: type[OccludedReIDError], *, only: Collection[str] | None = None, but: Collection[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the arguments of a function whenever it is called.

    Args:
        error: raised for a value of another type than its annotation says.
        only: parameters to check; None is all of them.
        but: parameters that are left to the function, which has better words for them.

    Example:
        >>> @checked(OccludedReIDError)
        ... def grow(by: int, loud: bool = False) -> int: ...
        >>> grow(2, loud="no")
        Traceback (most recent call last):
        ...
        occluded_reid.errors.OccludedReIDError: loud is 'no'; give True or False.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        kinds: dict[str, _Kind] | None = None  # known at the first call: before it, names of annotations may not be

        @wraps(function)
        def door(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal kinds
            if kinds is None:
                chosen = set(signature.parameters if only is None else only) - set(but)
                kinds = dict(_kinds_of(function, signature, chosen))
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError:  # not as the signature says: Python's own words are the clearest
                return function(*args, **kwargs)
            for name, kind in kinds.items():
                if name in given:
                    _require(kind, given[name], name, error)
            return function(*args, **kwargs)

        door.checked = True  # type: ignore[attr-defined]  # which doors are, a test looks after
        return door

    return decorate


def check_fields(instance: Any, error: type[OccludedReIDError], *, but: Collection[str] = ()) -> None:
    """Check the fields of a dataclass, from its ``__post_init__``.

    Raises:
        error: a value has another type than its annotation says.
    """
    for name, kind in _field_kinds(type(instance)).items():
        if name not in but:
            _require(kind, getattr(instance, name), name, error)


def resolve_annotation(target: Callable[..., Any], annotation: Any) -> Any:
    """Return the type behind a string annotation, or Any where it names what exists for type checkers only."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return eval(annotation, dict(getattr(inspect.unwrap(function), "__globals__", {})))  # the author's own
    except NameError:
        return Any


_Misfit = tuple[str, object, str]  # where it stands, what it is, what is wanted


class _Kind(ABC):
    """What an annotation lets in.

    Attributes:
        words: what is wanted.
    """

    words: str

    @abstractmethod
    def misfit(self, value: object, where: str) -> _Misfit | None:
        """Return what does not fit, the value or a part of it."""


@dataclass(frozen=True)
class _Single(_Kind):
    words: str
    fits: Callable[[object], bool]

    def misfit(self, value: object, where: str) -> _Misfit | None:
        return None if self.fits(value) else (where, value, self.words)


@dataclass(frozen=True)
class _Several(_Kind):
    words: str
    fits: Callable[[object], bool]
    part: _Kind | None

    def misfit(self, value: object, where: str) -> _Misfit | None:
        if not self.fits(value):
            return where, value, self.words
        if self.part is None:
            return None
        for name, each in value.items() if isinstance(value, Mapping) else enumerate(cast("Iterable[object]", value)):
            found = self.part.misfit(each, f"{where}[{shown(name)}]")
            if found is not None:
                return found
        return None


@dataclass(frozen=True)
class _Either(_Kind):
    words: str
    kinds: Sequence[_Kind]

    def misfit(self, value: object, where: str) -> _Misfit | None:
        found = [kind.misfit(value, where) for kind in self.kinds]
        if None in found:
            return None
        # Where the value is a list and may be one, what is wrong with it is in the list.
        return next((one for one in found if one and one[0] != where), (where, value, self.words))


def _is_flag(value: object) -> bool:
    """NumPy's flags count, and are told by their name: this module loads nothing for them."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def _is_list(value: object) -> bool:
    return is_several(value) and hasattr(value, "__len__") and hasattr(value, "__getitem__")


_SINGLE: dict[object, _Single] = {
    bool: _Single("True or False", _is_flag),
    int: _Single("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    float: _Single("a number", lambda value: isinstance(value, Real) and not isinstance(value, bool)),
    str: _Single("a text", lambda value: isinstance(value, str)),
    Path: _Single("a path", lambda value: isinstance(value, os.PathLike)),
    None: _Single("None", lambda value: value is None),
    NoneType: _Single("None", lambda value: value is None),
    Callable: _Single("a function", callable),
}


_known_fields: dict[type, Mapping[str, _Kind]] = {}


def _field_kinds(owner: type) -> Mapping[str, _Kind]:
    if owner not in _known_fields:
        kinds = {field.name: _kind(resolve_annotation(owner, field.type)) for field in fields(owner)}
        _known_fields[owner] = {name: kind for name, kind in kinds.items() if kind is not None}
    return _known_fields[owner]


def _kinds_of(
    function: Callable[..., Any], signature: inspect.Signature, chosen: Collection[str]
) -> Iterator[tuple[str, _Kind]]:
    for name, parameter in signature.parameters.items():
        if name in chosen and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            kind = _kind(resolve_annotation(function, parameter.annotation))
            if kind is not None:
                yield name, kind


def _kind(annotation: Any) -> _Kind | None:
    """What an annotation lets in, None where that is for the function to say."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin in (Union, UnionType):
        kinds = [kind for part in parts if (kind := _kind(part)) is not None]
        return _Either(_listed(kind.words for kind in kinds), kinds) if len(kinds) == len(parts) else None
    if origin is Literal:
        return _Single(
            _listed(map(repr, parts)), lambda value: any(isinstance(value, type(p)) and value == p for p in parts)
        )
    target = origin or annotation
    if target in _SINGLE:
        return _SINGLE[target]
    if not isinstance(target, type):
        return None
    if issubclass(target, Mapping):
        return _Several("a mapping", lambda value: isinstance(value, Mapping), _kind(parts[1]) if parts else None)
    if target in (Iterable, Collection):
        return _Several("several values", is_several, None)  # whatever it is can perhaps be walked through once only
    if target in (Sequence, tuple, list):
        alike = len({*parts} - {...}) == 1
        return _Several("a list", _is_list, _kind(parts[0]) if alike else None)
    unclear = getattr(target, "_is_protocol", False) and not getattr(target, "_is_runtime_protocol", False)
    if target.__module__.partition(".")[0] == _OURS and not unclear:
        return _Single(f"{_article(target.__name__)} {target.__name__}", lambda value: isinstance(value, target))
    return None


def _article(name: str) -> str:
    return "an" if name[0] in "AEIOU" else "a"


def _listed(words: Iterable[str]) -> str:
    """Several things to choose from, each once: "a, b or c"."""
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} or {last}" if first else last


def _require(kind: _Kind, value: object, name: str, error: type[OccludedReIDError]) -> None:
    found = kind.misfit(value, name)
    if found is not None:
        raise error(f"{found[0]} is {shown(found[1])}; give {found[2]}.")
