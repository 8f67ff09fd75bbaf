"""Transforms that move pixels: masks move with them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from occluded_reid.data.transforms.base import TRANSFORMS, Share, Transform, View, moved

__all__ = ["Flip", "PadCrop"]


@TRANSFORMS.register("flip")
class Flip(Transform):
    """Mirror left and right; left and right limbs share a class, so labels stay as they are.

    Args:
        p: probability.
    """

    def __init__(self, *, p: Share = 0.5) -> None:
        self.p = p

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view, mirrored or not."""
        return moved(view, lambda a: a[:, ::-1]) if generator.random() < self.p else view


@TRANSFORMS.register("pad_crop")
class PadCrop(Transform):
    """Pad all sides with black and background, and cut the old size out at a random place (Luo et al., BoT, 2019).

    Args:
        pad: pixels on each side.
    """

    def __init__(self, *, pad: Annotated[int, Field(ge=0)] = 10) -> None:
        self.pad = pad

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the shifted view."""
        top, left = generator.integers(0, 2 * self.pad + 1, 2)
        height, width = view.image.shape[:2]

        def shift(array: np.ndarray) -> np.ndarray:
            padded = np.pad(array, [(self.pad, self.pad), (self.pad, self.pad), (0, 0)][: array.ndim])
            return padded[top : top + height, left : left + width]

        return moved(view, shift)
