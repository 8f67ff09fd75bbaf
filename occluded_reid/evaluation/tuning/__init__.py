"""Choosing settings apart from testing: a validation side, what was chosen on it, and the checks."""

from occluded_reid.evaluation.tuning.choices import tune_model
from occluded_reid.evaluation.tuning.tune import Candidate, tune
from occluded_reid.evaluation.tuning.tuned import Trial, Tuned
from occluded_reid.evaluation.tuning.untouched import require_apart, require_untouched, training_note

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
