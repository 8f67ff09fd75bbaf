"""From two embedded sets and a matcher to a report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from occluded_reid._version import __version__
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EmbeddingError, EvaluationError
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.report import ProtocolCard, Report
from occluded_reid.evaluation.streaming import MatchRanks, rank_matches
from occluded_reid.matchers.base import Matcher
from occluded_reid.search.reciprocal import KReciprocal

__all__ = ["evaluate"]


def evaluate(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    protocol: Protocol | None = None,
    *,
    rerank: KReciprocal | None = None,
    fingerprint: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measure how well a matcher ranks the gallery for each query, in bounded memory.

    Args:
        query: Nq labelled rows.
        gallery: Ng labelled rows with the same slots.
        matcher: the distance.
        protocol: what counts; None is the common rule of the re-identification benchmarks.
        rerank: re-rank by k-reciprocal encodings before counting. As published, every query and its distances to the
            other queries then change the answer of each one, which no search does: the report says so.
        fingerprint: of the model that made the embeddings, for the report.
        progress: called with (gallery rows done, gallery rows in all) after each tile.

    Returns:
        CMC, mAP and mINP with intervals, the numbers of each query, and the protocol they stand on.

    Raises:
        EvaluationError: query or gallery is empty, their slots differ, or no query has an image to find.

    Example:
        >>> import torch
        >>> from occluded_reid.embeddings import PartEmbeddings
        >>> from occluded_reid.matchers import PlainMatcher
        >>> rows = PartEmbeddings(("global",), (torch.eye(2),), torch.ones(2, 1))
        >>> query = EmbeddedSet(rows, identity=[7, 8], camera=[0, 0])
        >>> report = evaluate(query, EmbeddedSet(rows, identity=[7, 9], camera=[1, 1]), PlainMatcher())
        >>> report.mAP, report.unanswerable
        (1.0, 1)
    """
    protocol = protocol or Protocol()
    for name, rows in (("query", query), ("gallery", gallery)):
        if not len(rows):
            raise EvaluationError(f"the {name} set is empty; give at least one embedded image.")
    try:
        query.embeddings.require_same_slots(gallery.embeddings)
    except EmbeddingError as error:
        raise EvaluationError(f"query and gallery cannot be compared: {error}") from error
    found = rank_matches(
        query,
        gallery,
        matcher,
        exclude_same_camera=protocol.exclude_same_camera,
        tile_rows=protocol.tile_rows,
        rerank=rerank,
        progress=progress,
    )
    if not len(found.ranks):
        rule = " from another camera" if protocol.exclude_same_camera else ""
        raise EvaluationError(
            f"none of the {len(query)} queries has an image of its identity{rule} among the {len(gallery)} gallery "
            "images. Are identities and cameras numbered alike in both sets?"
        )
    average_precision, first_rank, inverse_penalty = _measures(found, protocol.ap)
    card = ProtocolCard(
        queries=len(query),
        gallery=len(gallery),
        query_identities=len(np.unique(query.identity)),
        gallery_identities=len(np.unique(gallery.identity)),
        excluded_pairs=found.excluded,
        pairs_without_shared_slot=found.unshared,
        slots=query.embeddings.widths,
        matcher=matcher.config,
        fingerprint=fingerprint,
        version=__version__,
        queries_sha256=_digest(query),
        reranking="" if rerank is None else f"{rerank}, uses all queries",
    )
    return Report(protocol, card, average_precision, first_rank, inverse_penalty)


def _measures(found: MatchRanks, ap: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average precision, rank of the first match, and matches / rank of the last match, for each query.

    A query without a match has NaN, 0 and NaN.
    """
    counts = np.diff(found.offsets)
    answerable = counts > 0
    nth = np.arange(len(found.ranks)) - np.repeat(found.offsets[:-1], counts) + 1
    precision = nth / found.ranks
    if ap == "trapezoid":
        # The precision just before a hit; before the very first image it is taken for 1.
        before = np.where(found.ranks > 1, (nth - 1) / np.maximum(found.ranks - 1, 1), 1.0)
        precision = (precision + before) / 2
    sums = np.bincount(np.repeat(np.arange(len(counts)), counts), weights=precision, minlength=len(counts))
    average_precision = np.full(len(counts), np.nan)
    average_precision[answerable] = sums[answerable] / counts[answerable]
    first_rank = np.zeros(len(counts), dtype=np.int64)
    first_rank[answerable] = found.ranks[found.offsets[:-1][answerable]]
    inverse_penalty = np.full(len(counts), np.nan)
    inverse_penalty[answerable] = counts[answerable] / found.ranks[found.offsets[1:][answerable] - 1]
    return average_precision, first_rank, inverse_penalty


def _digest(query: EmbeddedSet) -> str:
    """Hash of who was asked for, so that only reports over the same queries are paired."""
    digest = hashlib.sha256(query.identity.tobytes() + query.camera.tobytes())
    digest.update("\n".join(query.paths).encode())
    return digest.hexdigest()
