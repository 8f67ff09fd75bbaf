"""What one call of `search` asks, checked, before it is known where the rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.efforts import EffortLike
from occluded_reid.gallery.filters import Where
from occluded_reid.gallery.images import Source
from occluded_reid.search.reciprocal import KReciprocal

__all__ = ["GroupBy", "Question", "per_query", "require_k"]

GroupBy = Literal["identity", "track"]


@dataclass(frozen=True)
class Question:
    """One call of `search`.

    Attributes:
        rows: Nq queries in the slots of the gallery, at least one.
        origins: for each query the images that it comes from and must not find; empty where there is nothing to leave
            out.
        k: how many hits.
        where: what the gallery's rows must fulfil.
        cameras: for each query its camera, whose rows are left out; None where cameras do not matter.
        identities: for each query its identity: then only rows of the same camera *and* the same identity are out.
        group_by: keep the nearest hit of each.
        effort: how hard to look.
        rerank: how to re-rank, or None.
    """

    rows: PartEmbeddings
    origins: Sequence[Sequence[Source]]
    k: int
    where: Where | None = None
    cameras: Sequence[Any] | None = None
    identities: Sequence[Any] | None = None
    group_by: GroupBy | None = None
    effort: EffortLike = "exact"
    rerank: KReciprocal | None = None

    def part(self, queries: np.ndarray, k: int | None = None) -> Question:
        """Return the same question for some of its queries, with the same or another k."""
        chosen = queries.tolist()
        return replace(
            self,
            rows=self.rows[chosen],
            origins=[self.origins[q] for q in chosen],
            k=self.k if k is None else k,
            cameras=None if self.cameras is None else [self.cameras[q] for q in chosen],
            identities=None if self.identities is None else [self.identities[q] for q in chosen],
        )


def require_k(k: object) -> int:
    """Return k as an int.

    Raises:
        GalleryError: k is no whole number, or is below 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise GalleryError(f"k is {k!r}; give a whole number of at least 1.")
    return int(k)


def per_query(name: str, value: Any, count: int) -> Sequence[Any] | None:
    """Return a value for each query, whether one for all or one for each was given.

    Raises:
        GalleryError: another number of values was given.
    """
    if value is None:
        return None
    if isinstance(value, str | int | np.integer):
        return [value] * count
    values = [v.item() if isinstance(v, np.generic) else v for v in value]
    if len(values) != count:
        raise GalleryError(
            f"{name} has {len(values)} values for {count} queries; give one for each query, or one for all."
        )
    return values
