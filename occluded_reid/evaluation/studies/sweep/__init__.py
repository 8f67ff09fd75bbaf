"""Occlusion sweep: models on queries of which more and more is occluded."""

from occluded_reid.evaluation.studies.sweep.measure import SEVERITIES, sweep
from occluded_reid.evaluation.studies.sweep.result import Sweep
from occluded_reid.evaluation.studies.sweep.sweeps import Sweeps, read_sweeps

__all__ = [
    "SEVERITIES",
    "Sweep",
    "Sweeps",
    "read_sweeps",
    "sweep",
]
