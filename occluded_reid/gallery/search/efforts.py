"""How hard a search by indexes looks: as given, or as it takes for a recall that was measured when they were built."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from occluded_reid.arguments import shown
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.gallery.values import is_whole
from occluded_reid.matchers import Matcher
from occluded_reid.search.exact import exact_topk
from occluded_reid.search.recall import Effort, NotItself, try_efforts

if TYPE_CHECKING:
    from occluded_reid.gallery.index.gallery_index import GalleryIndex

__all__ = ["USUAL_RECALL", "EffortLike", "assured", "measure_efforts", "require_effort"]

EffortLike = Literal["exact", "auto"] | float | tuple[int, int]
"""What `Gallery.search(effort=…)` takes; a pair is (candidates a slot, effort of the index)."""

USUAL_RECALL = 0.98
"""What "auto" wants to find of the exact answer."""

_WANTED = (0.9, 0.95, 0.98, 0.99)
_DEAREST = 0.1  # of an exact search
_SAMPLE = 200  # images that are searched for
_DEPTH = 50  # length of the lists that are compared


def require_effort(effort: object) -> EffortLike:
    """Return an effort that makes sense.

    Raises:
        GalleryError: it does not.
    """
    if isinstance(effort, str) and effort in ("exact", "auto"):
        return cast(EffortLike, effort)
    if isinstance(effort, tuple) and len(effort) == 2 and all(is_whole(n) and n > 0 for n in effort):
        return int(effort[0]), int(effort[1])
    if isinstance(effort, int | float | np.number) and not isinstance(effort, bool) and 0 < effort <= 1:
        return float(effort)
    raise GalleryError(
        f"effort is {shown(effort)}; give 'exact', 'auto', the share of the exact answer to be found (such as 0.98), "
        "or a pair (candidates a slot, effort of the index)."
    )


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


def assured(share: float, queries: int) -> float:
    """Return a share that was found on some queries, less one standard error: a sample tells it only so well.

    Example:
        >>> round(assured(0.985, 200), 3), assured(1.0, 200)
        (0.976, 1.0)
    """
    return share - math.sqrt(max(share * (1 - share), 0.0) / queries)


def _step(recall: float) -> int:
    """How many of the recalls that are looked for have been reached."""
    return sum(recall >= wanted for wanted in _WANTED)
