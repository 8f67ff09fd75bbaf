"""What a search and an addition answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from occluded_reid.data.times import time_text
from occluded_reid.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["AddResult", "Hit", "hits_table"]

_FRAMED = 6  # columns that have room within lines


@dataclass(frozen=True)
class Hit:
    """One gallery image that a search has found.

    Attributes:
        key: its unique name in the gallery.
        distance: to the query; smaller is nearer.
        rank: 1 for the nearest.
        slot_distances: slot -> distance of this slot alone, whether both images show it or not.
        shared_visibility: slot -> v(query) · v(gallery): how much of the slot both images show.
        reranked: its re-ranked distance (k-reciprocal: 0 … 1) by which it has its rank, where the search was re-ranked.
        probability: how likely it is the person asked for, where a `Calibration` was the threshold, or None.
        identity: who it is, or None where it was not given.
        camera: number of the camera, or None.
        camera_name: its name, where the gallery knows one.
        time: when, in the unit it was added with, or None.
        track: name of the track, or None.
        path: file of the image as it was added, or None.
        metadata: whatever else was added with it.
    """

    key: str
    distance: float
    rank: int
    slot_distances: dict[str, float] = field(repr=False)
    shared_visibility: dict[str, float] = field(repr=False)
    reranked: float | None = None
    probability: float | None = None
    identity: str | None = None
    camera: int | None = None
    time: float | None = None
    track: str | None = None
    path: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    camera_name: str | None = None

    def __repr__(self) -> str:
        told = {
            "identity": self.identity,
            "camera": self.camera_name or self.camera,
            "track": self.track,
            "time": self.time,
        }
        known = "".join(f", {name}={value!r}" for name, value in told.items() if value is not None)
        if self.probability is not None:
            known = f" ({self.probability:.1%}){known}"
        if self.reranked is not None:
            known = f", re-ranked {self.reranked:.4f}{known}"
        return f"Hit({self.rank}: {self.key!r} at {self.distance:.4f}{known})"


@dataclass(frozen=True)
class AddResult:
    """What became of the images that were to be added.

    Attributes:
        added: new images.
        skipped: images that the gallery held already.
        replaced: images whose key was there with other content (only with ``replace=True``).
        unreadable: files that could not be read (only with ``skip_unreadable=True``).
    """

    added: int = 0
    skipped: int = 0
    replaced: int = 0
    unreadable: tuple[str, ...] = ()


def hits_table(hits: Sequence[Hit]) -> Table:
    """Return hits as a rich table: rank, key, distance, who, where and when as far as known, and each shared slot."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    told = [name for name in ("identity", "camera", "time", "track") if any(getattr(h, name) is not None for h in hits)]
    slots = list(hits[0].shared_visibility) if hits else []
    caption = f"shared: how much both images show of {', '.join(slots)}" if slots else None
    judged = ["probability"] if any(hit.probability is not None for hit in hits) else []
    table = Table("rank", "key", "distance", *judged, *told, "shared", caption=caption)
    for column in table.columns:
        column.overflow = "fold"
    if len(table.columns) > _FRAMED:  # a narrow window has no room for lines, and would cut keys into pieces
        table.box, table.pad_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    for hit in hits:
        known = {name: getattr(hit, name) for name in told}
        if hit.camera_name is not None:
            known["camera"] = hit.camera_name
        labels = (
            "–" if value is None else time_text(value) if isinstance(value, float) else str(value)
            for value in known.values()
        )
        likely = [f"{hit.probability or 0:.1%}"] if judged else []
        shared = " ".join(f"{hit.shared_visibility.get(slot, 0):.1f}" for slot in slots)
        # Text, not markup: a key such as "[a]/1.jpg" is shown as it is, and what a terminal would obey is written out.
        table.add_row(
            *(
                Text(printable(cell))
                for cell in (str(hit.rank), hit.key, f"{hit.distance:.4f}", *likely, *labels, shared)
            )
        )
    return table
