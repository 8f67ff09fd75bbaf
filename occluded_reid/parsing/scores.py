"""How well a parser agrees with masks: pixel accuracy and intersection over union, counted in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from occluded_reid.errors import ShapeError

__all__ = ["ConfusionMatrix", "ParsingScores"]


@dataclass(frozen=True)
class ParsingScores:
    """Agreement of predicted classes with true ones.

    Attributes:
        pixel_accuracy: share of pixels whose class is right.
        mean_iou: mean of the classes' IoU over those that occur.
        iou: class -> |true ∩ predicted| / |true ∪ predicted|; None where a class is neither true nor predicted.
        pixels: how many were counted.
    """

    pixel_accuracy: float
    mean_iou: float
    iou: dict[str, float | None]
    pixels: int

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as JSON knows them."""
        return {**vars(self), "iou": dict(self.iou)}

    def format(self) -> str:
        """Return a line for the whole, and one for each class."""
        width = max(map(len, self.iou))
        lines = [f"pixel accuracy {self.pixel_accuracy:.4f}, mean IoU {self.mean_iou:.4f} over {self.pixels} pixels"]
        lines += [f"  {name:<{width}}  {'–' if v is None else format(v, '.4f')}" for name, v in self.iou.items()]
        return "\n".join(lines)


class ConfusionMatrix:
    """Counts pairs of true and predicted class; memory does not grow with the number of images.

    Args:
        names: of the classes 0, 1, …
        ignore: true class whose pixels do not count, or None.

    Example:
        >>> matrix = ConfusionMatrix(["background", "body"])
        >>> matrix.add(np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, 1]]))
        >>> matrix.scores().pixel_accuracy, matrix.scores().iou
        (0.75, {'background': 0.5, 'body': 0.6666666666666666})
    """

    def __init__(self, names: Sequence[str], *, ignore: int | None = None) -> None:
        self.names, self.ignore = tuple(names), ignore
        self.counts = np.zeros((len(self.names), len(self.names)), dtype=np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count the pixels of a mask, or of several.

        Args:
            truth: whole numbers in 0 … classes - 1, any shape.
            predicted: the same shape.

        Raises:
            ShapeError: the shapes differ, or a class is out of range.
        """
        classes = len(self.names)
        if truth.shape != predicted.shape:
            raise ShapeError(f"masks to compare must have one shape; got {truth.shape} and {predicted.shape}.")
        kept = np.ones(truth.shape, bool) if self.ignore is None else truth != self.ignore
        true, seen = truth[kept].astype(np.int64), predicted[kept].astype(np.int64)
        for name, labels in (("true", true), ("predicted", seen)):
            if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
                raise ShapeError(
                    f"a {name} class is {labels.min()} … {labels.max()}; the matrix counts 0 … {classes - 1}. "
                    "Map the labels to the same classes first."
                )
        self.counts += np.bincount(true * classes + seen, minlength=classes**2).reshape(classes, classes)

    def scores(self) -> ParsingScores:
        """Return the scores of everything counted so far.

        Raises:
            ShapeError: nothing was counted.
        """
        total = int(self.counts.sum())
        if not total:
            raise ShapeError("no pixel was counted, so there are no scores. Add masks first.")
        both = np.diag(self.counts)
        either = self.counts.sum(0) + self.counts.sum(1) - both
        iou = {n: float(b / e) if e else None for n, b, e in zip(self.names, both, either, strict=True)}
        found = [value for value in iou.values() if value is not None]
        return ParsingScores(float(both.sum() / total), float(np.mean(found)), iou, total)
