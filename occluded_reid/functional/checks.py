"""Checks that turn a wrong shape into a clear error."""

from __future__ import annotations

from torch import Tensor

from occluded_reid.errors import ShapeError

__all__ = ["require_choice", "require_rank"]


def require_rank(tensor: Tensor, rank: int, name: str, shape: str) -> None:
    """Raise ShapeError unless the tensor has that many dimensions."""
    if tensor.ndim != rank:
        raise ShapeError(f"{name} must be {shape}; got {tuple(tensor.shape)}.")


def require_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise ShapeError unless the value is one of the choices."""
    if value not in choices:
        raise ShapeError(f"{name} is {value!r}; give one of {', '.join(map(repr, choices))}.")
