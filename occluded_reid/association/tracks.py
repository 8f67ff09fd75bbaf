"""Tracks: what association knows of each track, a row of slots and when and where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from occluded_reid.arguments import checked, is_several, shown
from occluded_reid.data.tracklet import Tracklet
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import AssociationError
from occluded_reid.models.embedding import Embeds
from occluded_reid.models.tracklets import require_tracklets, tracklet_embeddings

__all__ = ["Tracks"]


@dataclass(frozen=True)
class Tracks:
    """N embedded tracks.

    Args:
        embeddings: N rows.
        names: N texts, all different.
        camera: number of each track's camera, None where it is not known; or None for all.
        start: time of the first crop of each track, seconds on one clock; NaN or None where it is not known.
        end: time of the last one, likewise.

    Raises:
        AssociationError: the fields do not fit each other.
    """

    embeddings: PartEmbeddings
    names: tuple[str, ...]
    camera: tuple[int | None, ...] = ()
    start: np.ndarray | None = None
    end: np.ndarray | None = None

    def __post_init__(self) -> None:
        given: object = self.names
        if not isinstance(self.embeddings, PartEmbeddings):
            raise AssociationError(
                f"embeddings are {shown(self.embeddings)}; give PartEmbeddings, a row for each track."
            )
        count = len(self.embeddings)
        if not is_several(given) or not all(isinstance(n, str) and n for n in given):
            raise AssociationError(f"names are {shown(self.names)}; give a text for each track.")
        object.__setattr__(self, "names", tuple(given))
        if len(self.names) != count or len(set(self.names)) != count:
            raise AssociationError(
                f"{count} tracks have {len(self.names)} names, {len(set(self.names))} of them different; give each a "
                "name of its own."
            )
        camera = tuple(self.camera) if is_several(self.camera) else None
        if camera == ():
            camera = (None,) * count
        if camera is None or len(camera) != count or not all(_is_camera(number) for number in camera):
            raise AssociationError(f"camera is {shown(self.camera)}; give a whole number or None for each of {count}.")
        object.__setattr__(self, "camera", tuple(None if number is None else int(number) for number in camera))
        for name in ("start", "end"):
            object.__setattr__(self, name, _times(name, getattr(self, name), count))
        start, end = self.times
        if (np.isnan(start) != np.isnan(end)).any() or (start > end).any():
            bad = int(np.flatnonzero((np.isnan(start) != np.isnan(end)) | (start > end))[0])
            raise AssociationError(
                f"the track '{self.names[bad]}' lasts from {start[bad]} to {end[bad]}; give both times, start ≤ end, "
                "or neither."
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def times(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and end, (N,) float64 each; NaN where they are not known."""
        nothing = np.full(len(self.names), np.nan)
        return (nothing if self.start is None else self.start), (nothing if self.end is None else self.end)

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> Tracks:
        """Return these tracks, in this order."""
        given = np.asarray(rows)
        if given.ndim != 1 or (len(given) and given.dtype.kind not in "iu"):
            raise AssociationError(f"rows are {shown(rows)}; give a list of the numbers of rows.")
        if len(given) and not (-len(self) <= given.min() and given.max() < len(self)):
            raise AssociationError(f"rows are {shown(rows)}; there are {len(self)} tracks, 0 … {len(self) - 1}.")
        chosen = given.astype(np.int64) % max(1, len(self))
        start, end = self.times
        numbers = chosen.tolist()
        return Tracks(
            self.embeddings[numbers],
            tuple(self.names[n] for n in numbers),
            tuple(self.camera[n] for n in numbers),
            start[chosen],
            end[chosen],
        )

    @staticmethod
    @checked(AssociationError, only=("blur", "progress"))
    def embed(
        model: Embeds,
        tracklets: Sequence[Tracklet],
        *,
        best: int | None = None,
        blur: bool = True,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tracks:
        """Embed tracklets; the options are those of `tracklet_embeddings`."""
        tracklets = require_tracklets(tracklets)
        rows = tracklet_embeddings(model, tracklets, best=best, blur=blur, batch_size=batch_size, progress=progress)
        return Tracks(
            rows,
            tuple(track.name for track in tracklets),
            tuple(track.camera for track in tracklets),
            np.array([np.nan if track.start is None else track.start for track in tracklets]),
            np.array([np.nan if track.end is None else track.end for track in tracklets]),
        )


def _is_camera(number: object) -> bool:
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    return number is None or (whole and -(1 << 63) <= int(cast(int, number)) < 1 << 63)


def _times(name: str, values: Any, count: int) -> np.ndarray:
    if values is None:
        return np.full(count, np.nan)
    try:
        given = [np.nan if v is None else v for v in values]
        if not all(isinstance(v, int | float | np.integer | np.floating) and not isinstance(v, bool) for v in given):
            raise TypeError
        found = np.array(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise AssociationError(f"{name} is {shown(values)}; give seconds, None where they are not known.") from cause
    if found.shape != (count,) or np.isinf(found).any():
        raise AssociationError(f"{name} is {shown(values)}; give {count} finite numbers of seconds.")
    return found
