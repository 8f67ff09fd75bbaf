"""The file beside a folder of masks that says what made them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from occluded_reid.errors import MaskError
from occluded_reid.files import read_json
from occluded_reid.parsing.base import Teacher

__all__ = ["SIDECAR", "check_sidecar", "describe_masks"]

SIDECAR = "parsing.json"
"""What a folder of masks was made with, beside the masks."""

_FORMAT = 1


def describe_masks(teacher: Teacher, to: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what masks are made with, as it comes back from JSON, so that it can be compared."""
    content = {"format": _FORMAT, "label_set": to, "map": options, "teacher": type(teacher).__name__}
    plain: dict[str, Any] = json.loads(json.dumps({**content, "settings": teacher.describe()}))
    return plain


def check_sidecar(output: Path, description: dict[str, Any], masks: Sequence[Path], overwrite: bool) -> None:
    """Refuse a folder that holds masks of something else; with `overwrite`, remove them.

    They are removed at once, and not as they are replaced: a run that is stopped then leaves no mixture, which the next
    one could not tell apart.

    Args:
        output: the masks' folder.
        description: of the masks that are wanted.
        masks: their files, there or not.
        overwrite: other masks may go.

    Raises:
        MaskError: they may not.
    """
    sidecar = output / SIDECAR
    if sidecar.is_file():
        found = read_json(sidecar, MaskError)
        if found == description:
            return
        if not overwrite:
            raise MaskError(
                f"'{output}' holds masks that were made with other settings: {_difference(found, description)}. "
                "Choose another folder, or give overwrite to make all masks again."
            )
    elif not overwrite and any(path.exists() for path in masks):
        raise MaskError(
            f"'{output}' holds masks and no {SIDECAR} that says what made them. Choose another folder, or give "
            "overwrite to make all masks again."
        )
    for path in masks:
        path.unlink(missing_ok=True)


def _difference(there: Any, here: Any) -> str:
    """The leaves in which two descriptions differ."""
    old, new = dict(_leaves(there)), dict(_leaves(here))
    differing = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    shown = [f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in differing]
    return "; ".join(shown[:6]) + ("; …" if len(shown) > 6 else "")


def _leaves(content: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(content, dict):
        yield above, content
        return
    for key, value in content.items():
        yield from _leaves(value, f"{above}.{key}" if above else str(key))
