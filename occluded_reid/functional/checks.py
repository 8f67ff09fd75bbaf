"""Checks that turn a wrong shape, type or range into a clear error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from occluded_reid.errors import ShapeError

__all__ = ["require_choice", "require_labels", "require_rank"]


def require_rank(tensor: Tensor, rank: int, name: str, shape: str) -> None:
    """Raise ShapeError unless the tensor has that many dimensions."""
    if tensor.ndim != rank:
        raise ShapeError(f"{name} must be {shape}; got {tuple(tensor.shape)}. Give it {rank} dimensions.")


def require_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise ShapeError unless the value is one of the choices."""
    if value not in choices:
        raise ShapeError(f"{name} is {value!r}; give one of {', '.join(map(repr, choices))}.")


def require_labels(labels: Tensor, shape: Sequence[int], classes: int) -> Tensor:
    """Return the labels as int64; raise ShapeError unless they are integers of that shape in 0 … classes - 1.

    On a GPU an index out of range would end the process with an assertion that names nothing.
    """
    if labels.shape != torch.Size(shape) or labels.is_floating_point() or labels.is_complex():
        raise ShapeError(
            f"labels must be integers of shape {tuple(shape)}; got {labels.dtype} {tuple(labels.shape)}. "
            "Give one class index for each place that the logits speak about."
        )
    labels = labels.long()
    wrong = (labels < 0) | (labels >= classes)
    if bool(wrong.any()):
        raise ShapeError(
            f"a label is {int(labels[wrong][0])}, but the logits have classes 0 … {classes - 1}. Map the labels first."
        )
    return labels
