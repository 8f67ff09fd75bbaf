"""Evaluation: streaming CMC, mAP and mINP, reports with their protocol, intervals.

`embed_samples` is loaded on first use: evaluating stored embeddings needs no model.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from occluded_reid.evaluation.bootstrap import Comparison, Difference, Interval
from occluded_reid.evaluation.compare import Compared, compare
from occluded_reid.evaluation.evaluate import evaluate, evaluate_matrix
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.report import ProtocolCard, Report
from occluded_reid.evaluation.studies.failures.find import find_failures
from occluded_reid.evaluation.studies.failures.result import Failures

if TYPE_CHECKING:
    from occluded_reid.evaluation.embed import Occlusion, embed_samples
else:

    def __getattr__(name: str) -> object:
        if name not in ("Occlusion", "embed_samples"):
            raise AttributeError(f"module 'occluded_reid.evaluation' has no attribute '{name}'")
        return getattr(import_module("occluded_reid.evaluation.embed"), name)


__all__ = [
    "Compared",
    "Comparison",
    "Difference",
    "Failures",
    "Interval",
    "Occlusion",
    "Protocol",
    "ProtocolCard",
    "Report",
    "compare",
    "embed_samples",
    "evaluate",
    "evaluate_matrix",
    "find_failures",
]
