"""Association: who is who, how sure that is, and which joins a person should look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from occluded_reid.errors import AssociationError
from occluded_reid.files import write_json

__all__ = ["Association", "Identity", "Join"]


@dataclass(frozen=True)
class Identity:
    """Tracks that were found to be of one person.

    Attributes:
        number: from 1 on; it names no person.
        tracks: their names, sorted.
        cameras: numbers of their cameras, sorted.
        confidence: how likely all this is right, 0 … 1: the smaller of `cohesion` and 1 - `rival`.
        cohesion: probability of the mean log-odds of all pairs within; 1 for a track alone.
        rival: probability that it is one person with the most likely other identity that it might have been joined
            with; 0 where there is none.
        visible: False where not enough is visible to say anything: then it is a track alone, and confidence is 0.
    """

    number: int
    tracks: tuple[str, ...]
    cameras: tuple[int, ...]
    confidence: float
    cohesion: float
    rival: float
    visible: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "number": self.number,
            "tracks": list(self.tracks),
            "cameras": list(self.cameras),
            "confidence": round(self.confidence, 6),
            "cohesion": round(self.cohesion, 6),
            "rival": round(self.rival, 6),
            "visible": self.visible,
        }


@dataclass(frozen=True)
class Join:
    """Two groups of tracks about which it was a close call.

    Attributes:
        first: name of a track of the one.
        second: name of a track of the other.
        probability: that they are one person, by the mean log-odds of all pairs.
        joined: whether they were joined.
    """

    first: str
    second: str
    probability: float
    joined: bool

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "first": self.first,
            "second": self.second,
            "probability": round(self.probability, 6),
            "joined": self.joined,
        }


@dataclass(frozen=True)
class Association:
    """The identities of N tracks.

    Attributes:
        names: of the tracks, in the order in which they were given.
        identity: (N,) int64, number of each track's identity.
        identities: all of them, by number.
        uncertain: joins made and not made, the closest calls first.
        join: the probability from which on clusters were joined.
    """

    names: tuple[str, ...]
    identity: np.ndarray
    identities: tuple[Identity, ...]
    uncertain: tuple[Join, ...]
    join: float

    def __len__(self) -> int:
        return len(self.identities)

    def __getitem__(self, name: str) -> int:
        """Return the number of a track's identity.

        Raises:
            AssociationError: there is no such track.
        """
        try:
            return int(self.identity[self.names.index(name)])
        except ValueError as cause:
            raise AssociationError(f"no track is named {name!r}; there are {len(self.names)} others.") from cause

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of the tracks of which not enough is visible, each of which is kept apart."""
        return tuple(name for each in self.identities if not each.visible for name in each.tracks)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "tracks": len(self.names),
            "identities": [each.to_dict() for each in self.identities],
            "uncertain": [each.to_dict() for each in self.uncertain],
            "not_enough_visible": list(self.hidden),
            "join": self.join,
        }

    def save(self, path: str | Path) -> None:
        """Write all of it as JSON, whole or not at all.

        Raises:
            AssociationError: the file cannot be written.
        """
        content: Mapping[str, Any] = {"format": "occluded_reid.association", "format_version": 1, **self.to_dict()}
        write_json(path, content, AssociationError)

    def __str__(self) -> str:
        several = sum(len(each.tracks) > 1 for each in self.identities)
        across = sum(len(each.cameras) > 1 for each in self.identities)
        hidden = len(self.hidden)
        kept = f"; of {hidden} not enough is visible, and each is kept apart" if hidden else ""
        return (
            f"{len(self.names)} tracks are {len(self)} identities, {several} of them of several tracks and {across} "
            f"seen by several cameras{kept}"
        )
