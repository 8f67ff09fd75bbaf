"""Searches for people who may not be there: what a threshold promises, and what other people make of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from occluded_reid.arguments import checked
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.pairs import Comparisons
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import PeopleResampling
from occluded_reid.evaluation.open_set.measured import Measured, numbers_of
from occluded_reid.evaluation.tables import Sheet, Tabular
from occluded_reid.matchers.base import Matcher

__all__ = ["OpenSetReport", "evaluate_open_set", "require_others", "rows_of", "split_people"]


@dataclass(frozen=True)
class OpenSetReport(Tabular):
    """What a threshold does on people it was not made with.

    Attributes:
        calibration: the calibration, or None for one threshold for all pairs.
        gallery_size: images a search meets on average, the query's own person taken out.
        unknown_answered: searches for a person who is not in the gallery that found anything: false matches per search.
        known_found: searches for a person who is there, under another camera, that found the person.
        impostors: comparisons of two people within the threshold, by number of shared slots: per comparison.
        matches: comparisons of one person within it, likewise.
    """

    calibration: Calibration | None
    gallery_size: int
    unknown_answered: Measured
    known_found: Measured
    impostors: dict[int, Measured]
    matches: dict[int, Measured]

    @property
    def false_match_rate(self) -> float:
        """False matches per comparison, over all numbers of shared slots."""
        return sum(s.count or 0 for s in self.impostors.values()) / max(
            1, sum(s.total or 0 for s in self.impostors.values())
        )

    def sheet(self) -> Sheet:
        """Return the shares, by what is counted."""
        searches = [
            ["unknown person answered, per search", str(self.unknown_answered)],
            ["known person found, per search", str(self.known_found)],
        ]
        two = [[f"two people accepted, per comparison, {n} shared", str(s)] for n, s in self.impostors.items()]
        one = [[f"one person accepted, per comparison, {n} shared", str(s)] for n, s in self.matches.items()]
        caption = f"galleries of {self.gallery_size} images"
        lines = (1, 1 + len(two))
        header, rows = ("what", "share"), [*searches, *two, *one]
        return Sheet(header, rows, title="on other people", caption=caption, words=2, sections=lines)

    def records(self) -> list[dict[str, Any]]:
        """Return each share with its counts and its interval."""
        return [
            {"what": "unknown person answered", "shared": None, **numbers_of(self.unknown_answered)},
            {"what": "known person found", "shared": None, **numbers_of(self.known_found)},
            *({"what": "two people accepted", "shared": n, **numbers_of(s)} for n, s in self.impostors.items()),
            *({"what": "one person accepted", "shared": n, **numbers_of(s)} for n, s in self.matches.items()),
        ]

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
    people: Sequence[str] = (),
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
        data: name of the data.
        people: names of the people within it; of those calibrated with, no person may come again.
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
        require_others(threshold, people, data)
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
) -> list[Measured]:
    """Of each pair (what counts, of how many), both (Nq,), the share; a few draws of the people at a time."""
    people, person = np.unique(identity, return_inverse=True)
    columns = [np.bincount(person, weights=side, minlength=len(people)) for pair in pairs for side in pair]
    by_person = np.stack(columns, axis=1)
    drawn = np.concatenate([weights @ by_person for weights in resampling.weights(people)])
    hits, totals = drawn[:, ::2], drawn[:, 1::2]
    rates = np.divide(hits, totals, out=np.full(hits.shape, np.nan), where=totals > 0)
    return [
        Measured.share(int(hit.sum()), int(total.sum()), resampling.interval(rates[:, number]))
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


def require_others(calibration: Calibration, people: Sequence[str], data: str) -> None:
    """Refuse to test a calibration on people it was made with, as far as names tell.

    Args:
        calibration: made with some people of some data.
        people: names of the people it is tested on.
        data: name of the data that they belong to.

    Raises:
        EvaluationError: people of the calibration are among them.
    """
    again = sorted(set(people).intersection(calibration.people))
    if data == calibration.data and again:
        raise EvaluationError(
            f"{len(again)} of the {len(set(people))} people asked or searched for, such as '{again[0]}', "
            f"were calibrated with ('{data}'). A promise is tested on other people: split them, or hold others out."
        )


def rows_of(rows: EmbeddedSet, index: np.ndarray) -> EmbeddedSet:
    """Return some rows of a set, (n,) row numbers, with their labels and paths."""
    paths = tuple(rows.paths[i] for i in index) if rows.paths else ()
    return EmbeddedSet(rows.embeddings[torch.from_numpy(index)], rows.identity[index], rows.camera[index], paths)


def _by_hash(identities: np.ndarray, seed: int) -> list[int]:
    return sorted(identities.tolist(), key=lambda person: hashlib.sha256(f"{seed}:{person}".encode()).hexdigest())
