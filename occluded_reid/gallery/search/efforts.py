"""How hard a search by indexes looks: as given, or as it takes for a recall."""

from __future__ import annotations

import math
from typing import Literal, cast

import numpy as np

from occluded_reid.arguments import shown
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.values import is_whole

__all__ = ["USUAL_RECALL", "EffortLike", "assured", "require_effort"]

EffortLike = Literal["exact", "auto"] | float | tuple[int, int]
"""What `Gallery.search(effort=…)` takes; a pair is (candidates a slot, effort of the index)."""

USUAL_RECALL = 0.98
"""What "auto" wants to find of the exact answer."""


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


def assured(share: float, queries: int) -> float:
    """Return a share that was found on some queries, less one standard error: a sample tells it only so well.

    Example:
        >>> round(assured(0.985, 200), 3), assured(1.0, 200)
        (0.976, 1.0)
    """
    return share - math.sqrt(max(share * (1 - share), 0.0) / queries)
