"""What a run over a folder of images has made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ParseReport"]


@dataclass(frozen=True)
class ParseReport:
    """What `parse_folder` has done.

    Attributes:
        output: folder of the masks.
        label_set: of the masks.
        names: images that have a mask now, in order.
        written: how many of these masks were made in this run; the others were there.
        seconds: that took.
        pixels: class name -> pixels over all masks.
        empty: images in which the teacher found no person.
        unreadable: image -> why it could not be read.
        notes: what the mapping loses, and which files of the folder were left out.
    """

    output: Path
    label_set: str
    names: tuple[str, ...]
    written: int
    seconds: float
    pixels: Mapping[str, int]
    empty: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """Class name -> share of all pixels."""
        total = max(1, sum(self.pixels.values()))
        return {name: count / total for name, count in self.pixels.items()}

    def summary(self) -> str:
        """Return all of it in one line."""
        rate = f" at {self.written / self.seconds:.1f} images/s" if self.written and self.seconds > 0 else ""
        classes = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        nobody = f"{len(self.empty)} image{'' if len(self.empty) == 1 else 's'}"
        return (
            f"{len(self.names)} masks of {self.label_set}: {self.written} made{rate}, "
            f"{len(self.names) - self.written} were there; {classes}; no person found in {nobody}; "
            f"{len(self.unreadable)} unreadable"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "output": str(self.output),
            "label_set": self.label_set,
            "masks": len(self.names),
            "written": self.written,
            "seconds": self.seconds,
            "shares": self.shares,
            "empty": list(self.empty),
            "unreadable": dict(self.unreadable),
            "notes": list(self.notes),
        }
