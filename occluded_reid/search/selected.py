"""Some rows of a source as a source of their own, and what queries may find asked for pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import ShapeError
from occluded_reid.search.exact import Allowed
from occluded_reid.search.rows import RowSource

__all__ = ["PairRule", "SelectedRows", "allowed_at", "allowed_pairs"]

_WINDOW = 1 << 13  # positions that a mask is asked for at a time


class SelectedRows:
    """The rows at some positions of another source, in the order of the positions.

    Args:
        rows: the source.
        positions: ascending.

    Example:
        >>> import torch
        >>> from occluded_reid.search.rows import InMemoryRows
        >>> rows = InMemoryRows(PartEmbeddings(("a",), (torch.arange(8.0).view(4, 2),), torch.ones(4, 1)))
        >>> SelectedRows(rows, np.array([1, 3])).take([1]).slot("a")
        tensor([[6., 7.]])
    """

    def __init__(self, rows: RowSource, positions: np.ndarray) -> None:
        self._rows = rows
        self.positions = np.asarray(positions, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.positions)

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield copies of the rows, at most `rows` at a time."""
        for start in range(0, len(self.positions), rows):
            yield start, self._rows.take(self.positions[start : start + rows])

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return copies of the rows at these places among the chosen ones."""
        return self._rows.take(self.positions[np.asarray(positions, dtype=np.int64)])


@runtime_checkable
class PairRule(Protocol):
    """What queries may find, for those who can say it of single pairs: cheaper than asking for whole windows."""

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Return (nq, stop - start), boolean."""
        ...

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return (nq, n) for n ascending positions."""
        ...

    def pairs(self, queries: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return (n,) for n pairs of a query's number, ascending, and a position."""
        ...


def allowed_at(allowed: Allowed, positions: np.ndarray, count: int) -> np.ndarray:
    """Return what `count` queries may find among these ascending positions, boolean (count, n)."""
    if isinstance(allowed, PairRule):
        return _checked(allowed.at(positions), (count, len(positions)), "allowed.at()")
    mask = np.empty((count, len(positions)), dtype=bool)
    for begin, end, start, window in _windows(allowed, positions, count):
        mask[:, begin:end] = window[:, positions[begin:end] - start]
    return mask


def allowed_pairs(allowed: Allowed, queries: np.ndarray, positions: np.ndarray, count: int) -> np.ndarray:
    """Return whether each query may find the position beside it, boolean (n,).

    Args:
        allowed: a `PairRule`, or any function as `exact_topk` takes it, which is then asked for windows of 8,192 rows.
        queries: n numbers of queries, ascending.
        positions: n positions.
        count: how many queries there are.
    """
    if isinstance(allowed, PairRule):
        return _checked(allowed.pairs(queries, positions), positions.shape, "allowed.pairs()")
    mask = np.empty(len(positions), dtype=bool)
    order = np.argsort(positions, kind="stable")
    for begin, end, start, window in _windows(allowed, positions[order], count):
        part = order[begin:end]
        mask[part] = window[queries[part], positions[part] - start]
    return mask


def _windows(allowed: Allowed, positions: np.ndarray, count: int) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Yield (first and end of the ascending positions in a window, its start, its mask) for each that holds some."""
    begin = 0
    while begin < len(positions):
        start = int(positions[begin])
        end = int(np.searchsorted(positions, start + _WINDOW))
        stop = int(positions[end - 1]) + 1
        window = _checked(allowed(start, stop), (count, stop - start), f"allowed({start}, {stop})")
        yield begin, end, start, window
        begin = end


def _checked(mask: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != shape:
        raise ShapeError(f"{what} gave {mask.shape}; wanted {shape}.")
    return mask
