"""Whom a model was trained on, kept beside its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import CheckpointError
from occluded_reid.files import text_bytes

__all__ = ["TrainedOn"]


@dataclass(frozen=True)
class TrainedOn:
    """The people and images behind a model's weights.

    Of each identity only a hash is kept: it tells whether somebody was among them, without listing anybody.

    Attributes:
        data: name of the data set.
        images: images of its training split.
        identities: sorted, the first twelve digits of the SHA-256 of data set and identity.
        split: what was set aside before, in words.
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
    split: tuple[str, ...] = ()
    before: TrainedOn | None = None

    @staticmethod
    def of(data: ReIDData, before: TrainedOn | None = None) -> TrainedOn:
        """Return the record of a data set's training split, and of what the weights had seen before."""
        people = data.identities("train")
        said = tuple(note for note in data.notes if note.startswith(("hold-out:", "validation:")))
        record = TrainedOn(data.name, len(data.train), tuple(sorted(_hashed(data.name, p) for p in people)), said)
        return record if before in (None, record) else replace(record, before=before)

    def among(self, data: str, identities: Iterable[str]) -> list[str]:
        """Return which identities of a data set were trained on, sorted; of a data set of another name, none."""
        people, known = set(identities), set(self.identities)
        found = {p for p in people if data == self.data and _hashed(data, p) in known}
        return sorted(found if self.before is None else found.union(self.before.among(data, people)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the data sets, the last one trained on first: people of others are compared with nobody."""
        return tuple(dict.fromkeys([self.data, *(() if self.before is None else self.before.names)]))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON knows it."""
        content = {
            "data": self.data,
            "images": self.images,
            "identities": list(self.identities),
            "split": list(self.split),
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
                tuple(content["split"]),
                TrainedOn.from_dict(content["before"]) if "before" in content else None,
            )
            if not isinstance(record.data, str) or not isinstance(record.images, int):
                raise TypeError("data or images is of the wrong type")
            if not all(isinstance(text, str) for text in (*record.identities, *record.split)):
                raise TypeError("identities or split hold something else than text")
        except (KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"what the model was trained on cannot be read: {error}. The model's folder is damaged; use another "
                "copy of it."
            ) from error
        return record


def _hashed(data: str, identity: str) -> str:
    return hashlib.sha256(text_bytes(f"{data}\0{identity}")).hexdigest()[:12]
