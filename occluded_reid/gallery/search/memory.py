"""What a search has read and prepared, kept for the next one: after an addition, only what is new is worked on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.matchers import Matcher, Prepared

__all__ = ["RowMemory"]

_NUMBERS = 1 << 25  # numbers that are held, of 4 bytes each: 128 MiB
_READ_ROWS = 1024  # rows that are read at a time
_LEAST_ROWS = 256

Read = Callable[[np.ndarray], PartEmbeddings]
"""Reads the rows at some positions."""


@dataclass(frozen=True)
class _Tile:
    numbers: np.ndarray
    prepared: Prepared

    @property
    def bytes(self) -> int:
        """Memory that it keeps alive: where it looks at rows of somebody else, all of them."""
        tensors = (*self.prepared.factors, self.prepared.shared)
        return self.numbers.nbytes + sum(tensor.untyped_storage().nbytes() for tensor in tensors)


class RowMemory:
    """The embeddings of a gallery's rows by the numbers of the column `row`, up to 128 MiB, and as much prepared.

    A number stands for one content for ever: a replaced image gets another. So versions of one gallery can share what
    was read, and rows that were added lately come at the end.

    Beside them lie their tiles as the matcher that asked last has prepared them. A tile is known by the numbers of its
    rows: where another version has other rows at its place, it is prepared anew. Of a Euclidean distance, prepared in
    float64, half of the rows find room.

    Args:
        manifest: of the gallery.
        numbers: how many numbers are held at most; a gallery with more is read and prepared anew by each search.
    """

    def __init__(self, manifest: Manifest, numbers: int = _NUMBERS) -> None:
        self._most_bytes = 4 * numbers
        self._tiles: dict[int, _Tile] = {}
        self._bytes = 0
        self._matcher: tuple[Matcher, dict[str, Any]] | None = None
        self._layout, self._most = manifest, numbers // manifest.width
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
        # Rows that were first read in torch's inference mode could not be written to outside of it.
        with self._lock, torch.inference_mode(mode=False):
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

    def prepared(self, start: int, numbers: np.ndarray, tile: PartEmbeddings, matcher: Matcher) -> Prepared:
        """Return what ``matcher.prepare(tile)`` gives, and keep it while there is room.

        Args:
            start: position of the tile's first row.
            numbers: of the tile's rows, ascending.
            tile: those rows, as `rows` gave them.
            matcher: the distance; another one, or other options of the same, begin anew.
        """
        with self._lock:
            asked = self._require_matcher(matcher)
            known = self._tiles.get(start)
            if known is not None and np.array_equal(known.numbers, numbers):
                return known.prepared
        with torch.inference_mode(mode=False):
            made = _Tile(numbers.copy(), matcher.prepare(tile))
        with self._lock:
            if self._matcher is asked:  # else what is kept is another matcher's by now
                self._keep(start, made)
        return made.prepared

    def _require_matcher(self, matcher: Matcher) -> tuple[Matcher, dict[str, Any]]:
        """Forget what another matcher has prepared; return this one with its options."""
        config = matcher.config
        if self._matcher is None or self._matcher[0] is not matcher or self._matcher[1] != config:
            self._forget_tiles(0)
            self._matcher = matcher, copy.deepcopy(config)
        return self._matcher

    def _keep(self, start: int, tile: _Tile) -> None:
        """Keep a tile in the place of what began at the same row; of a version left behind nothing is kept."""
        if np.array_equal(self._known[start : start + len(tile.numbers)], tile.numbers):
            before = self._tiles.pop(start, None)
            self._bytes -= 0 if before is None else before.bytes
            if self._bytes + tile.bytes <= self._most_bytes:
                self._tiles[start] = tile
                self._bytes += tile.bytes

    def _forget_tiles(self, leading: int) -> None:
        """Forget the tiles with rows beyond the leading ones."""
        self._tiles = {s: tile for s, tile in self._tiles.items() if s + len(tile.numbers) <= leading}
        self._bytes = sum(tile.bytes for tile in self._tiles.values())

    def _leave_out(self, numbers: np.ndarray) -> None:
        """Keep the leading rows that are known, without what was removed in between."""
        place = np.searchsorted(self._known, numbers)
        found = place < len(self._known)
        found[found] = self._known[place[found]] == numbers[found]
        leading = len(numbers) if found.all() else int(found.argmin())
        kept = self._rows[torch.from_numpy(place[:leading])]
        self._forget_tiles(leading)
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
