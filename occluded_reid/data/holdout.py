"""Setting identities aside: a test or validation set out of a training split."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.errors import DataError

__all__ = ["holdout"]


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
        queries.setdefault((sample.identity, sample.camera if data.cameras_known else 0), sample)
    asked = {sample.name for sample in queries.values()}
    split = replace(
        data,
        train=tuple(sample for sample in data.train if sample.identity not in chosen),
        query=tuple(sample for sample in held if sample.name in asked),
        gallery=tuple(sample for sample in held if sample.name not in asked),
    )
    part = f"hold-out of {count} training identities, seed {seed}"
    return replace(split, notes=(*data.notes, _note(data, split, count, seed)), part=part)


def _note(before: ReIDData, after: ReIDData, count: int, seed: int) -> str:
    note = (
        f"hold-out: {count} identities of the training split (seed {seed}): {len(after.query)} queries, "
        f"{len(after.gallery)} gallery images; {len(after.unanswerable())} queries without a match under another camera"
    )
    if before.query or before.gallery:
        note += f"; in place of {len(before.query)} queries and {len(before.gallery)} gallery images"
    return note


def _order(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()
