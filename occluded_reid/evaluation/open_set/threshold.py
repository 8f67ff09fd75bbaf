"""Searches for people who may not be there: what a threshold promises, and what other people make of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from occluded_reid.arguments import checked
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.pairs import Comparisons
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import Interval, PeopleResampling
from occluded_reid.matchers.base import Matcher

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["OpenSetReport", "Share", "evaluate_open_set", "require_others", "rows_of", "split_people"]


@dataclass(frozen=True)
class Share:
    """How many of how many, with a bootstrap interval over the people asked for; NaN where there is nothing to count.

    Images of one person are alike, so people are drawn, not pairs or searches.
    """

    count: int
    total: int
    interval: Interval

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.total if self.total else float("nan")

    def __str__(self) -> str:
        if not self.total:
            return "none"
        return f"{self.value:.2%} [{self.interval.low:.2%}, {self.interval.high:.2%}] ({self.count} of {self.total})"

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON knows them; None for NaN."""
        known = self.total > 0
        return {
            "count": self.count,
            "total": self.total,
            "value": self.value if known else None,
            "interval": [self.interval.low, self.interval.high] if known else None,
        }


@dataclass(frozen=True)
class OpenSetReport:
    """What a threshold does on people it was not made with.

    Attributes:
        calibration: the calibration, or None for one threshold for all pairs.
        gallery_size: images a search meets on average, the query's own person taken out.
        unknown_answered: searches for somebody who is not in the gallery that found anything: false matches per search.
        known_found: searches for somebody who is there, under another camera, that found the person.
        impostors: comparisons of two people within the threshold, by number of shared slots: per comparison.
        matches: comparisons of one person within it, likewise.
    """

    calibration: Calibration | None
    gallery_size: int
    unknown_answered: Share
    known_found: Share
    impostors: dict[int, Share]
    matches: dict[int, Share]

    @property
    def false_match_rate(self) -> float:
        """False matches per comparison, over all numbers of shared slots."""
        return sum(s.count for s in self.impostors.values()) / max(1, sum(s.total for s in self.impostors.values()))

    def table(self) -> Table:
        """Return the numbers for a terminal."""
        from rich.table import Table

        table = Table("what", "share", title="on other people", caption=f"galleries of {self.gallery_size} images")
        table.add_row("unknown person answered, per search", _plain(self.unknown_answered))
        table.add_row("known person found, per search", _plain(self.known_found), end_section=True)
        for shared, share in self.impostors.items():
            table.add_row(f"two people accepted, per comparison, {shared} shared", _plain(share))
        table.add_section()
        for shared, share in self.matches.items():
            table.add_row(f"one person accepted, per comparison, {shared} shared", _plain(share))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON knows it."""
        return {
            "gallery_size": self.gallery_size,
            "unknown_answered": self.unknown_answered.to_dict(),
            "known_found": self.known_found.to_dict(),
            "false_match_rate_per_comparison": self.false_match_rate,
            "impostors": {str(n): share.to_dict() for n, share in self.impostors.items()},
            "matches": {str(n): share.to_dict() for n, share in self.matches.items()},
        }


@checked(EvaluationError)
def evaluate_open_set(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    threshold: float | Calibration,
    *,
    data: str = "",
    exclude_same_camera: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    tile_rows: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> OpenSetReport:
    """Search for each query twice, with its person in the gallery and without, and count what passes the threshold.

    Memory: one tile, and a few numbers for each query; intervals take 20 MB more.

    Args:
        query: Nq labelled rows.
        gallery: Ng labelled rows.
        matcher: the distance.
        threshold: a calibration, or one distance for all pairs.
        data: name of the data; of the data that was calibrated with, nobody may come again.
        exclude_same_camera: leave out matches of one camera.
        resamples: of the people, behind the intervals.
        confidence: of the intervals.
        seed: of the resampling.
        tile_rows: gallery rows at a time.
        progress: called with (gallery rows done, gallery rows in all).

    Raises:
        EvaluationError: a set is empty, or people of the calibration are among those it is tested on.
        CalibrationError: the calibration was made for another matcher or other slots.
    """
    if not len(query) or not len(gallery) or resamples < 1:
        raise EvaluationError(
            f"{len(query)} queries, {len(gallery)} gallery images and {resamples} resamples; give at least one of each."
        )
    if isinstance(threshold, Calibration):
        require_others(threshold, np.union1d(query.identity, gallery.identity), data)
        threshold.require(matcher=matcher, slots=query.embeddings.widths, reduction=threshold.reduction)
    walk = Comparisons(
        query,
        gallery,
        matcher,
        exclude_same_camera=exclude_same_camera,
        tile_rows=tile_rows,
        progress=progress,
        walks=1,
    )
    numbers = np.arange(walk.slots + 1)
    limit = threshold.threshold(numbers) if isinstance(threshold, Calibration) else np.full(len(numbers), threshold)
    limit[0] = -np.inf
    # For each query by number of shared slots: impostors and matches, those that there are and those accepted.
    counts = np.zeros((4, len(query), len(numbers)), dtype=np.int64)
    for tile, inside in walk.accepted(limit):
        rows = (np.arange(tile.first, tile.first + len(inside))[:, None] * len(numbers) + tile.shared).ravel()
        match = walk.matches(tile)
        for number, mask in enumerate((~tile.same, ~tile.same & inside, match, match & inside)):
            counts[number] += np.bincount(rows[mask.ravel()], minlength=counts[0].size).reshape(counts[0].shape)
    there = counts[2].sum(1) > 0
    pairs = [(counts[1].sum(1) > 0, np.ones(len(query), dtype=np.int64)), ((counts[3].sum(1) > 0) & there, there)]
    pairs += [(counts[hits, :, n], counts[total, :, n]) for hits, total in ((1, 0), (3, 2)) for n in numbers[1:]]
    unknown_answered, known_found, *shares = _shares(
        pairs, query.identity, PeopleResampling(resamples, confidence, seed)
    )
    return OpenSetReport(
        threshold if isinstance(threshold, Calibration) else None,
        round(float(counts[0].sum() / len(query))),
        unknown_answered,
        known_found,
        dict(enumerate(shares[: walk.slots], start=1)),
        dict(enumerate(shares[walk.slots :], start=1)),
    )


def _shares(
    pairs: list[tuple[np.ndarray, np.ndarray]], identity: np.ndarray, resampling: PeopleResampling
) -> list[Share]:
    """Of each pair (what counts, of how many), both (Nq,), the share; a few draws of the people at a time."""
    people, person = np.unique(identity, return_inverse=True)
    columns = [np.bincount(person, weights=side, minlength=len(people)) for pair in pairs for side in pair]
    by_person = np.stack(columns, axis=1)
    drawn = np.concatenate([weights @ by_person for weights in resampling.weights(people)])
    hits, totals = drawn[:, ::2], drawn[:, 1::2]
    rates = np.divide(hits, totals, out=np.full(hits.shape, np.nan), where=totals > 0)
    return [
        Share(int(hit.sum()), int(total.sum()), resampling.interval(rates[:, number]))
        for number, (hit, total) in enumerate(pairs)
    ]


def split_people(
    query: EmbeddedSet, gallery: EmbeddedSet, share: float, seed: int = 0
) -> tuple[tuple[EmbeddedSet, EmbeddedSet], tuple[EmbeddedSet, EmbeddedSet]]:
    """Split queries and gallery by people: (query, gallery) of `share` of them, then those of the others.

    People are ordered by the SHA-256 of "seed:identity"; a distractor is a person like any other.

    Args:
        query: labelled rows.
        gallery: labelled rows.
        share: of the people, for the first part, between 0 and 1.
        seed: chooses them.

    Raises:
        EvaluationError: the share leaves one part without queries or without gallery images.
    """
    asked = _by_hash(np.unique(query.identity), seed)
    others = _by_hash(np.setdiff1d(gallery.identity, query.identity), seed)
    if not 0 < share < 1:
        raise EvaluationError(f"the share of the people is {share}; give a number between 0 and 1: 0.5 is half.")
    chosen = np.array(asked[: round(share * len(asked))] + others[: round(share * len(others))], dtype=np.int64)
    parts = []
    for wanted in (True, False):
        kept = [rows_of(rows, np.flatnonzero(np.isin(rows.identity, chosen) == wanted)) for rows in (query, gallery)]
        if not all(len(rows) for rows in kept):
            raise EvaluationError(
                f"{len(asked)} people cannot be split at {share}: one part has {len(kept[0])} queries and "
                f"{len(kept[1])} gallery images. Hold out more people, or choose another share."
            )
        parts.append((kept[0], kept[1]))
    return parts[0], parts[1]


def require_others(calibration: Calibration, identity: np.ndarray, data: str) -> None:
    """Refuse to test a calibration on people it was made with, as far as the name of the data tells.

    Args:
        calibration: made with some people of some data.
        identity: (n,) numbers of the people it is tested on.
        data: name of the data that these numbers belong to; empty: nothing can be told.

    Raises:
        EvaluationError: people of the calibration are among them.
    """
    again = np.intersect1d(calibration.identities, identity)
    if data and data == calibration.data and len(again):
        raise EvaluationError(
            f"{len(again)} of the {len(np.unique(identity))} people asked or searched for, the first is {again[0]}, "
            f"were calibrated with ('{data}'). A promise is tested on other people: split them, or hold others out."
        )


def rows_of(rows: EmbeddedSet, index: np.ndarray) -> EmbeddedSet:
    """Return some rows of a set, (n,) row numbers, with their labels and paths."""
    paths = tuple(rows.paths[i] for i in index) if rows.paths else ()
    return EmbeddedSet(rows.embeddings[torch.from_numpy(index)], rows.identity[index], rows.camera[index], paths)


def _by_hash(identities: np.ndarray, seed: int) -> list[int]:
    return sorted(identities.tolist(), key=lambda person: hashlib.sha256(f"{seed}:{person}".encode()).hexdigest())


def _plain(share: Share) -> str:
    return str(share).replace("[", "\\[")
