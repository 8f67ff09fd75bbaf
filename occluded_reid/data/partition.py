"""How people were set aside: the record of a hold-out, or of a validation side, as data and in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from occluded_reid.errors import DataError

__all__ = ["Partition"]


@dataclass(frozen=True)
class Partition:
    """Identities that left training to be queries and gallery; a data set with its own ones has no such record.

    Attributes:
        kind: "holdout", a test side, or "validation", people to choose settings by, among whom nobody is tested.
        identities: how many people.
        seed: chose them.
        queries: images that are asked for.
        gallery: images that are searched.
        unanswerable: queries without a match under another camera.
        replaced: queries and gallery images of the data set that a hold-out has taken the place of.

    Example:
        >>> record = Partition("holdout", identities=2, seed=0, queries=4, gallery=8)
        >>> record.name, record == Partition.from_dict(record.to_dict()) == Partition.from_dict(str(record))
        ('hold-out of 2 training identities, seed 0', True)
    """

    kind: Literal["holdout", "validation"]
    identities: int
    seed: int
    queries: int
    gallery: int
    unanswerable: int = 0
    replaced: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """What reports call the part of the data that these people are."""
        start = "hold-out of" if self.kind == "holdout" else "validation:"
        return f"{start} {self.identities} training identities, seed {self.seed}"

    def __str__(self) -> str:
        sides = f"{self.queries} queries, {self.gallery} gallery images"
        alone = f"; {self.unanswerable} queries without a match under another camera"
        if self.kind == "validation":
            return f"{self.name}: {sides}; the test side is not among them{alone if self.unanswerable else ''}"
        text = f"hold-out: {self.identities} identities of the training split (seed {self.seed}): {sides}{alone}"
        if any(self.replaced):
            text += f"; in place of {self.replaced[0]} queries and {self.replaced[1]} gallery images"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON knows it."""
        return {**asdict(self), "replaced": list(self.replaced)}

    @staticmethod
    def from_dict(content: Any) -> Partition:
        """Rebuild a record from `to_dict`, or from the words in which older versions kept it.

        Raises:
            DataError: it is neither.
        """
        if isinstance(content, str) and (found := _WORDS.fullmatch(content)):
            words = {name: int(number or 0) for name, number in found.groupdict().items() if name != "kind"}
            replaced = (words.pop("queries_before"), words.pop("gallery_before"))
            kind: Any = "validation" if found["kind"] == "validation" else "holdout"
            return Partition(kind, replaced=replaced, **words)
        if isinstance(content, Mapping) and set(content) == set(Partition.__dataclass_fields__):
            values = dict(content)
            kind, replaced = values.pop("kind"), values.pop("replaced")
            numbers = [*values.values(), *(replaced if isinstance(replaced, list | tuple) else ())]
            if (
                kind in ("holdout", "validation")
                and len(numbers) == len(values) + 2
                and all(type(number) is int for number in numbers)
            ):
                return Partition(kind, replaced=cast("tuple[int, int]", tuple(replaced)), **values)
        raise DataError(f"how people were set aside cannot be read: {content!r}. Use another copy of the file.")


_WORDS = re.compile(
    r"(?P<kind>hold-out|validation): (?P<identities>\d+) (?:identities of the training split \(|training identities, )"
    r"seed (?P<seed>-?\d+)\)?: (?P<queries>\d+) queries, (?P<gallery>\d+) gallery images"
    r"(?:; the test side is not among them)?"
    r"(?:; (?P<unanswerable>\d+) queries without a match under another camera)?"
    r"(?:; in place of (?P<queries_before>\d+) queries and (?P<gallery_before>\d+) gallery images)?"
)
