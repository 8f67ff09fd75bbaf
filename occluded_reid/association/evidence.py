"""What is known of a pair of tracks: the log-odds that they show one person, and whether they cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from occluded_reid.arguments import shown
from occluded_reid.association.tracks import Tracks
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.errors import AssociationError
from occluded_reid.matchers.base import Matcher

__all__ = ["Evidence", "TravelTimes", "travel_gates"]

TravelTimes = Mapping[tuple[int, int], float]
"""(camera, camera) -> the least seconds from the end of a track in the first to the start of one in the second."""

_PAIRS = 1 << 16  # pairs scored at a time


class Evidence:
    """Judges pairs of tracks.

    Two tracks cannot be of one person where

    - they are of one camera and overlap in time (bounds included: two boxes in one frame are two people);
    - no person gets from one camera to the other so fast (`travel`);
    - a decision says so (`different`).

    Args:
        tracks: N tracks.
        matcher: the distance.
        calibration: turns it into a probability, by the number of slots that both show.
        prior: probability of a match beforehand; None is the calibration's.
        travel: least travel times; where only (a, b) is given, it holds for (b, a), too.
        different: pairs of row numbers that decisions keep apart.
    """

    def __init__(
        self,
        tracks: Tracks,
        matcher: Matcher,
        calibration: Calibration,
        *,
        prior: float | None = None,
        travel: TravelTimes | None = None,
        different: Iterable[tuple[int, int]] = (),
    ) -> None:
        self.tracks, self.matcher, self.calibration, self.prior = tracks, matcher, calibration, prior
        self.seen = (matcher.prepare(tracks.embeddings).shared > 0).cpu().numpy()
        self._score = matcher.scorer(tracks.embeddings, tracks.embeddings)
        self._start, self._end = tracks.times
        known = sorted({c for c in tracks.camera if c is not None})
        number = {camera: place for place, camera in enumerate(known)}
        self._camera = np.array([-1 if c is None else number[c] for c in tracks.camera], dtype=np.int64)
        self._gates = travel_gates(travel, known)
        self._different = {(min(pair), max(pair)) for pair in different}
        by_row: dict[int, list[int]] = {}
        for a, b in sorted(self._different):
            by_row.setdefault(a, []).append(b)
            by_row.setdefault(b, []).append(a)
        self._told = {row: np.array(others) for row, others in by_row.items()}

    @property
    def hidden(self) -> np.ndarray:
        """Which tracks show nothing that could be compared, (N,)."""
        return np.asarray(~self.seen.any(1))

    def impossible(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return whether pairs of rows cannot be one person; the arrays are broadcast against each other."""
        one, two = self._camera[first], self._camera[second]
        gap = np.maximum(self._start[second] - self._end[first], self._start[first] - self._end[second])
        found = (one == two) & (one >= 0) & (gap <= 0)
        if self._gates is not None:
            forward = self._start[second] >= self._start[first]
            least = np.where(forward, self._gates[one, two], self._gates[two, one])
            found |= (one >= 0) & (two >= 0) & (one != two) & (gap < least)
        if self._told:
            a, b = np.broadcast_arrays(first, second)
            involved = np.isin(a, list(self._told)) & np.isin(b, list(self._told))
            for place in zip(*np.nonzero(involved), strict=True):
                i, j = int(a[place]), int(b[place])
                found[place] |= (min(i, j), max(i, j)) in self._different
        return np.asarray(found)

    def log_odds(self, first: np.ndarray, second: np.ndarray, distance: np.ndarray | None = None) -> np.ndarray:
        """Return the log-odds of n pairs, (n,); NaN where they share no slot, which says nothing.

        Args:
            first: n rows.
            second: n rows.
            distance: theirs, where it is known already.
        """
        shared = (self.seen[first] & self.seen[second]).sum(1)
        found = np.full(len(first), np.nan)
        for begin in range(0, len(first), _PAIRS):
            part = np.flatnonzero(shared[begin : begin + _PAIRS] > 0) + begin
            if len(part):
                far = self._score(first[part], second[part]) if distance is None else distance[part]
                found[part] = self.calibration.log_odds(far, shared[part], prior=self.prior)
        return found


def travel_gates(travel: TravelTimes | None, cameras: list[int]) -> np.ndarray | None:
    """Return the least seconds from camera to camera, (C, C), -inf where nothing is said; None without any.

    Raises:
        AssociationError: a key is no pair of cameras, or a time is negative or no number.
    """
    if travel is None:
        return None
    if not isinstance(travel, Mapping):
        raise AssociationError(f"travel is {shown(travel)}; give {{(camera, camera): seconds}}.")
    place = {camera: n for n, camera in enumerate(cameras)}
    gates = np.full((len(cameras), len(cameras)), -np.inf)
    for pair, seconds in travel.items():
        fits = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(c, int) for c in pair)
        if not fits or isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < np.inf:
            raise AssociationError(
                f"travel has {shown(pair)}: {shown(seconds)}; give {{(camera, camera): seconds}}, at least 0."
            )
        one, two = pair
        if one in place and two in place:
            gates[place[one], place[two]] = seconds
            if (two, one) not in travel:
                gates[place[two], place[one]] = seconds
    return gates if cameras and travel else None
