"""The one way an image is brought to a model's input size, in training and in use."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["resize_image", "resize_mask"]


_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_image(image: Image.Image, height: int, width: int, resample: str = "bilinear") -> np.ndarray:
    """Return an RGB image as (height, width, 3) uint8, bilinear or bicubic, with anti-aliasing."""
    if image.size != (width, height):
        image = image.resize((width, height), _FILTERS[resample])
    return np.asarray(image, dtype=np.uint8)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask (H, W) as (height, width) of the same type, by nearest neighbour."""
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
