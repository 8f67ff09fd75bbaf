"""Where a run is."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Place"]


@dataclass
class Place:
    """`step` steps of `epoch` are done; what they took, and the sums of each loss over them.

    Attributes:
        epoch: counted from 1.
        step: steps of this epoch that are done.
        seconds: spent on them, over all interruptions.
        images: seen in them, over all processes.
        sums: loss by name, summed over them.
    """

    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    @property
    def losses(self) -> dict[str, float]:
        """Mean of each loss over the steps so far."""
        return {name: value / self.step for name, value in self.sums.items()}

    @property
    def images_per_second(self) -> float:
        """Over the steps so far."""
        return self.images / max(self.seconds, 1e-9)

    def add(self, losses: dict[str, float], images: int) -> None:
        """Count one more step."""
        self.step += 1
        self.images += images
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
