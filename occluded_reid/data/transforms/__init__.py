"""Augmentation: image, part mask and occluder mask move together, by chance from a generator of their own."""

from __future__ import annotations

from occluded_reid.data.transforms.base import TRANSFORMS, Transform, View, make_transform
from occluded_reid.data.transforms.colour import ColorJitter, Erase
from occluded_reid.data.transforms.geometry import Flip, PadCrop, Truncate
from occluded_reid.data.transforms.occlusion import EraseOccluder, Npo, Occlude

__all__ = [
    "TRANSFORMS",
    "ColorJitter",
    "Erase",
    "EraseOccluder",
    "Flip",
    "Npo",
    "Occlude",
    "PadCrop",
    "Transform",
    "Truncate",
    "View",
    "make_transform",
]
