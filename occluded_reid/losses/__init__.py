"""Losses over a model's named outputs, and the criterion that adds them up."""

from occluded_reid.losses.base import Loss
from occluded_reid.losses.center import CenterLoss
from occluded_reid.losses.consistency import ConsistencyLoss
from occluded_reid.losses.criterion import Criterion, LossValues
from occluded_reid.losses.distillation import DistillationLoss
from occluded_reid.losses.identity import IdentityLoss
from occluded_reid.losses.memory_contrast import MemoryContrastLoss
from occluded_reid.losses.occlusion_scores import OcclusionScoresLoss
from occluded_reid.losses.part_triplet import PartTripletLoss
from occluded_reid.losses.segmentation import SegmentationLoss
from occluded_reid.losses.separation import SeparationLoss
from occluded_reid.losses.spc import SPCLoss
from occluded_reid.losses.triplet import TripletLoss
from occluded_reid.losses.visible_part import VisiblePartLoss

__all__ = [
    "CenterLoss",
    "ConsistencyLoss",
    "Criterion",
    "DistillationLoss",
    "IdentityLoss",
    "Loss",
    "LossValues",
    "MemoryContrastLoss",
    "OcclusionScoresLoss",
    "PartTripletLoss",
    "SPCLoss",
    "SegmentationLoss",
    "SeparationLoss",
    "TripletLoss",
    "VisiblePartLoss",
]
