"""How hard a search by new indexes must look for some recalls, measured on the gallery's own images."""

from __future__ import annotations

import numpy as np

from occluded_reid.gallery.index.gallery_index import GalleryIndex
from occluded_reid.gallery.search.efforts import assured
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.matchers import Matcher
from occluded_reid.search.exact import exact_topk
from occluded_reid.search.recall import Effort, NotItself, try_efforts

__all__ = ["measure_efforts"]

_WANTED = (0.9, 0.95, 0.98, 0.99)
_DEAREST = 0.1  # of an exact search
_SAMPLE = 200  # images that are searched for
_DEPTH = 50  # length of the lists that are compared


def measure_efforts(index: GalleryIndex, rows: TableRows, matcher: Matcher, seed: int) -> list[Effort]:
    """Return the cheapest effort for each of some recalls, measured on a sample of the gallery's own images.

    For best hits and whole lists, and, where identities are known, for best hits and the true matches in the exact
    answer, which lie nearer and take less effort. Efforts that cost a tenth of an exact search are not tried.

    Args:
        index: a new build.
        rows: that it was built from.
        matcher: the distance.
        seed: of the sample.
    """
    if len(rows) < 2:
        return []
    own = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_SAMPLE])
    source, depth = index.over(rows), min(_DEPTH, len(rows) - 1)
    identity = rows.codes("identity")
    known = identity[own] >= 0
    relevant = None
    if known.mean() > 0.5:
        relevant = [np.flatnonzero(identity == i) if i >= 0 else np.empty(0, np.int64) for i in identity[own]]
    query = source.take(own)
    exact = exact_topk(query, source, matcher, depth, allowed=NotItself(own))
    efforts: list[Effort] = []
    most = {"matches": 0.0, "lists": 0.0}
    for tried in try_efforts(
        query, source, matcher, depth, index.slots,
        own=own, relevant=relevant, positions=source.positions, extra=source.extra, exact=exact, dearest=_DEAREST,
    ):  # fmt: skip
        found = {
            "matches": assured(tried.recall.least, tried.queries),
            "lists": assured(min(tried.recall.best, tried.recall.topk), tried.queries),
        }
        if any(_step(found[kind]) > _step(most[kind]) for kind in most):
            efforts.append(tried)
        most = {kind: max(most[kind], found[kind]) for kind in most}
        if min(most.values()) >= _WANTED[-1]:
            break
    return efforts


def _step(recall: float) -> int:
    """How many of the recalls that are looked for have been reached."""
    return sum(recall >= wanted for wanted in _WANTED)
