"""Search: exact best lists in tiles, candidates from indexes, re-ranking, thresholds. It knows no gallery."""

from occluded_reid.search.approximate import approximate_topk
from occluded_reid.search.device import choose_device, describe_device
from occluded_reid.search.exact import TopK, exact_topk
from occluded_reid.search.index.base import SlotIndex
from occluded_reid.search.index.factory import Estimate, estimate, parse_factory
from occluded_reid.search.index.packed_rows import PackedRows, PackedWriter
from occluded_reid.search.projection import Reduction
from occluded_reid.search.recall import Effort, Recall, choose_effort, measure_recall
from occluded_reid.search.rerank.bridge import Bridge, bridge_topk
from occluded_reid.search.rerank.k_reciprocal import KReciprocal
from occluded_reid.search.rerank.neighbors import NeighbourLists
from occluded_reid.search.rerank.per_query import rerank_topk
from occluded_reid.search.rows import InMemoryRows, RowSource

__all__ = [
    "Bridge",
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
    "bridge_topk",
    "choose_device",
    "choose_effort",
    "describe_device",
    "estimate",
    "exact_topk",
    "measure_recall",
    "parse_factory",
    "rerank_topk",
]
