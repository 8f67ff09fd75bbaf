"""A teacher by its name in the registry, or by the folder of a trained parser."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from occluded_reid.errors import BuildError, CheckpointError, UnknownOptionError
from occluded_reid.files import as_path, is_folder
from occluded_reid.parsing.base import Teacher
from occluded_reid.registry import PARSERS

__all__ = ["open_teacher"]


def open_teacher(name: str | Path, options: Mapping[str, Any] | None = None) -> Teacher:
    """Make a teacher, or load a parser that was trained with this library.

    Args:
        name: a name in `PARSERS`, such as "onnx" or "masks", or the folder of a trained parser.
        options: of the registered class; a trained parser takes none.

    Raises:
        UnknownNameError: neither a registered name nor a folder.
        UnknownOptionError: an option is not taken, has another type, or is missing.
        BuildError: what is registered is a network without weights, or no teacher.
        CheckpointError: the folder is not one of a trained parser.
    """
    given = dict(options or {})
    if str(name) not in PARSERS and is_folder(as_path(name, CheckpointError), CheckpointError):
        from occluded_reid.parsing.saved import load_parser  # torch is not needed for masks and ONNX models

        if given:
            raise UnknownOptionError(f"'{name}' is a trained parser and takes no options; got {', '.join(given)}.")
        return load_parser(name)
    factory = PARSERS.get(str(name))
    missing = [
        each.name
        for each in inspect.signature(factory).parameters.values()
        if each.default is each.empty
        and each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)
        and each.name not in given
    ]
    if missing:
        raise UnknownOptionError(f"the parser '{name}' needs {' and '.join(missing)}: give {missing[0]}=….")
    teacher = PARSERS.create(str(name), **given)
    from occluded_reid.contracts import RegionParser

    if isinstance(teacher, RegionParser):
        raise BuildError(
            f"'{name}' is the name of a network, whose weights are random until it is trained. Give the folder of a "
            "trained one, as `occluded-reid train-parser` leaves it, instead of the name."
        )
    if not isinstance(teacher, Teacher):
        raise BuildError(f"the parser '{name}' gives {type(teacher).__name__}, which is no Teacher. Inherit from it.")
    return teacher
