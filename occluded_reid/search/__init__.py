"""Search: exact best lists in tiles, candidates from indexes, re-ranking, thresholds. It knows no gallery."""

from occluded_reid.search.calibration import Calibration
from occluded_reid.search.candidates import approximate_topk
from occluded_reid.search.device import choose_device, describe_device
from occluded_reid.search.factory import Estimate, estimate, parse_factory
from occluded_reid.search.neighbours import NeighbourLists
from occluded_reid.search.packed_rows import PackedRows, PackedWriter
from occluded_reid.search.recall import Effort, Recall, choose_effort, measure_recall
from occluded_reid.search.reciprocal import KReciprocal
from occluded_reid.search.reduction import Reduction
from occluded_reid.search.rerank import rerank_topk
from occluded_reid.search.rows import InMemoryRows, RowSource
from occluded_reid.search.slot_index import SlotIndex
from occluded_reid.search.topk import TopK, exact_topk

__all__ = [
    "Calibration",
    "Effort",
    "Estimate",
    "InMemoryRows",
    "KReciprocal",
    "NeighbourLists",
    "PackedRows",
    "PackedWriter",
    "Recall",
    "Reduction",
    "RowSource",
    "SlotIndex",
    "TopK",
    "approximate_topk",
    "choose_device",
    "choose_effort",
    "describe_device",
    "estimate",
    "exact_topk",
    "measure_recall",
    "parse_factory",
    "rerank_topk",
]
