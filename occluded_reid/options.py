"""Keywords checked against a signature, and the closest name for a misspelt one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from occluded_reid.arguments import resolve_annotation
from occluded_reid.errors import UnknownOptionError

__all__ = ["check_options", "did_you_mean"]


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known name, or an empty string.

    Example:
        >>> did_you_mean("locl", ["global", "local"])
        " Did you mean 'local'?"
    """
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def check_options(
    target: Callable[..., Any], options: Mapping[str, Any], where: str, *, skip: int = 0
) -> dict[str, Any]:
    """Check keywords against a callable's signature: their names, and their types where they are annotated.

    Args:
        target: class or function that will be called with these options.
        options: keyword arguments, as a recipe or a caller gives them.
        where: how the message names the place, such as ``"heads.parts.options"``.
        skip: leading parameters that the caller passes itself, by position.

    Returns:
        The options, with values converted where the annotation asks for it (a YAML list to a tuple).

    Raises:
        UnknownOptionError: a keyword is not taken (with the closest accepted one), or a value has the wrong type.
    """
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    signature = inspect.signature(target)
    parameters = dict(list(signature.parameters.items())[skip:])
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    checked: dict[str, Any] = {}
    for key, value in options.items():
        if key not in accepted:
            if open_ended:
                checked[key] = value
                continue
            raise UnknownOptionError(
                f"{where} takes no '{key}'.{did_you_mean(key, accepted)} Accepted: {', '.join(accepted) or 'nothing'}."
            )
        annotation = resolve_annotation(target, parameters[key].annotation)
        try:
            adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:  # the annotation carries a configuration of its own (a model or a dataclass)
            adapter = TypeAdapter(annotation)
        try:
            checked[key] = adapter.validate_python(value)
        except ValidationError as error:
            raise UnknownOptionError(
                f"{where}: '{key}' was given {value!r}; {error.errors()[0]['msg'].lower()}."
            ) from error
    return checked
