"""Where a matcher fails: slices of an evaluation, and the worst queries as pictures (`worst_pages`)."""

from occluded_reid.evaluation.studies.failures.find import find_failures
from occluded_reid.evaluation.studies.failures.result import Failures
from occluded_reid.evaluation.studies.failures.slices import Slice
from occluded_reid.evaluation.studies.failures.unshared import Unshared

__all__ = [
    "Failures",
    "Slice",
    "Unshared",
    "find_failures",
]
