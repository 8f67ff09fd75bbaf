"""Transforms that move pixels: masks move with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from occluded_reid.data.resize import resize_mask
from occluded_reid.data.transforms.base import TRANSFORMS, Share, Transform, View, moved, require_order
from occluded_reid.errors import RecipeError

__all__ = ["Flip", "PadCrop", "Truncate"]


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


@TRANSFORMS.register("truncate")
class Truncate(Transform):
    """Cut a share of the rows, or of the columns, off one border and stretch the rest to the old size.

    A detector that frames a half-hidden person does this; the model then sees a body that starts at the knees, or ends
    at the waist.

    Args:
        p: probability.
        share: smallest and largest share that is cut off.
        sides: borders to cut at, each with equal chance; one that is listed twice has twice the chance.
    """

    def __init__(
        self,
        *,
        p: Share = 0.3,
        share: tuple[Share, Share] = (0.1, 0.6),
        sides: tuple[Literal["top", "bottom", "left", "right"], ...] = ("bottom", "bottom", "top", "left", "right"),
    ) -> None:
        require_order("truncate", "share", *share)
        if not sides or share[1] >= 1:
            raise RecipeError(
                f"data.augment 'truncate': share is {share} and sides is {sides}; something must be left of the image "
                "(share below 1), and there must be a side to cut at."
            )
        self.p, self.share, self.sides = p, share, sides

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view, cut and stretched or not."""
        if generator.random() >= self.p:
            return view
        share = generator.uniform(*self.share)
        side = self.sides[int(generator.integers(len(self.sides)))]
        height, width = view.image.shape[:2]
        rows = min(height - 1, round(share * height)) if side in ("top", "bottom") else 0
        columns = min(width - 1, round(share * width)) if side in ("left", "right") else 0
        kept = (
            slice(rows if side == "top" else 0, height - (rows if side == "bottom" else 0)),
            slice(columns if side == "left" else 0, width - (columns if side == "right" else 0)),
        )
        image = Image.fromarray(np.ascontiguousarray(view.image[kept])).resize(
            (width, height), Image.Resampling.BILINEAR
        )

        def stretch(mask: np.ndarray | None) -> np.ndarray | None:
            return None if mask is None else resize_mask(mask[kept], height, width)

        return replace(view, image=np.asarray(image), parsing=stretch(view.parsing), occlusion=stretch(view.occlusion))
