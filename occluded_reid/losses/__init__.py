"""Losses over a model's named outputs, and the criterion that adds them up."""

from occluded_reid.losses.base import Loss
from occluded_reid.losses.center import CenterLoss
from occluded_reid.losses.criterion import Criterion, LossValues
from occluded_reid.losses.identity import IdentityLoss
from occluded_reid.losses.segmentation import SegmentationLoss
from occluded_reid.losses.spc import SPCLoss
from occluded_reid.losses.triplet import TripletLoss

__all__ = ["CenterLoss", "Criterion", "IdentityLoss", "Loss", "LossValues", "SPCLoss", "SegmentationLoss", "TripletLoss"]
