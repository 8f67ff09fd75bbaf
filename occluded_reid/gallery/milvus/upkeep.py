"""Looking after a gallery on a server: what broken writes have left, and what is missing."""

from __future__ import annotations

import time

import numpy as np

from occluded_reid.gallery.milvus.numbers import first_number, tick_at
from occluded_reid.gallery.milvus.rows import numbered, parts
from occluded_reid.gallery.milvus.store import MilvusStore

__all__ = ["missing", "remove_orphans"]

_MOST = 16_384  # rows read at a time
_YOUNG = 600.0  # seconds: younger rows may be of a write that is going on


def remove_orphans(store: MilvusStore, young: float = _YOUNG) -> int:
    """Remove from the slots' collections the rows that count nowhere.

    Memory: 8 bytes a row of the gallery.

    Args:
        store: the rows.
        young: seconds; younger rows stay.

    Returns:
        How many rows were removed, over all slots.
    """
    newest = first_number(tick_at(time.time() - young))
    removed = 0
    # What counts is read after the slots, so that a row that has become whole meanwhile is never taken for one.
    there = {slot: np.concatenate([np.empty(0, np.int64), *_all_rows(store, slot, newest)]) for slot in store.slots}
    counting = np.sort(
        np.concatenate([np.empty(0, np.int64), *(b.column("row").to_numpy() for b in store.scan(["row"]))])
    )
    for slot, numbers in there.items():
        lost = np.setdiff1d(numbers, counting)
        for part in parts(lost):
            store.server.call("written", "delete", slot, ids=part.tolist())
        removed += len(lost)
    return removed


def missing(store: MilvusStore) -> dict[str, str]:
    """Return the slots that lack rows which count, each with what is wrong."""
    lost = dict.fromkeys(store.slots, 0)
    for batch in store.scan(["row"]):
        for part in parts(np.sort(batch.column("row").to_numpy())):
            for slot in store.slots:
                found = store.query(slot, numbered("row", part), ["row"], consistency="Strong")
                lost[slot] += len(part) - len({row["row"] for row in found})
    return {
        f"slot '{name}' (collection '{slot}')": f"lacks {lost[slot]} images; add them again with replace=True."
        for name, slot in zip(store.manifest.slots, store.slots, strict=True)
        if lost[slot]
    }


def _all_rows(store: MilvusStore, collection: str, newest: int) -> list[np.ndarray]:
    """Return the numbers of all rows of a collection up to one, in parts.

    A limit gives no order, so that ranges are halved until what they hold fits into one answer.
    """
    found, waiting = [], [(0, newest)]
    while waiting:
        low, high = waiting.pop()
        expression = f"row >= {low} and row < {high}"
        count = store.count(collection, expression)
        if count > _MOST and high - low > 1:
            middle = (low + high) // 2
            waiting += [(low, middle), (middle, high)]
        elif count:
            found.append(np.array([row["row"] for row in store.query(collection, expression, ["row"])], dtype=np.int64))
    return found
