"""Answers that may be "nobody here": only hits that are near enough to be the person asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.threshold import shared_of_visibility, within_threshold
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.matchers import Matcher
from occluded_reid.search.exact import TopK

__all__ = ["Answer", "Threshold", "answer_within"]

Threshold = float | Calibration | Literal["calibrated"]
"""What `Gallery.search(threshold=…)` takes."""


Answer = Callable[[SearchRequest], list[list[Hit]]]
"""Answers a checked request that has at least one query."""


def answer_within(
    answer: Answer, request: SearchRequest, matcher: Matcher, limit: float | Calibration
) -> list[list[Hit]]:
    """Return the k nearest hits of each query that lie within their threshold; none means that no person was found.

    Args:
        answer: answers a request without a threshold.
        request: what is asked.
        matcher: the distance.
        limit: one distance for every hit, or a calibration, which knows one for each number of shared slots.
    """
    hits: dict[int, list[Hit]] = {}

    def ask(queries: np.ndarray, count: int) -> TopK:
        hits.update(zip(queries.tolist(), answer(request.part(queries, count)), strict=True))
        found = [hits[q] for q in queries.tolist()]
        return TopK([np.arange(len(f)) for f in found], [np.array([hit.distance for hit in f]) for f in found])

    def shared(queries: np.ndarray, _best: TopK) -> list[np.ndarray]:
        return [np.array([_shared(hit, matcher) for hit in hits[q]], dtype=np.int64) for q in queries.tolist()]

    near = within_threshold(ask, shared, len(request.origins), request.k, limit)
    return [
        [_judged(hits[q][place], rank, matcher, limit) for rank, place in enumerate(places.tolist(), 1)]
        for q, places in enumerate(near.positions)
    ]


def _shared(hit: Hit, matcher: Matcher) -> int:
    return shared_of_visibility(hit.shared_visibility, matcher)


def _judged(hit: Hit, rank: int, matcher: Matcher, limit: float | Calibration) -> Hit:
    """The hit at its new rank, with how likely it is the person where a calibration knows."""
    if not isinstance(limit, Calibration):
        return replace(hit, rank=rank)
    return replace(hit, rank=rank, probability=float(limit.probability([hit.distance], [_shared(hit, matcher)])[0]))
