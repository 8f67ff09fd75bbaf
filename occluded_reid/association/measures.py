"""How good an association is, against the truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from occluded_reid.errors import AssociationError
from occluded_reid.evaluation.bootstrap import Difference, Interval, PeopleResampling
from occluded_reid.numbered import whole_numbers

__all__ = ["Measures", "compare_b_cubed", "identity_switches", "measure"]


@dataclass(frozen=True)
class Measures:
    """Numbers in [0, 1] of N tracks, but for the counts.

    Attributes:
        b3_precision: mean over tracks of the share of its identity's tracks that are of its person (Bagga and Baldwin,
            LREC 1998).
        b3_recall: mean over tracks of the share of its person's tracks that are in its identity.
        b3_f1: harmonic mean of both.
        pair_precision: share of the pairs put together that are of one person; 1 where no pair is.
        pair_recall: share of the pairs of one person that were put together; 1 where there is no such pair.
        pair_f1: harmonic mean of both.
        idf1: 2 IDTP / (2 IDTP + IDFP + IDFN), tracks matched one identity to one person so that IDTP is greatest
            (Ristani et al., ECCV Workshops 2016). Every track is in both, so it is IDTP / N.
        assa: mean over tracks of TPA / (TPA + FNA + FPA): the association part of HOTA (Luiten et al., IJCV 2021), of
            tracks in place of boxes.
        purity: share of tracks that are of the most frequent person of their identity.
        switches: identity switches, see `identity_switches`; None where no times are known.
        people: how many there are.
        identities: how many were found.
        tracks: N.
    """

    b3_precision: float
    b3_recall: float
    b3_f1: float
    pair_precision: float
    pair_recall: float
    pair_f1: float
    idf1: float
    assa: float
    purity: float
    switches: int | None
    people: int
    identities: int
    tracks: int

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def measure(
    truth: np.ndarray | list[int], found: np.ndarray | list[int], *, start: np.ndarray | list[float] | None = None
) -> Measures:
    """Measure an association.

    Args:
        truth: (N,) number of each track's person.
        found: (N,) number of each track's identity.
        start: (N,) time of each track, for identity switches.

    Raises:
        AssociationError: there is no track, or lengths differ.

    Example:
        >>> round(measure([1, 1, 2], [7, 7, 7]).b3_precision, 3)
        0.556
    """
    table = _Contingency(truth, found)
    precision, recall = table.b_cubed()
    both, put, true = _pairs(table.count), _pairs(table.found_sizes), _pairs(table.true_sizes)
    pair_precision, pair_recall = (both / put if put else 1.0), (both / true if true else 1.0)
    overlap = table.count[table.cell]
    jaccard = overlap / (table.true_sizes[table.true] + table.found_sizes[table.found] - overlap)
    best = np.zeros(len(table.found_sizes), dtype=np.int64)
    np.maximum.at(best, table.columns, table.count)
    return Measures(
        b3_precision=float(precision.mean()),
        b3_recall=float(recall.mean()),
        b3_f1=_f1(float(precision.mean()), float(recall.mean())),
        pair_precision=pair_precision,
        pair_recall=pair_recall,
        pair_f1=_f1(pair_precision, pair_recall),
        idf1=_matched(table) / len(table.true),
        assa=float(jaccard.mean()),
        purity=float(best.sum() / len(table.true)),
        switches=None if start is None else identity_switches(truth, found, start),
        people=len(table.true_sizes),
        identities=len(table.found_sizes),
        tracks=len(table.true),
    )


def identity_switches(
    truth: np.ndarray | list[int], found: np.ndarray | list[int], start: np.ndarray | list[float]
) -> int:
    """Count how often a person has another identity in the next of its tracks, in the order of time.

    Args:
        truth: (N,) number of each track's person.
        found: (N,) number of each track's identity.
        start: (N,) time of each track; of equal times the order given holds.

    Raises:
        AssociationError: lengths differ, or a time is not known.

    Example:
        >>> identity_switches([1, 1, 1], [5, 6, 6], [0, 2, 1])
        1
    """
    table = _Contingency(truth, found)
    when = np.asarray(start, dtype=np.float64)
    if when.shape != table.true.shape or np.isnan(when).any():
        raise AssociationError(f"start has the shape {when.shape}; give the time of each of {len(table.true)} tracks.")
    order = np.lexsort((when, table.true))
    person, identity = table.true[order], table.found[order]
    return int(((person[1:] == person[:-1]) & (identity[1:] != identity[:-1])).sum())


def compare_b_cubed(
    truth: np.ndarray | list[int],
    first: np.ndarray | list[int],
    second: np.ndarray | list[int],
    resampling: PeopleResampling | None = None,
) -> tuple[Interval, Interval, Difference]:
    """Return intervals of the B³ F1 of two associations of the same tracks, and of the first minus the second.

    People are drawn with replacement, and each brings the precision and recall of all its tracks as they are.

    Args:
        truth: (N,) number of each track's person.
        first: (N,) identities.
        second: (N,) other identities.
        resampling: how often, and how sure.

    Raises:
        AssociationError: there is no track, or lengths differ.
    """
    resampling = resampling or PeopleResampling()
    tables = [_Contingency(truth, found) for found in (first, second)]
    values = np.stack([column for table in tables for column in table.b_cubed()], axis=1)
    drawn = []
    for times in resampling.weights(tables[0].true):
        weight = times.astype(np.float64)
        drawn.append(np.einsum("bn,nk->bk", weight, values) / weight.sum(1, keepdims=True))
    means = np.concatenate(drawn)
    one, two = (2 * means[:, k] * means[:, k + 1] / (means[:, k] + means[:, k + 1]) for k in (0, 2))
    now = [_f1(float(values[:, k].mean()), float(values[:, k + 1].mean())) for k in (0, 2)]
    return (
        resampling.interval(one),
        resampling.interval(two),
        Difference(now[0] - now[1], resampling.interval(one - two)),
    )


class _Contingency:
    """How many tracks each person has in each identity."""

    def __init__(self, truth: np.ndarray | list[int], found: np.ndarray | list[int]) -> None:
        numbers = [
            whole_numbers(name, values, AssociationError) for name, values in (("truth", truth), ("found", found))
        ]
        if numbers[0].ndim != 1 or numbers[0].shape != numbers[1].shape or not len(numbers[0]):
            raise AssociationError(
                f"truth has the shape {numbers[0].shape} and found {numbers[1].shape}; give a number for each of N ≥ 1 "
                "tracks in both."
            )
        self.true, self.true_sizes = np.unique(numbers[0], return_inverse=True, return_counts=True)[1:]
        self.found, self.found_sizes = np.unique(numbers[1], return_inverse=True, return_counts=True)[1:]
        code = self.true * len(self.found_sizes) + self.found
        cells, self.cell, self.count = np.unique(code, return_inverse=True, return_counts=True)
        self.rows, self.columns = cells // len(self.found_sizes), cells % len(self.found_sizes)

    def b_cubed(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall of each track."""
        overlap = self.count[self.cell]
        return overlap / self.found_sizes[self.found], overlap / self.true_sizes[self.true]


def _matched(table: _Contingency) -> int:
    """Tracks that agree in the best one-to-one matching, found apart in each connected part of the table."""
    people, identities = len(table.true_sizes), len(table.found_sizes)
    size = people + identities
    edges = coo_matrix((np.ones(len(table.count)), (table.rows, table.columns + people)), shape=(size, size))
    part = connected_components(edges, directed=False)[1][table.rows]
    total = 0
    order = np.argsort(part, kind="stable")
    for cells in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
        rows, row = np.unique(table.rows[cells], return_inverse=True)
        columns, column = np.unique(table.columns[cells], return_inverse=True)
        dense = np.zeros((len(rows), len(columns)))
        dense[row, column] = table.count[cells]
        total += int(dense[linear_sum_assignment(dense, maximize=True)].sum())
    return total


def _pairs(sizes: np.ndarray) -> int:
    return int((sizes.astype(np.int64) * (sizes - 1) // 2).sum())


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
