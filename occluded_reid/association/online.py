"""Associator: tracks come one after another, and each is told who it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from occluded_reid.arguments import checked, is_several, shown
from occluded_reid.association.agglomerate import Clusters
from occluded_reid.association.associate import associate, decided_rows, log_odds_of
from occluded_reid.association.calibrate import JoinCalibration
from occluded_reid.association.candidates import find_candidates
from occluded_reid.association.decisions import Decision, Verdict
from occluded_reid.association.evidence import Evidence, TravelTimes, travel_gates
from occluded_reid.association.result import Association
from occluded_reid.association.state import IdentityFile
from occluded_reid.association.tracks import Tracks
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import AssociationError
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher
from occluded_reid.search.exact import exact_topk
from occluded_reid.search.rows import InMemoryRows

__all__ = ["Associator", "Update"]


@dataclass(frozen=True)
class Update:
    """What became of a track.

    Attributes:
        name: of the track.
        identity: number of its identity.
        new: whether no track had that number before.
        revised: tracks that were known and have another number now: name -> number.
    """

    name: str
    identity: int
    new: bool
    revised: dict[str, int]


class Associator:
    """Puts each new track to an identity, and puts right what a clearer view shows to be wrong.

    A new track is compared with all known ones. The identities of its nearest neighbours are taken apart and put
    together anew with it, as `associate` does; the others stay as they are. A group keeps the number of the identity
    that most of its tracks had (of equals, the lower number), and what is left over gets a new one. Tracks are taken in
    one after another, in the order given: so it makes no difference how many come in one call. Their order makes one;
    `revise` puts all together as if they had come at once.

    Everything is kept in one file. Each track is there whole or not at all, with the identities that it changed, also
    where the process is killed. One process writes at a time.

    Args:
        path: the file; made where there is none.
        matcher: the distance.
        learnt: from `calibrate_joins`, on other people.
        neighbors: of a new track.
        travel: as for `associate`.

    Raises:
        AssociationError: the file is something else, or an argument makes no sense.
        CalibrationError: the calibration is for another matcher.
    """

    @checked(AssociationError, only=("neighbors",))
    def __init__(
        self,
        path: str | Path,
        matcher: Matcher,
        learnt: JoinCalibration,
        *,
        neighbors: int = 20,
        travel: TravelTimes | None = None,
    ) -> None:
        if not isinstance(learnt, JoinCalibration):
            raise AssociationError(f"learnt is {shown(learnt)}; give what calibrate_joins() returns.")
        if not isinstance(matcher, Matcher):
            raise AssociationError(f"matcher is {shown(matcher)}; give a Matcher, such as model.matcher.")
        travel_gates(travel, [])
        if neighbors < 1:
            raise AssociationError(f"neighbors is {neighbors}; give at least 1.")
        learnt.calibration.require(matcher=matcher, slots=learnt.calibration.slots)
        self.matcher, self.learnt, self.neighbors, self.travel = matcher, learnt, neighbors, travel
        self._file = IdentityFile(path, learnt.calibration.slots)
        self._load()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def identities(self) -> dict[str, int]:
        """Name of each track -> number of its identity."""
        return dict(zip(self._names, self._identity, strict=True))

    def update(self, tracks: Tracks) -> list[Update]:
        """Take in tracks, one after another.

        Args:
            tracks: new ones; a name that is known already is refused.

        Raises:
            AssociationError: a name is known, the slots are others, or the file cannot be written.
        """
        if not isinstance(tracks, Tracks):
            raise AssociationError(f"tracks is {shown(tracks)}; give Tracks, as Tracks.embed(model, …) makes them.")
        if dict(tracks.embeddings.widths) != self._file.slots:
            raise AssociationError(f"these tracks have {tracks.embeddings.widths}; wanted slots {self._file.slots}.")
        if again := sorted(set(tracks.names) & set(self._names)):
            raise AssociationError(f"the track '{again[0]}' is known already; give a new track another name.")
        return [self._take_in(tracks[[number]]) for number in range(len(tracks))]

    def decide(self, first: str, second: str, verdict: Verdict, *, by: str = "", note: str = "") -> Decision:
        """Record that two tracks are one person, or two, or that nothing is decided any more; it holds from now on.

        The identities of both are put together anew at once.

        Raises:
            AssociationError: a track is not known, or the decision contradicts others.
        """
        for name in (first, second):
            if name not in self._names:
                raise AssociationError(f"no track is named {name!r} in '{self._file.path}'.")
        log = self._file.decisions()
        made = log.decide(first, second, verdict, by=by, note=note)
        decided_rows(log, self._names)  # before anything is written: it may contradict
        self._decisions = log
        groups = {self._identity[self._names.index(name)] for name in (first, second)}
        rows = [row for row, identity in enumerate(self._identity) if identity in groups]
        numbers, following = self._regroup(rows, self._all()[rows])
        with self._file.transaction() as db:
            self._file.decide(db, made)
            self._file.renumber(db, numbers, following)
        self._load()
        return made

    def revise(self) -> Association:
        """Put all tracks together anew, as `associate` does, and keep the outcome; numbers stay where they can."""
        tracks = self._all()
        found = associate(
            tracks,
            self.matcher,
            self.learnt.calibration,
            join=self.learnt.join,
            neighbors=self.neighbors,
            travel=self.travel,
            decisions=self._decisions,
        )
        numbers, following = self._numbers(list(range(len(tracks))), tracks, found.identity.tolist())
        with self._file.transaction() as db:
            self._file.renumber(db, numbers, following)
        self._load()
        return found

    def erase(self, *, before: float | None = None, names: Sequence[str] = ()) -> int:
        """Take tracks out for good, with every decision about them, and leave nothing of them in the file.

        Args:
            before: those that ended before this time.
            names: and these.

        Returns:
            How many there were.

        Raises:
            AssociationError: a name is not known, the time is no number, or nothing was given.
        """
        if not is_several(names) or not all(isinstance(name, str) for name in names):
            raise AssociationError(f"names is {shown(names)}; give a list of the names of tracks.")
        if before is None and not names:
            raise AssociationError("nothing was given to erase; give before=TIME or names=[…].")
        number = isinstance(before, int | float) and not isinstance(before, bool) and before == before
        if before is not None and not number:
            raise AssociationError(f"before is {shown(before)}; give a time in seconds.")
        if unknown := sorted(set(names) - set(self._names)):
            raise AssociationError(f"no track is named {unknown[0]!r} in '{self._file.path}'; nothing was erased.")
        gone = {name for name, end in zip(self._names, self._end, strict=True) if before is not None and end < before}
        count = self._file.erase(sorted(gone | set(names)))
        self._load()
        return count

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _load(self) -> None:
        tracks, identity = self._file.tracks()
        self._names, self._camera = list(tracks.names), list(tracks.camera)
        self._start, self._end = ([*side.tolist()] for side in tracks.times)
        self._identity: list[int] = identity.tolist()
        self._rows = tracks.embeddings
        self._decisions = self._file.decisions()
        self._next = int(self._file.setting("next"))

    def _all(self) -> Tracks:
        return Tracks(self._rows, tuple(self._names), tuple(self._camera), np.array(self._start), np.array(self._end))

    def _take_in(self, track: Tracks) -> Update:
        near = self._neighbors_of(track)
        touched = {self._identity[row] for row in near}
        rows = [row for row, identity in enumerate(self._identity) if identity in touched]
        known = [self._identity[row] for row in rows]
        start, end = track.times
        together = Tracks(
            PartEmbeddings.cat([self._rows[rows], track.embeddings]) if rows else track.embeddings,
            (*(self._names[row] for row in rows), *track.names),
            (*(self._camera[row] for row in rows), *track.camera),
            np.array([*(self._start[row] for row in rows), start[0]]),
            np.array([*(self._end[row] for row in rows), end[0]]),
        )
        numbers, following = self._regroup(rows, together)
        own = numbers[track.names[0]]
        with self._file.transaction() as db:
            self._file.put(db, track, [own])
            self._file.renumber(db, numbers, following)
        changed = {}
        for row, before in zip(rows, known, strict=True):
            self._identity[row] = numbers[self._names[row]]
            if self._identity[row] != before:
                changed[self._names[row]] = self._identity[row]
        new = own >= self._next
        self._next = following
        self._names += track.names
        self._camera += track.camera
        self._start.append(float(start[0]))
        self._end.append(float(end[0]))
        self._identity.append(own)
        self._rows = PartEmbeddings.cat([self._rows, _stored(track.embeddings)])
        return Update(track.names[0], own, new, changed)

    def _neighbors_of(self, track: Tracks) -> list[int]:
        """Known tracks that the new one may be joined with, and those that a decision puts together with it."""
        if not len(self._rows):
            return []
        best = exact_topk(track.embeddings, InMemoryRows(self._rows), self.matcher, self.neighbors)
        near = best.positions[0][best.distances[0] < NO_SHARED_SLOT].tolist()
        place = {name: row for row, name in enumerate(self._names)}
        for pair in self._decisions.pairs("same"):
            if track.names[0] in pair:
                near += [place[name] for name in pair if name in place]
        return [int(row) for row in near]

    def _regroup(self, rows: list[int], tracks: Tracks) -> tuple[dict[str, int], int]:
        """Put tracks together, the known `rows` first; return their numbers and the next free one."""
        order = np.array(sorted(range(len(tracks)), key=lambda n: tracks.names[n]), dtype=np.int64)
        ordered = tracks[order]
        together, different = decided_rows(self._decisions, ordered.names)
        evidence = Evidence(ordered, self.matcher, self.learnt.calibration, travel=self.travel, different=different)
        least = log_odds_of(self.learnt.join)
        # These are few, so that every pair is looked at.
        clusters = Clusters(evidence, find_candidates(evidence, len(tracks), floor=least, mutual=False), together)
        for _ in clusters.run(least):
            pass
        labels = np.empty(len(tracks), dtype=np.int64)
        labels[order] = clusters.labels()
        return self._numbers(rows, tracks, labels.tolist())

    def _numbers(self, rows: list[int], tracks: Tracks, labels: list[int]) -> tuple[dict[str, int], int]:
        """Give each group the number that most of its tracks had; a number goes to one group only."""
        had = Counter((labels[n], self._identity[row]) for n, row in enumerate(rows))
        chosen: dict[int, int] = {}
        taken: set[int] = set()
        lowest: dict[int, str] = {}
        for label, name in zip(labels, tracks.names, strict=True):
            lowest[label] = min(name, lowest.get(label, name))
        for (label, identity), _ in sorted(had.items(), key=lambda e: (-e[1], e[0][1], lowest[e[0][0]])):
            if label not in chosen and identity not in taken:
                chosen[label] = identity
                taken.add(identity)
        following = self._next
        for label in sorted(set(labels) - chosen.keys(), key=lambda own: lowest[own]):
            chosen[label] = following
            following += 1
        return {name: chosen[label] for name, label in zip(tracks.names, labels, strict=True)}, following


def _stored(rows: PartEmbeddings) -> PartEmbeddings:
    """Rows as they come back from the file."""
    return PartEmbeddings(rows.names, tuple(e.detach().cpu().float() for e in rows.embeddings), rows.visibility.float())
