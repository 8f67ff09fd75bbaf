"""Searches for people who may not be there: thresholds, identification, verification, calibration."""

from occluded_reid.evaluation.open_set.identification import Identification, evaluate_identification
from occluded_reid.evaluation.open_set.reliability import Reliability, evaluate_reliability
from occluded_reid.evaluation.open_set.study import OpenSetStudy, open_set_study
from occluded_reid.evaluation.open_set.threshold import OpenSetReport, evaluate_open_set, split_people
from occluded_reid.evaluation.open_set.verification import Verification, evaluate_verification

__all__ = [
    "Identification",
    "OpenSetReport",
    "OpenSetStudy",
    "Reliability",
    "Verification",
    "evaluate_identification",
    "evaluate_open_set",
    "evaluate_reliability",
    "evaluate_verification",
    "open_set_study",
    "split_people",
]
