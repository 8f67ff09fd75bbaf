"""What one call of `search` asks, checked, before it is known where the rows lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from occluded_reid.arguments import shown
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters.where import Where
from occluded_reid.gallery.images import Source
from occluded_reid.gallery.search.efforts import EffortLike
from occluded_reid.gallery.values import is_whole, require_whole
from occluded_reid.search.rerank.bridge import Bridge
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

__all__ = ["GroupBy", "SearchRequest", "cameras_of", "identities_of", "require_k"]

GroupBy = Literal["identity", "track"]


@dataclass(frozen=True)
class SearchRequest:
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
    cameras: Sequence[int | None] | None = None
    identities: Sequence[str | None] | None = None
    group_by: GroupBy | None = None
    effort: EffortLike = "exact"
    rerank: KReciprocal | Bridge | None = None

    def part(self, queries: np.ndarray, k: int | None = None) -> SearchRequest:
        """Return the same request for some of its queries, with the same or another k."""
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
    return require_whole("k", k)


def cameras_of(value: Any, count: int) -> list[int | None] | None:
    """Return the number of each query's camera, whether one for all or one for each was given.

    Raises:
        GalleryError: another number of values was given, or one of them is no whole number of 64 bits.
    """

    def number(camera: Any) -> int | None:
        if camera is None:
            return None
        if isinstance(camera, float) and camera.is_integer():  # as tables write whole numbers
            camera = int(camera)
        if not is_whole(camera):
            raise GalleryError(
                f"query_camera holds {shown(camera)}; give the number of a camera, a name that the gallery knows, or "
                "None, for each query or for all of them."
            )
        return int(camera)

    values = _per_query("query_camera", value, count)
    return None if values is None else [number(camera) for camera in values]


def identities_of(value: Any, count: int) -> list[str | None] | None:
    """Return each query's identity, whether one for all or one for each was given.

    Raises:
        GalleryError: another number of values was given, or one of them is no text.
    """

    def text(identity: Any) -> str | None:
        if identity is None or isinstance(identity, str):
            return identity
        raise GalleryError(
            f"query_identity holds {shown(identity)}; a gallery's identities are texts: give one, such as '7', or "
            "None, for each query or for all of them."
        )

    values = _per_query("query_identity", value, count)
    return None if values is None else [text(identity) for identity in values]


def _per_query(name: str, value: Any, count: int) -> list[Any] | None:
    """Return a value for each query, with NumPy's numbers as Python's."""
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return [value] * count
    values = [v.item() if isinstance(v, np.generic) else v for v in value]
    if len(values) != count:
        raise GalleryError(
            f"{name} has {len(values)} values for {count} queries; give one for each query, or one for all."
        )
    return values
