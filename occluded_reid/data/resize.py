"""The one way an image is brought to a model's input size, in training and in use."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["Box", "crop_mask", "resize_image", "resize_mask"]

Box = tuple[int, int, int, int]
"""What is kept of an image: left, top, right, bottom in pixels, the latter two excluded, as Pillow has it."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_image(image: Image.Image, height: int, width: int, resample: str = "bilinear") -> np.ndarray:
    """Return an RGB image as (height, width, 3) uint8, bilinear or bicubic, with anti-aliasing."""
    if image.size != (width, height):
        image = image.resize((width, height), _FILTERS[resample])
    return np.asarray(image, dtype=np.uint8)


def crop_mask(mask: np.ndarray, box: Box | None) -> np.ndarray:
    """Return the part of a mask (H, W) that lies in the box; the whole mask where there is none."""
    if box is None:
        return mask
    left, top, right, bottom = box
    return mask[top:bottom, left:right]


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask (H, W) as (height, width) of the same type, by nearest neighbour."""
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(np.ascontiguousarray(mask)).resize((width, height), Image.Resampling.NEAREST))
