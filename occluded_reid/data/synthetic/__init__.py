"""Procedural pedestrians: a data set drawn from a seed, with true part and occlusion masks."""

from __future__ import annotations

from occluded_reid.data.synthetic.generate import LISTING, SPLITS, generate
from occluded_reid.data.synthetic.load import load_synthetic
from occluded_reid.data.synthetic.options import FORMAT_VERSION, PARTS, Difficulty, SyntheticOptions

__all__ = [
    "FORMAT_VERSION",
    "LISTING",
    "PARTS",
    "SPLITS",
    "Difficulty",
    "SyntheticOptions",
    "generate",
    "load_synthetic",
]
