"""Embeddings that a search has read, kept for the next one: after an addition, only what is new is read."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery.layout import Layout

__all__ = ["RowMemory"]

_NUMBERS = 1 << 25  # numbers that are held, of 4 bytes each: 128 MiB
_READ_ROWS = 1024  # rows that are read at a time
_LEAST_ROWS = 256

Read = Callable[[np.ndarray], PartEmbeddings]
"""Reads the rows at some positions."""


class RowMemory:
    """The embeddings of a gallery's rows by the numbers of the column `row`, up to 128 MiB.

    A number stands for one content for ever: a replaced image gets another. So versions of one gallery can share what
    was read, and rows that were added lately come at the end.

    Args:
        layout: of the gallery.
        numbers: how many numbers are held at most; a gallery with more is read anew by each search.
    """

    def __init__(self, layout: Layout, numbers: int = _NUMBERS) -> None:
        self._layout, self._most = layout, numbers // layout.width
        self._lock = threading.Lock()
        self._known = np.empty(0, np.int64)
        self._rows = self._empty(0)

    def rows(self, numbers: np.ndarray, read: Read) -> PartEmbeddings | None:
        """Return the embeddings of these rows; what is not known yet is read. None where they are too many.

        Args:
            numbers: of all rows of a version, ascending.
            read: gives the rows at positions in `numbers`.
        """
        if len(numbers) > self._most:
            return None
        with self._lock:
            shared = min(len(numbers), len(self._known))
            if not np.array_equal(self._known[:shared], numbers[:shared]):
                self._leave_out(numbers)
                shared = len(self._known)
            if shared == len(self._known) < len(numbers):
                self._reserve(len(numbers))
                for first in range(shared, len(numbers), _READ_ROWS):
                    last = min(first + _READ_ROWS, len(numbers))
                    self._write(first, read(np.arange(first, last)))
                    self._known = numbers[:last]
            return self._rows[: len(numbers)]

    def _leave_out(self, numbers: np.ndarray) -> None:
        """Keep the leading rows that are known, without what was removed in between."""
        place = np.searchsorted(self._known, numbers)
        found = place < len(self._known)
        found[found] = self._known[place[found]] == numbers[found]
        leading = len(numbers) if found.all() else int(found.argmin())
        kept = self._rows[torch.from_numpy(place[:leading])]
        self._rows = self._empty(0)  # others may still look at the rows as they were
        self._known = numbers[:0]
        self._reserve(max(leading, 1))
        self._write(0, kept)
        self._known = numbers[:leading]

    def _reserve(self, rows: int) -> None:
        if rows > len(self._rows):
            grown = self._empty(min(max(2 * rows, _LEAST_ROWS), max(self._most, rows)))
            before, self._rows = self._rows[: len(self._known)], grown
            self._write(0, before)

    def _write(self, first: int, rows: PartEmbeddings) -> None:
        """Write rows behind those that somebody may look at."""
        part = slice(first, first + len(rows))
        for mine, given in zip(self._rows.embeddings, rows.embeddings, strict=True):
            mine[part] = given
        self._rows.visibility[part] = rows.visibility

    def _empty(self, rows: int) -> PartEmbeddings:
        slots = self._layout.slots
        return PartEmbeddings(
            tuple(slots), tuple(torch.zeros(rows, width) for width in slots.values()), torch.zeros(rows, len(slots))
        )
