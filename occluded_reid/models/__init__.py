"""Models: a backbone, heads, a criterion and a matcher as one, built by name and loaded from a folder."""

from occluded_reid.models.build import build_model, list_models
from occluded_reid.models.checkpoint import load_model
from occluded_reid.models.cropping import visible_box
from occluded_reid.models.model import ReIDModel
from occluded_reid.models.preprocess import Preprocess

__all__ = ["Preprocess", "ReIDModel", "build_model", "list_models", "load_model", "visible_box"]
