"""Calibration: thresholds that keep a promise, probabilities, and the counts of pairs that they stand on."""

from occluded_reid.calibration.calibration import Calibration

__all__ = ["Calibration"]
