"""Where a model's weights come from, and whom they were trained on, kept beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from occluded_reid.data.dataset import ReIDData
from occluded_reid.data.partition import Partition
from occluded_reid.errors import CheckpointError, DataError
from occluded_reid.files import text_bytes
from occluded_reid.heads.base import Head

__all__ = ["Origin", "TrainedOn"]


@dataclass(frozen=True)
class Origin:
    """Where a model's weights come from.

    Attributes:
        weights: what its backbone began with: "hub", the name of a file, or None for random values.
        trained: whether it was trained on people; None where it is unknown, as of models saved earlier.
            Whoever trains by code of his own says so: ``model.origin = Origin(trained=True)``.
        idle: heads that no loss has reached in training, so that they are still as they were built.
    """

    weights: str | None = None
    trained: bool | None = None
    idle: tuple[str, ...] = ()

    def cautions(self, name: str, heads: Mapping[str, Head]) -> tuple[str, ...]:
        """Return what should be known before anyone relies on the model, a sentence each.

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


@dataclass(frozen=True)
class TrainedOn:
    """The people and images behind a model's weights.

    Of each identity only a hash is kept: it tells whether a person was among them, without listing them.

    Attributes:
        data: name of the data set.
        images: images of its training split.
        identities: sorted, the first twelve digits of the SHA-256 of data set and identity.
        split: what was set aside before.
        before: what the weights were trained on before that, where a trained model was trained on.

    Example:
        >>> from pathlib import Path
        >>> from occluded_reid.data.dataset import Sample
        >>> data = ReIDData("toy", Path("."), train=(Sample("a.png", Path("a.png"), "a", 0),))
        >>> TrainedOn.of(data).among("toy", ["a", "b"])
        ['a']
    """

    data: str
    images: int
    identities: tuple[str, ...]
    split: tuple[Partition, ...] = ()
    before: TrainedOn | None = None

    @staticmethod
    def of(data: ReIDData, before: TrainedOn | None = None) -> TrainedOn:
        """Return the record of a data set's training split, and of what the weights had seen before."""
        people = data.identities("train")
        hashes = tuple(sorted(_hashed(data.name, person) for person in people))
        record = TrainedOn(data.name, len(data.train), hashes, data.partitions)
        if before is None:
            return record
        # Going on with the same images adds nothing to the record.
        return before if replace(before, before=None) == record else replace(record, before=before)

    def among(self, data: str, identities: Iterable[str]) -> list[str]:
        """Return which identities of a data set were trained on, sorted; of a data set of another name, none."""
        people, known = set(identities), set(self.identities)
        found = {p for p in people if data == self.data and _hashed(data, p) in known}
        return sorted(found if self.before is None else found.union(self.before.among(data, people)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the data sets, the last one trained on first: people of others are not compared."""
        return tuple(dict.fromkeys([self.data, *(() if self.before is None else self.before.names)]))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON knows it."""
        content = {
            "data": self.data,
            "images": self.images,
            "identities": list(self.identities),
            "split": [record.to_dict() for record in self.split],
        }
        return content if self.before is None else {**content, "before": self.before.to_dict()}

    @staticmethod
    def from_dict(content: Any) -> TrainedOn:
        """Rebuild a record from `to_dict`.

        Raises:
            CheckpointError: it is damaged.
        """
        try:
            if not isinstance(content, Mapping):
                raise TypeError(f"it is {type(content).__name__}")
            record = TrainedOn(
                content["data"],
                content["images"],
                tuple(content["identities"]),
                tuple(Partition.from_dict(record) for record in content["split"]),
                TrainedOn.from_dict(content["before"]) if "before" in content else None,
            )
            if not isinstance(record.data, str) or not isinstance(record.images, int):
                raise TypeError("data or images is of the wrong type")
            if not all(isinstance(text, str) for text in record.identities):
                raise TypeError("identities hold something else than text")
        except (KeyError, TypeError, RecursionError, DataError) as error:
            raise CheckpointError(
                f"what the model was trained on cannot be read: {error}. The model's folder is damaged; use another "
                "copy of it."
            ) from error
        return record


def _hashed(data: str, identity: str) -> str:
    return hashlib.sha256(text_bytes(f"{data}\0{identity}")).hexdigest()[:12]
