"""Search: tiles and exact best lists. Numbers in, positions out; it knows no files."""

from occluded_reid.search.rows import InMemoryRows, RowSource
from occluded_reid.search.topk import TopK, exact_topk

__all__ = ["InMemoryRows", "RowSource", "TopK", "exact_topk"]
