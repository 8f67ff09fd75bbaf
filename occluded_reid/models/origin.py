"""Where a model's weights come from, so that nobody takes random values for a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from occluded_reid.errors import CheckpointError
from occluded_reid.heads.base import Head

__all__ = ["Origin"]


@dataclass(frozen=True)
class Origin:
    """Where a model's weights come from.

    Attributes:
        weights: what its backbone began with: "hub", the name of a file, or None for random values.
        trained: whether it was trained on people; None where nobody knows, as of models saved before this was recorded.
            Whoever trains by code of his own says so: ``model.origin = Origin(trained=True)``.
        idle: heads that no loss has reached in training, so that they are still as they were built.
    """

    weights: str | None = None
    trained: bool | None = None
    idle: tuple[str, ...] = ()

    def cautions(self, name: str, heads: Mapping[str, Head]) -> tuple[str, ...]:
        """Return what should be known before somebody relies on the model, a sentence each.

        Args:
            name: of the model.
            heads: its heads by name.
        """
        if self.trained is False:
            began = "all its weights are random values" if self.weights is None else "its heads are random values"
            beyond = "" if self.weights is None else f" and its backbone, from '{self.weights}', has learnt no people"
            return (
                f"'{name}' was never trained: {began}{beyond}, so what it finds says little. Train it (occluded-reid "
                "train), or load a trained model.",
            )
        blind = [(head, _listed(heads[head].info.visibility_of)) for head in self.idle if head in heads]
        return tuple(
            f"visibility of {slots}: not trained. No loss has reached the head '{head}' of '{name}', as without part "
            f"masks, so these values say nothing. {MASKS}"
            for head, slots in blind
            if slots
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON knows it."""
        return {**asdict(self), "idle": list(self.idle)}

    @staticmethod
    def from_dict(content: Any) -> Origin:
        """Rebuild a record from `to_dict`; None gives that of a model of which nothing is known.

        Raises:
            CheckpointError: it is damaged.
        """
        if content is None:
            return Origin()
        if isinstance(content, Mapping):
            weights, trained, idle = (content.get(key) for key in ("weights", "trained", "idle"))
            if (
                (weights is None or isinstance(weights, str))
                and (trained is None or isinstance(trained, bool))
                and isinstance(idle, list)
                and all(isinstance(head, str) for head in idle)
            ):
                return Origin(weights, trained, tuple(idle))
        raise CheckpointError("where the model's weights come from cannot be read. Use another copy of its folder.")


MASKS = (
    "Part masks are made by occluded-reid parse IMAGES --teacher onnx --option model=FILE.onnx --out MASKS (pip "
    "install 'occluded-reid[onnx]'; occluded-reid list parsers names the teachers), and learnt from by train --masks "
    "MASKS."
)
"""Where part masks come from, for messages."""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
