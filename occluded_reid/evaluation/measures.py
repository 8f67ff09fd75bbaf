"""From the ranks of true matches to the numbers of each query, and to a report."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from occluded_reid._version import __version__
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.report import ProtocolCard, Report
from occluded_reid.evaluation.streaming import Labelled, MatchRanks
from occluded_reid.files import text_bytes

__all__ = ["LIBRARIES", "measures", "report_of", "require_answers"]

LIBRARIES = ("torch", "numpy")
"""Whose versions stand beside the numbers, with those of this library and of Python."""


def measures(found: MatchRanks, ap: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return average precision, rank of the first match, and matches / rank of the last match, for each query.

    A query without a match has NaN, 0 and NaN.

    Args:
        found: where the matches stand.
        ap: "hits": the mean over the matches of (matches so far) / rank. "trapezoid": the mean of that and of the
            precision just before the match, which is 1 before the very first image.
    """
    counts, ranks = np.diff(found.offsets), found.ranks
    answerable = counts > 0
    nth = np.arange(len(ranks)) - np.repeat(found.offsets[:-1], counts) + 1
    precision = nth / ranks
    if ap == "trapezoid":
        before = np.where(ranks > 1, (nth - 1) / np.maximum(ranks - 1, 1), 1.0)
        precision = (precision + before) / 2
    sums = np.bincount(found.queries, weights=precision, minlength=len(counts))
    average_precision = np.full(len(counts), np.nan)
    average_precision[answerable] = sums[answerable] / counts[answerable]
    first_rank = np.zeros(len(counts), dtype=np.int64)
    first_rank[answerable] = ranks[found.offsets[:-1][answerable]]
    inverse_penalty = np.full(len(counts), np.nan)
    inverse_penalty[answerable] = counts[answerable] / ranks[found.offsets[1:][answerable] - 1]
    return average_precision, first_rank, inverse_penalty


def require_answers(answerable: int, query: Labelled, gallery: Labelled, protocol: Protocol) -> None:
    """Raise EvaluationError where no query has anything to find."""
    if answerable:
        return
    shown = int(np.isin(query.identity, gallery.identity).sum())
    if not shown or not protocol.exclude_same_camera:
        raise EvaluationError(
            f"none of the {len(query)} queries has an image of its identity among the {len(gallery)} gallery images. "
            "Are identities numbered alike in both sets?"
        )
    cameras = len(np.unique(np.concatenate([query.camera, gallery.camera])))
    every = "All images are of one camera: " if cameras == 1 else "Are cameras numbered alike in both sets? "
    raise EvaluationError(
        f"none of the {len(query)} queries has an image of its identity from another camera among the {len(gallery)} "
        f"gallery images; {shown} have some of the same camera, which the rule of the benchmarks leaves out. {every}"
        "exclude_same_camera=False (--no-exclude-same-camera) keeps them; numbers then count images of the same moment "
        "too, and look better than they are."
    )


def report_of(
    numbers: tuple[np.ndarray, np.ndarray, np.ndarray],
    query: Labelled,
    gallery: Labelled,
    protocol: Protocol,
    *,
    excluded: int,
    unshared: int,
    slots: Mapping[str, int],
    matcher: Mapping[str, Any],
    fingerprint: str = "",
    reranking: str = "",
    tuned: str = "",
    test_time: str = "",
) -> Report:
    """Return the report of some numbers.

    Args:
        numbers: average precision, rank of the first match and inverse negative penalty of each query.
        query: who was asked for.
        gallery: who was searched.
        protocol: the rules.
        excluded: pairs dropped for having one identity and one camera.
        unshared: pairs without a common slot.
        slots: slot name -> width.
        matcher: type and options.
        fingerprint: of the model.
        reranking: in words.
        tuned: what was chosen on which data, in words.
        test_time: what was done to images or embeddings beside the model itself, in words.
    """
    card = ProtocolCard(
        queries=len(query),
        gallery=len(gallery),
        query_identities=len(np.unique(query.identity)),
        gallery_identities=len(np.unique(gallery.identity)),
        excluded_pairs=excluded,
        pairs_without_shared_slot=unshared,
        slots=slots,
        matcher=matcher,
        fingerprint=fingerprint,
        version=__version__,
        queries_sha256=digest(query),
        gallery_sha256=digest(gallery, ordered=False),
        reranking=reranking,
        tuned=tuned,
        test_time=test_time,
        only_own_camera=_only_own_camera(numbers[1], query, gallery),
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    )
    return Report(protocol, card, *numbers)


def _only_own_camera(first_rank: np.ndarray, query: Labelled, gallery: Labelled) -> int:
    """Queries without an answer whose person the gallery shows: all of those images are of the query's camera."""
    unanswered = first_rank.reshape(len(first_rank), -1)[:, 0] == 0
    return int(np.isin(query.identity[unanswered], gallery.identity).sum())


def digest(images: Labelled, *, ordered: bool = True) -> str:
    """Hash of who the images show, so that only reports over the same images are paired.

    Args:
        images: identities, cameras and names.
        ordered: whether another order is another set of images: numbers of queries are paired by position, but the
            order of a gallery changes nothing.
    """
    names = images.paths or ("",) * len(images)
    lines = [f"{i},{c},{n}" for i, c, n in zip(images.identity, images.camera, names, strict=True)]
    return hashlib.sha256(text_bytes("\n".join(lines if ordered else sorted(lines)))).hexdigest()
