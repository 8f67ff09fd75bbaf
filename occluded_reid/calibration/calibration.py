"""Calibration: from which distance on a hit is no match, and how likely a hit is the same person."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from occluded_reid._version import __version__
from occluded_reid.arguments import checked
from occluded_reid.calibration.pairs import Block, Comparisons, Progress, Survey
from occluded_reid.calibration.shared_groups import SharedGroup, by_shared, checked_distances
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import CalibrationError
from occluded_reid.files import read_json, write_json
from occluded_reid.matchers.base import Matcher

__all__ = ["CALIBRATION_FILE", "Calibration", "Per", "pool"]

CALIBRATION_FILE = "calibration.json"
"""Its name in the folder of a gallery."""

_log = logging.getLogger("occluded_reid")
_USEFUL = 0.6  # AUROC from which on a model tells people apart at all
FORMAT = "occluded_reid.calibration"
FORMAT_VERSION = 2
Per = Literal["comparison", "search"]
"""Of what a false-match rate is a share: of comparisons of two people, or of searches for a person who is not there."""

_RANK = 10
"""A threshold of its own stands on at least the tenth of its smallest distances, or neighbours are pooled."""

_MATCHES = 100
"""A regression of its own has at least so many matches, or neighbours are pooled."""


class Calibration(BaseModel):
    """Thresholds for a wanted false-match rate, and probabilities, by the number of slots that a pair shares.

    Two promises are easily confused, so `per` says which one was made:

    - per **comparison**: of all pairs of two people, at most this share lies within the threshold. It says nothing
      about a search, which makes as many comparisons as the gallery has images.
    - per **search**: of all searches for somebody who is *not* in a gallery of `gallery_size` images, at most this
      share finds anything at all. This is what "nobody here" needs.

    A promise holds on average over calibrations, for people, cameras and occlusions like those calibrated with. It is
    made by rank, without a model of the distances: a hit must be nearer than the k-th smallest of N, with
    k = ⌊rate · (N + 1)⌋. Images of one person are alike, so a calibration is less certain than its number of pairs
    suggests; `evaluation.open_set.evaluate_open_set` tests it on other people.

    Attributes:
        format: marks the file as ours.
        format_version: raised when older libraries could no longer read the file.
        version: of this library.
        model: fingerprint of the model whose embeddings were compared, or None.
        reduction: fingerprint of the reduction of its embeddings, or None.
        slots: slot -> width.
        matcher: type and options.
        per: of what `false_match_rate` is a share.
        false_match_rate: the promise.
        gallery_size: of searches: images in the gallery that the promise was made for; a smaller one keeps it too.
        prior: probability of a match beforehand that `probability` takes unless told otherwise.
        exclude_same_camera: whether matches of one camera were left out.
        data: name of the data.
        part: what of it this was and how it was shown, in words: "test; 35 % of each body mask occluded".
        queries: images asked for, each as somebody who is not there.
        gallery: images that they were compared with.
        people: names of the people among them, sorted; empty where not given.
        groups: one for each number of shared slots, from 1.
        auroc: how often a match was nearer than two people who share as many slots: 1 is perfect, 0.5 is chance. None
            where it is not known.

    Example:
        >>> import torch
        >>> from occluded_reid.embeddings import PartEmbeddings
        >>> from occluded_reid.matchers import PlainMatcher
        >>> rows = PartEmbeddings(("global",), (torch.eye(40).repeat(2, 1),), torch.ones(80, 1))
        >>> people = EmbeddedSet(rows, identity=np.arange(80) % 40, camera=np.arange(80) // 40)
        >>> found = Calibration.fit(people, people, PlainMatcher(), false_match_rate=0.05, per="search")
        >>> found.accepts([0.0, 1.0], [1, 1])
        array([ True, False])
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["occluded_reid.calibration"] = "occluded_reid.calibration"
    format_version: int = FORMAT_VERSION
    version: str
    model: str | None = None
    reduction: str | None = None
    slots: dict[str, int]
    matcher: dict[str, Any]
    per: Per
    false_match_rate: float = Field(gt=0, lt=1)
    gallery_size: int | None = Field(default=None, ge=1)
    prior: float = Field(gt=0, lt=1)
    exclude_same_camera: bool
    data: str = ""
    part: str = ""
    queries: int = Field(ge=1)
    gallery: int = Field(ge=1)
    people: list[str] = Field(default_factory=list)
    groups: list[SharedGroup] = Field(min_length=1)
    auroc: float | None = Field(default=None, ge=0, le=1)

    @property
    def caution(self) -> str | None:
        """What must be known before these thresholds are used: that the model is hardly better than chance."""
        if self.auroc is None or self.auroc >= _USEFUL:
            return None
        return (
            f"this model hardly tells these people apart: a match is nearer than two people in {self.auroc:.0%} of "
            "cases, where 50% is chance. The promise holds, but hardly anybody is found within the thresholds, and the "
            "probabilities say next to nothing. Was the model trained, and on images like these?"
        )

    @staticmethod
    @checked(CalibrationError, but=("per",))
    def fit(
        query: EmbeddedSet,
        gallery: EmbeddedSet,
        matcher: Matcher,
        *,
        false_match_rate: float = 0.01,
        per: Per = "search",
        gallery_size: int | None = None,
        prior: float = 0.5,
        exclude_same_camera: bool = True,
        fingerprint: str | None = None,
        reduction: str | None = None,
        data: str = "",
        people: Sequence[str] = (),
        part: str = "",
        tile_rows: int = 1024,
        progress: Callable[[int, int], None] | None = None,
    ) -> Calibration:
        """Calibrate on people who were neither trained on nor will be tested on.

        Memory: one tile, and for each number of shared slots 20,001 counts and one number a query.

        Args:
            query: Nq labelled rows, images as they will be asked for: occluded ones if those come.
            gallery: Ng labelled rows of the same people, and of others.
            matcher: the distance.
            false_match_rate: the promise wanted, between 0 and 1.
            per: "search", the share of searches for an unknown person that find anything, or "comparison", the share of
                pairs of two people that look like one.
            gallery_size: with per="search", the images that will be searched, if they are more than these: the rate is
                then made up of independent draws of galleries of this size, which is on the safe side. None: these.
            prior: probability of a match beforehand, for `probability`.
            exclude_same_camera: leave out matches of one camera, which are easier than what is asked for. Impostors of
                one camera stay in.
            fingerprint: of the model.
            reduction: fingerprint of the reduction of its embeddings.
            data: name of the data.
            people: names of the people within it, so that none of them is tested on later.
            part: what of the data this is, in words.
            tile_rows: gallery rows at a time: changes time and memory, never a threshold.
            progress: called with (gallery rows done, gallery rows in all walks).

        Raises:
            CalibrationError: there are no impostors, no matches, or too few for that rate.
            EmbeddingError: the slots of both sides differ.
        """

        found = _fit(
            query,
            gallery,
            matcher,
            false_match_rate=false_match_rate,
            per=per,
            gallery_size=gallery_size,
            prior=prior,
            exclude_same_camera=exclude_same_camera,
            fingerprint=fingerprint,
            reduction=reduction,
            data=data,
            tile_rows=tile_rows,
            progress=progress,
        )
        if found.caution is not None:
            _log.warning("Calibration: %s", found.caution)
        return found.model_copy(update={"people": sorted(set(people)), "part": part})

    def threshold(self, shared: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the greatest distance at which pairs that share so many slots count as one person.

        Args:
            shared: numbers of shared slots, any shape. A pair that shares none never counts: -inf.

        Raises:
            CalibrationError: a number is negative, or larger than any that can occur.
        """
        return by_shared(shared, [group.threshold for group in self.groups], -np.inf)

    def accepts(self, distance: Sequence[float] | np.ndarray, shared: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return whether each distance lies within the threshold of its number of shared slots.

        Raises:
            CalibrationError: a distance is NaN, or a number of shared slots cannot occur.
        """
        return np.asarray(checked_distances(distance) <= self.threshold(shared))

    @checked(CalibrationError, only=("prior",))
    def probability(
        self,
        distance: Sequence[float] | np.ndarray,
        shared: Sequence[int] | np.ndarray,
        *,
        prior: float | None = None,
    ) -> np.ndarray:
        """Return how likely each pair shows one person, given its distance and how many slots it shares.

        A logistic regression on the distance for each number of shared slots. The answer depends on how likely a match
        was beforehand: 0.5 asks what the pair alone says; for "is it this one, of n people of whom one is right?" give
        1 / n. A pair that shares nothing says nothing and gets the prior.

        Args:
            distance: any shape.
            shared: numbers of shared slots, likewise.
            prior: probability of a match beforehand; None is that of the calibration.

        Raises:
            CalibrationError: a distance is NaN, the prior is not between 0 and 1, or a number cannot occur.
        """
        odds = self.log_odds(distance, shared, prior=prior)
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -700, 700))))

    @checked(CalibrationError, only=("prior",))
    def log_odds(
        self,
        distance: Sequence[float] | np.ndarray,
        shared: Sequence[int] | np.ndarray,
        *,
        prior: float | None = None,
    ) -> np.ndarray:
        """Return log p / (1 - p) of the `probability` p; these can be averaged over pairs.

        Args:
            distance: any shape.
            shared: numbers of shared slots, likewise.
            prior: as for `probability`.

        Raises:
            CalibrationError: as `probability`.
        """
        prior = self.prior if prior is None else prior
        if not 0 < prior < 1:
            raise CalibrationError(f"the prior is {prior}; give a probability between 0 and 1, both excluded.")
        intercept = by_shared(shared, [group.intercept for group in self.groups], 0.0)
        slope = by_shared(shared, [group.slope for group in self.groups], 0.0)
        return np.asarray(intercept + slope * checked_distances(distance) + np.log(prior / (1 - prior)))

    def require(
        self,
        *,
        matcher: Matcher,
        slots: Mapping[str, int],
        fingerprint: str | None = None,
        reduction: str | None = None,
    ) -> None:
        """Refuse distances that this calibration was not made for.

        Args:
            matcher: the distance in use.
            slots: slot -> width of the embeddings in use.
            fingerprint: of the model; None, here or in the calibration, is not compared.
            reduction: fingerprint of the reduction; None means that there is none.

        Raises:
            CalibrationError: the model, the reduction, the slots or the matcher differ; both are named.
        """
        told = None
        if fingerprint is not None and self.model is not None and fingerprint != self.model:
            told = f"the model {self.model}; this one is {fingerprint}"
        elif dict(slots) != self.slots:
            told = f"the slots {self.slots}; these are {dict(slots)}"
        elif reduction != self.reduction:
            told = f"{_named(self.reduction)}; this is {_named(reduction)}"
        elif matcher.config != self.matcher:
            told = f"the matcher {self.matcher}; this one is {matcher.config}"
        if told is not None:
            raise CalibrationError(
                f"the calibration was made for {told}. A threshold means nothing for other distances: calibrate again."
            )

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, whole or not at all.

        Raises:
            CalibrationError: the file cannot be written.
        """
        write_json(path, self.model_dump(mode="json"), CalibrationError)

    @staticmethod
    def load(path: str | Path) -> Calibration:
        """Read what `save` has written.

        Raises:
            CalibrationError: the file is missing, damaged, of a newer library, or something else.
        """
        content = read_json(path, CalibrationError)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CalibrationError(f"'{path}' holds no calibration; write one with Calibration.save().")
        version = content.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise CalibrationError(
                f"the calibration '{path}' has format {version}; this library reads formats up to {FORMAT_VERSION}. "
                "Update it: pip install --upgrade occluded_reid."
            )
        if version == 1:  # it held numbers of the people too, which depend on what else of the data was loaded
            content = {key: value for key, value in content.items() if key != "identities"}
            content["format_version"] = FORMAT_VERSION
        try:
            found = Calibration.model_validate(content)
        except ValidationError as cause:
            first = cause.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CalibrationError(
                f"the calibration '{path}' is damaged: {where}: {first['msg'].lower()}. Calibrate again."
            ) from cause
        numbers = [group.shared for group in found.groups]
        if numbers != list(range(1, len(numbers) + 1)):
            raise CalibrationError(
                f"the calibration '{path}' is damaged: it is of {numbers} shared slots, not of 1, 2, … Calibrate again."
            )
        return found

    @property
    def promise(self) -> str:
        """What was promised, in words."""
        if self.per == "comparison":
            return f"at most {self.false_match_rate:.3g} of the comparisons of two people count as a match"
        return (
            f"at most {self.false_match_rate:.3g} of the searches for somebody who is not among {self.gallery_size} "
            "images find anything"
        )


def _fit(
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


def _named(reduction: str | None) -> str:
    return "full embeddings" if reduction is None else f"embeddings reduced by {reduction}"


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

    Each query with its own person taken out is a search for an unknown person. Several blocks share the rate by their
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
            f"per is {per!r}; give 'search' (of searches for an unknown person, at most so many find anything) or "
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
