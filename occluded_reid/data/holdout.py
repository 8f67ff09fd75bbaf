"""Setting identities aside: a test or validation set out of a training split."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Literal

import numpy as np

from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.data.partition import Partition
from occluded_reid.errors import DataError
from occluded_reid.files import text_bytes

__all__ = ["holdout", "shared_identities", "validation_side"]


def holdout(data: ReIDData, count: int, seed: int = 0) -> ReIDData:
    """Move identities from training to queries and gallery, which they replace.

    Identities are ordered by the SHA-256 of "seed:identity" and the first `count` leave training. Of their images one
    query per identity and camera is drawn in the same way (of "seed:image name"); all others are the gallery. Where
    cameras are not known, it is one query per identity. Called twice it gives a test set, then a validation set.

    Args:
        data: with a training split.
        count: identities to set aside; at least one must stay.
        seed: chooses them.

    Returns:
        The data set with a smaller training split, other queries and another gallery, and a note that says so.

    Raises:
        DataError: there are not enough identities.
    """
    data.require_identities(data.train, "a hold-out")
    if not isinstance(count, int | np.integer):
        raise DataError(f"a holdout is {count!r}; give how many identities to set aside, a whole number.")
    identities = sorted(data.identities("train"), key=lambda identity: _order(seed, identity))
    if not 1 <= count < len(identities):
        raise DataError(
            f"{count} identities cannot be set aside: '{data.name}' has {len(identities)} for training, and at least "
            "one must stay and one leave. Choose another holdout."
        )
    chosen = set(identities[:count])
    held = [sample for sample in data.train if sample.identity in chosen]
    queries: dict[tuple[str, int], Sample] = {}
    for sample in sorted(held, key=lambda sample: _order(seed, sample.name)):
        queries.setdefault((sample.person, sample.camera if data.cameras_known else 0), sample)
    asked = {sample.name for sample in queries.values()}
    split = replace(
        data,
        train=tuple(sample for sample in data.train if sample.identity not in chosen),
        query=tuple(sample for sample in held if sample.name in asked),
        gallery=tuple(sample for sample in held if sample.name not in asked),
    )
    return _recorded(split, data, "holdout", int(count), seed, (len(data.query), len(data.gallery)))


def validation_side(data: ReIDData, count: int, seed: int = 0) -> ReIDData:
    """Move training identities to queries and gallery, to choose settings on people who are never tested on.

    As `holdout` does, by the SHA-256 of "seed + 1:identity", out of what training has left: after ``holdout(data, n,
    seed)`` nobody of the test side is among them. The test side itself is not in the result.

    Args:
        data: with a training split that shares nobody with queries and gallery.
        count: identities to take; at least one must stay.
        seed: chooses them; the same one serves for the hold-out.

    Returns:
        The data set with a smaller training split, validation queries and gallery, and a note that says so.

    Raises:
        DataError: there are not enough identities, training shares some with the test side, or no query has an image
            to find.
    """
    if both := shared_identities(data):
        raise DataError(
            f"{len(both)} identities of '{data.name}', such as '{both[0]}', are in training and in queries or gallery; "
            "validation taken from training would be part of the test. Split the people first."
        )
    split = holdout(data, count, seed + 1)
    shown = set(split.identities("gallery"))
    found = sum(sample.identity in shown for sample in split.query)
    if not found:
        raise DataError(
            f"none of the {len(split.query)} validation queries of '{data.name}' has another image to find, among "
            f"{count} identities. Take more identities, or give more images of each."
        )
    return _recorded(split, data, "validation", int(count), seed)


def shared_identities(data: ReIDData) -> list[str]:
    """Return the sorted identities that are both in training and in queries or gallery; distractors are no person."""
    tested = {*data.identities("query"), *data.identities("gallery")}
    return sorted(tested & set(data.identities("train")))


def _recorded(
    split: ReIDData,
    before: ReIDData,
    kind: Literal["holdout", "validation"],
    count: int,
    seed: int,
    replaced: tuple[int, int] = (0, 0),
) -> ReIDData:
    """The split with its record, and a note that says so, after those that the data set had before."""
    record = Partition(kind, count, seed, len(split.query), len(split.gallery), len(split.unanswerable()), replaced)
    return replace(split, partitions=(*before.partitions, record), notes=(*before.notes, str(record)))


def _order(seed: int, text: str) -> str:
    return hashlib.sha256(text_bytes(f"{seed}:{text}")).hexdigest()
