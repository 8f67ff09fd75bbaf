"""Training: the loop on Accelerate, schedules, and checkpoints that resume exactly."""

from occluded_reid.training.state import EpochRecord, TrainResult
from occluded_reid.training.train import train
from occluded_reid.training.trainer import Trainer

__all__ = ["EpochRecord", "TrainResult", "Trainer", "train"]
