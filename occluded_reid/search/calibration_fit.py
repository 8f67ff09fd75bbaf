"""How a calibration comes from labelled pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from occluded_reid._version import __version__
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import CalibrationError
from occluded_reid.matchers.base import Matcher
from occluded_reid.search.calibration import Calibration, Per
from occluded_reid.search.comparisons import Block, Comparisons, Progress, Survey
from occluded_reid.search.shared_groups import SharedGroup

__all__ = ["fit", "pool"]

_RANK = 10
"""A threshold of its own stands on at least the tenth of its smallest distances, or neighbours are pooled."""

_MATCHES = 100
"""A regression of its own has at least so many matches, or neighbours are pooled."""


def fit(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    *,
    false_match_rate: float,
    per: Per,
    gallery_size: int | None,
    prior: float,
    exclude_same_camera: bool,
    fingerprint: str | None,
    reduction: str | None,
    data: str,
    tile_rows: int,
    progress: Progress | None,
) -> Calibration:
    """Calibrate; see `Calibration.fit`."""
    _require_sense(false_match_rate, per, gallery_size, prior)
    for name, rows in (("query", query), ("gallery", gallery)):
        if not len(rows):
            raise CalibrationError(f"the {name} set is empty; give labelled images of people held out for calibration.")
    walk = Comparisons(
        query,
        gallery,
        matcher,
        exclude_same_camera=exclude_same_camera,
        tile_rows=tile_rows,
        progress=progress,
    )
    survey = walk.survey()
    _require_pairs(survey, query, gallery)
    if per == "search":
        searched = round(float(survey.unknown_gallery.mean()))
        # More images, more chances: a rate r in n images is 1 - (1 - r)^c in c · n of them. Fewer: r is still kept.
        times = max(1.0, (gallery_size or searched) / searched)
        rate = -math.expm1(math.log1p(-false_match_rate) / times)
        thresholds = _per_search(walk, survey, rate, false_match_rate, times * searched)
        gallery_size = gallery_size or searched
    else:
        thresholds = _per_comparison(walk, survey, false_match_rate)
    regressions = _regressions(survey)
    groups = []
    for n in range(1, walk.slots + 1):
        block, threshold = next((b, t) for b, t in thresholds.items() if n in b)
        source, (intercept, slope) = next((b, line) for b, line in regressions.items() if n in b)
        distance = survey.match_distance[survey.match_shared == n]
        groups.append(
            SharedGroup(
                shared=n,
                impostors=int(survey.impostors[n]),
                matches=len(distance),
                threshold_from=list(block),
                threshold=threshold,
                matches_kept=float((distance <= threshold).mean()) if len(distance) else None,
                probability_from=list(source),
                intercept=intercept,
                slope=slope,
            )
        )
    return Calibration(
        version=__version__,
        model=fingerprint,
        reduction=reduction,
        slots=query.embeddings.widths,
        matcher=matcher.config,
        per=per,
        false_match_rate=false_match_rate,
        gallery_size=gallery_size,
        prior=prior,
        exclude_same_camera=exclude_same_camera,
        data=data,
        queries=len(query),
        gallery=len(gallery),
        identities=np.union1d(query.identity, gallery.identity).tolist(),
        groups=groups,
        auroc=survey.auroc,
    )


def pool(counts: Sequence[int], needed: float) -> list[Block]:
    """Join numbers of shared slots with their neighbours until each block has enough pairs, or only one is left.

    The smallest block joins the smaller of its neighbours.

    Args:
        counts: pairs that share 1, 2, … slots.
        needed: pairs of a block.

    Example:
        >>> pool([3, 50, 900, 4000], needed=100)
        [(1, 2, 3), (4,)]
    """
    blocks: list[Block] = [(n,) for n in range(1, len(counts) + 1)]
    sizes = list(counts)
    while len(blocks) > 1 and min(sizes) < needed:
        smallest = sizes.index(min(sizes))
        beside = [i for i in (smallest - 1, smallest + 1) if 0 <= i < len(blocks)]
        first = min(smallest, min(beside, key=lambda i: sizes[i]))
        blocks[first : first + 2] = [blocks[first] + blocks[first + 1]]
        sizes[first : first + 2] = [sizes[first] + sizes[first + 1]]
    return blocks


def _per_comparison(walk: Comparisons, survey: Survey, rate: float) -> dict[Block, float]:
    """For each block the distance that a new pair of two people falls short of with probability `rate` at most.

    Among N + 1 exchangeable distances the new one is below the k-th smallest of the others with probability k / (N + 1)
    at most.
    """
    counts = survey.impostors[1:].tolist()
    blocks = pool(counts, _RANK / rate)
    wanted = {block: _rank(rate, sum(counts[n - 1] for n in block)) for block in blocks}
    if min(wanted.values()) < 1:
        raise CalibrationError(
            f"{sum(counts)} comparisons of two people cannot promise a false-match rate of {rate:.3g} per comparison; "
            f"at least {math.ceil(1 / rate) - 1} are needed. Give more people, or promise less."
        )
    return {block: _below(value) for block, value in walk.order_statistics(survey, wanted).items()}


def _per_search(walk: Comparisons, survey: Survey, rate: float, promised: float, size: float) -> dict[Block, float]:
    """For each block the distance that an unknown person's nearest image falls short of, with `rate` over all blocks.

    Each query with its own person taken out is a search for somebody unknown. Several blocks share the rate by their
    number of comparisons; the probability of a false match in any of them is at most the sum.
    """
    queries = len(survey.nearest)
    counts = survey.impostors[1:]
    total = int(counts.sum())
    if _rank(rate, queries) < 1:
        raise CalibrationError(
            f"{queries} queries cannot promise a false-match rate of {promised:.3g} per search of {size:.0f} images; "
            f"at least {math.ceil(1 / rate) - 1} are needed. Give more queries of held-out people, promise less, or "
            'calibrate per="comparison".'
        )
    nearest_of_all = walk.nearest_impostors(survey)
    blocks = pool(counts.tolist(), _RANK * total / (rate * (queries + 1)))
    thresholds = {}
    for block in blocks:
        share = 1.0 if len(blocks) == 1 else float(counts[[n - 1 for n in block]].sum()) / total
        nearest = nearest_of_all[:, list(block)].min(1)
        limit = float(np.sort(nearest)[_rank(rate * share, queries) - 1])
        # Infinite: so few queries can meet anybody in this block that no distance would break the promise.
        thresholds[block] = _below(limit) if math.isfinite(limit) else _below(float(nearest.min()))
    return thresholds


def _regressions(survey: Survey) -> dict[Block, tuple[float, float]]:
    """Intercept and slope of the log-odds for each block, matches and impostors weighing the same in all.

    Impostors enter by the middle of their cell, whose count is exact, so that tiles change nothing.
    """
    from sklearn.linear_model import LogisticRegression

    matches = np.bincount(survey.match_shared, minlength=len(survey.impostors))[1:]
    lines = {}
    cells, middles = survey.cells
    for block in pool(np.minimum(matches, survey.impostors[1:]).tolist(), _MATCHES):
        near = np.sort(survey.match_distance[np.isin(survey.match_shared, block)])
        histogram = cells[list(block)].sum(0)
        filled = np.flatnonzero(histogram)
        if not len(near) or not len(filled):
            lines[block] = (0.0, 0.0)  # nothing is known of such pairs, so a distance says nothing
            continue
        distance = np.concatenate([near, middles[filled]])
        label = np.arange(len(distance)) < len(near)
        far = histogram[filled] * (len(near) / histogram.sum())
        # In units of their own spread, so that the slight ridge that keeps separable data finite is slight everywhere.
        weight = np.concatenate([np.ones(len(near)), far])
        unit = max(float(np.sqrt(np.cov(distance, aweights=weight, ddof=0))), survey.width)
        found = LogisticRegression(C=10.0, solver="newton-cholesky", max_iter=1000).fit(
            distance[:, None] / unit, label, sample_weight=weight
        )
        # To nine digits: the last ones are the linear algebra's, which differs with the number of threads.
        slope, intercept = (float(f"{value:.9g}") for value in (found.coef_[0, 0] / unit, found.intercept_[0]))
        lines[block] = (intercept, slope) if slope < 0 else (0.0, 0.0)
    return lines


def _rank(rate: float, count: int) -> int:
    """⌊rate · (count + 1)⌋, and 0.07 · 100 is 7."""
    return math.floor(rate * (count + 1) + 1e-9)


def _below(distance: float) -> float:
    """The number just below a distance: up to it counts what is nearer."""
    return math.nextafter(distance, -math.inf)


def _require_sense(rate: float, per: str, gallery_size: int | None, prior: float) -> None:
    if not 0 < rate < 1 or not 0 < prior < 1:
        raise CalibrationError(
            f"false_match_rate is {rate} and prior {prior}; give numbers between 0 and 1: 0.01 means 1 %."
        )
    if not isinstance(per, str) or per not in ("comparison", "search"):
        raise CalibrationError(
            f"per is {per!r}; give 'search' (of searches for somebody unknown, at most so many find anything) or "
            "'comparison' (of pairs of two people, at most so many look like one)."
        )
    if gallery_size is not None and (per != "search" or gallery_size < 1):
        raise CalibrationError(
            f"gallery_size is {gallery_size} with per={per!r}; a rate per search has one of at least 1, and a rate "
            "per comparison has none."
        )


def _require_pairs(survey: Survey, query: EmbeddedSet, gallery: EmbeddedSet) -> None:
    sizes = (
        f"{len(query)} queries of {len(np.unique(query.identity))} people and {len(gallery)} gallery images of "
        f"{len(np.unique(gallery.identity))}"
    )
    if not survey.impostors[1:].sum():
        raise CalibrationError(
            f"{sizes} hold no pair of two people that share a visible slot, so no false match can be measured. "
            "Give images of several people."
        )
    if not len(survey.match_distance):
        raise CalibrationError(
            f"{sizes} hold no pair of one person under two cameras that share a visible slot, so nothing says what a "
            "match looks like. Are identities and cameras numbered alike in both sets?"
        )
