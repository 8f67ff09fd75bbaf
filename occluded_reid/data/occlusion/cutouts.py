"""Cutout: something with a transparent surrounding that can be pasted over a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from occluded_reid.errors import DataError

__all__ = ["Cutout", "make_cutout"]

MAX_SIDE = 256


@dataclass(frozen=True)
class Cutout:
    """A thing cut out of its surrounding.

    Attributes:
        colour: (h, w, 3) uint8, multiplied by alpha, so that resizing draws in nothing from the surrounding.
        alpha: (h, w) uint8.
        kind: what it is: ``"car"``, ``"pedestrian"``, or the name of its file.
        identity: of a pedestrian, whom it must not occlude.
    """

    colour: np.ndarray
    alpha: np.ndarray
    kind: str
    identity: str | None = None


def make_cutout(pixels: np.ndarray, kind: str, identity: str | None = None) -> Cutout:
    """Trim (h, w, 4) uint8 RGBA to what is not transparent, and shrink it to at most 256 pixels a side.

    Raises:
        DataError: everything is transparent.
    """
    rows = np.flatnonzero((pixels[..., 3] >= 128).any(1))
    columns = np.flatnonzero((pixels[..., 3] >= 128).any(0))
    if not len(rows):
        raise DataError(f"the cut-out '{kind}' is transparent everywhere; give one with something in it.")
    image = Image.fromarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    trimmed = np.asarray(image)
    alpha = np.ascontiguousarray(trimmed[..., 3])
    colour = np.round(trimmed[..., :3] * (alpha[..., None] / np.float32(255))).astype(np.uint8)
    return Cutout(colour, alpha, kind, identity)
