"""Occluding a stated share of a body with generated shapes, cut-outs from a folder, or other pedestrians."""

from __future__ import annotations

from occluded_reid.data.occlusion.cutouts import Cutout
from occluded_reid.data.occlusion.generated import KINDS
from occluded_reid.data.occlusion.occluders import Occluders
from occluded_reid.data.occlusion.place import Occluded, occlude

__all__ = ["KINDS", "Cutout", "Occluded", "Occluders", "occlude"]
