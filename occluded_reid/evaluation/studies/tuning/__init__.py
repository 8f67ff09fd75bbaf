"""Choosing settings apart from testing: a validation side, what was chosen on it, and the checks."""

from occluded_reid.evaluation.leakage import require_apart, require_untouched, training_note
from occluded_reid.evaluation.studies.tuned import Trial, Tuned
from occluded_reid.evaluation.studies.tuning.choices import tune_model
from occluded_reid.evaluation.studies.tuning.tune import Candidate, tune

__all__ = [
    "Candidate",
    "Trial",
    "Tuned",
    "require_apart",
    "require_untouched",
    "training_note",
    "tune",
    "tune_model",
]
