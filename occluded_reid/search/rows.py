"""Where gallery rows come from: memory here, a table elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers.base import Matcher, Prepared

__all__ = ["InMemoryRows", "PreparingSource", "RowSource", "moved", "read_ahead", "rows_at", "tiles_on"]

_SPREAD = 4  # memory is looked at in place where at least every fourth row is wanted

T = TypeVar("T")


@runtime_checkable
class RowSource(Protocol):
    """Gallery rows that are read in tiles, and again one by one."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield (position of the first row, at most `rows` rows) in order, until all rows were given."""
        ...

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return the rows at these positions, in the order asked for."""
        ...


@runtime_checkable
class PreparingSource(Protocol):
    """A source that may keep what a matcher has made of its tiles, so that the next search need not do it again.

    Searches on the CPU ask for it instead of preparing a tile themselves.
    """

    def prepared(self, start: int, tile: PartEmbeddings, matcher: Matcher) -> Prepared:
        """Return what ``matcher.prepare(tile)`` gives.

        Args:
            start: position of the tile's first row.
            tile: rows as `tiles` gave them.
            matcher: the distance.
        """
        ...


class InMemoryRows:
    """Rows of a PartEmbeddings as a source.

    Args:
        rows: the gallery.

    Example:
        >>> rows = InMemoryRows(PartEmbeddings(("a",), (torch.ones(5, 2),), torch.ones(5, 1)))
        >>> [(start, len(tile)) for start, tile in rows.tiles(2)]
        [(0, 2), (2, 2), (4, 1)]
    """

    def __init__(self, rows: PartEmbeddings) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield slices that share memory with the rows."""
        for start in range(0, len(self._rows), rows):
            yield start, self._rows[start : start + rows]

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return copies of the rows at these positions."""
        return self._rows[torch.as_tensor(np.asarray(positions, dtype=np.int64))]

    def between(self, first: int, stop: int) -> PartEmbeddings:
        """Return the rows first … stop, which share memory with the rows."""
        return self._rows[first:stop]


def rows_at(source: RowSource, positions: np.ndarray) -> tuple[PartEmbeddings, np.ndarray]:
    """Return rows that hold these ascending positions, and the place of each among them.

    Rows that lie close together in memory are not copied.

    Example:
        >>> rows = InMemoryRows(PartEmbeddings(("a",), (torch.ones(5, 2),), torch.ones(5, 1)))
        >>> held, places = rows_at(rows, np.array([1, 2, 4]))
        >>> len(held), places.tolist()
        (4, [0, 1, 3])
    """
    if isinstance(source, InMemoryRows) and len(positions):
        first, stop = int(positions[0]), int(positions[-1]) + 1
        if stop - first <= _SPREAD * len(positions):
            return source.between(first, stop), positions - first
    return source.take(positions), np.arange(len(positions))


def tiles_on(
    source: RowSource, rows: int, device: torch.device
) -> Iterator[tuple[int, PartEmbeddings, PartEmbeddings]]:
    """Yield (position of the first row, at most `rows` rows, the same rows on a device) in order.

    For a GPU a thread reads the next tile, and puts it into memory that the card reads by itself, while this one is
    worked on. A search on the CPU has no core to spare for that.
    """
    if device.type == "cpu":
        for start, tile in source.tiles(rows):
            yield start, tile, moved(tile, device)
        return
    pinned = ((start, tile, _pinned(tile)) for start, tile in source.tiles(rows))
    for start, tile, tensors in read_ahead(pinned):
        yield start, tile, _on(tile.names, tensors, device)


def moved(rows: PartEmbeddings, device: torch.device) -> PartEmbeddings:
    """Return the rows on a device, themselves where they are there already."""
    tensors = (*rows.embeddings, rows.visibility)
    return rows if all(t.device == device for t in tensors) else _on(rows.names, tensors, device)


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items, each of them made in a thread while the one before it is used.

    Example:
        >>> list(read_ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_next, items)
        while item := coming.result():
            coming = pool.submit(_next, items)
            yield item[0]


def _next(items: Iterator[T]) -> tuple[T, ...]:
    """The next item, or nothing: a future cannot carry StopIteration."""
    for item in items:
        return (item,)
    return ()


def _pinned(rows: PartEmbeddings) -> tuple[Tensor, ...]:
    tensors = (*rows.embeddings, rows.visibility)
    return tuple(t.pin_memory() if t.device.type == "cpu" else t for t in tensors)


def _on(names: tuple[str, ...], tensors: tuple[Tensor, ...], device: torch.device) -> PartEmbeddings:
    *embeddings, visibility = (t.to(device, non_blocking=True) for t in tensors)
    return PartEmbeddings(names, tuple(embeddings), visibility)
