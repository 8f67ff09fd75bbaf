"""The two ends of a search: one query of several images, and hits of the positions that were found."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, GalleryError
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.gallery.storage.manifest import LABELS
from occluded_reid.matchers import Matcher
from occluded_reid.search import RowSource, TopK

__all__ = ["hits_of", "mean_queries", "mean_query"]

_DAMAGED = (
    "the metadata of '{}' is damaged: it is no JSON mapping ({}). Add the image again with replace=True, or restore "
    "the gallery from a copy."
)
_EXPLAINED_NUMBERS = 1 << 22  # numbers of gallery rows held at a time: 16 MB in float32


def mean_query(rows: PartEmbeddings) -> PartEmbeddings:
    """Make one query of several images of one person: what one image hides, another may show.

    Args:
        rows: N ≥ 1 images of the same person.

    Returns:
        One row: each slot is Σ_n v_n · e_n / Σ_n v_n with visibility max_n v_n. A slot that no image shows has
        visibility 0 and the plain mean.

    Raises:
        EmbeddingError: there is no row.

    Example:
        >>> rows = PartEmbeddings(("a",), (torch.tensor([[1.0, 0.0], [0.0, 1.0]]),), torch.tensor([[1.0], [0.0]]))
        >>> mean_query(rows).slot("a")
        tensor([[1., 0.]])
    """
    if not len(rows):
        raise EmbeddingError("a query of no images was given; give at least one image of the person.")
    weight = rows.visibility.double()
    weight = torch.where(weight.sum(0) > 0, weight, torch.ones_like(weight))
    weight = weight / weight.sum(0)
    means = (weight[:, s, None] * slot.double() for s, slot in enumerate(rows.embeddings))
    return PartEmbeddings(
        rows.names,
        tuple(mean.sum(0, keepdim=True).to(slot.dtype) for mean, slot in zip(means, rows.embeddings, strict=True)),
        rows.visibility.amax(0, keepdim=True),
    )


def mean_queries(tracks: Iterable[PartEmbeddings]) -> PartEmbeddings:
    """Return one query for each of several people, of all images of each; see `mean_query`."""
    return PartEmbeddings.cat([mean_query(rows) for rows in tracks])


def hits_of(
    query: PartEmbeddings, rows: TableRows, slots: RowSource, matcher: Matcher, best: TopK, *, reranked: bool = False
) -> list[list[Hit]]:
    """Read labels and slots of what was found, some at a time, and say why each hit is as near as it is.

    Args:
        query: Nq rows.
        rows: the gallery, for labels.
        slots: the same rows, for their slots.
        matcher: the distance.
        best: positions and distances of each query, nearest first.
        reranked: those distances are re-ranked ones.
    """
    hits: list[list[Hit]] = [[] for _ in range(len(query))]
    queries = np.repeat(np.arange(len(query)), [len(p) for p in best.positions])
    positions = np.concatenate([*best.positions, np.empty(0, np.int64)])
    distances = np.concatenate([*best.distances, np.empty(0)])
    size = max(1, _EXPLAINED_NUMBERS // sum(query.widths.values()))
    for first in range(0, len(positions), size):
        block = slice(first, first + size)
        unique, place = np.unique(positions[block], return_inverse=True)
        details = matcher.explain(query, slots.take(unique), queries[block], place)
        labels = rows.records(unique, [label for label in LABELS if label != "sha256"]).to_pylist()
        for i, (q, p) in enumerate(zip(queries[block].tolist(), place.tolist(), strict=True)):
            known = {**labels[p], "metadata": _metadata(labels[p])}
            hits[q].append(
                Hit(
                    distance=float(details.distance[i] if reranked else distances[first + i]),
                    reranked=float(distances[first + i]) if reranked else None,
                    rank=len(hits[q]) + 1,
                    slot_distances=dict(zip(query.names, details.slot_distance[i].tolist(), strict=True)),
                    shared_visibility=dict(zip(query.names, details.shared[i].tolist(), strict=True)),
                    **known,
                )
            )
    return hits


def _metadata(labels: dict[str, Any]) -> dict[str, Any]:
    """Read what was kept as JSON; other programs may have written to the table."""
    try:
        found = json.loads(labels["metadata"])
    except (ValueError, RecursionError) as cause:
        raise GalleryError(_DAMAGED.format(labels["key"], cause)) from cause
    if not isinstance(found, dict):
        raise GalleryError(_DAMAGED.format(labels["key"], f"it is a {type(found).__name__}"))
    return found
