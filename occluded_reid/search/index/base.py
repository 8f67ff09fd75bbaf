"""What approximate search asks of an index: near rows of one slot, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, Self

import numpy as np

from occluded_reid.errors import GalleryError, ShapeError

__all__ = ["DamagedIndexError", "IndexMetric", "SlotIndex", "state_of"]


class DamagedIndexError(GalleryError, ShapeError):
    """An index, or its copy of the rows, is not what was written; the rows themselves are unharmed."""


IndexMetric = Literal["inner_product", "l2"]


class SlotIndex(ABC):
    """Proposes gallery rows that are near in ONE slot; the matcher scores them again and decides.

    Rows are added in batches under ids that the caller gives: 0, 1, … in the order of the gallery, with gaps where the
    slot is hidden. To add an index of your own, subclass this and register it in `INDEXES`. It must have
    `__len__`, `exact`, `add`, `search`, `save` and `load`, and a constructor that takes `width` and `metric` (and, by
    keyword, options of its own): a gallery builds it once, saves it, and searches what it loads. `train`, `efforts` and
    `cost` may stay as they are here.

    Args:
        width: D, numbers in a vector.
        metric: "inner_product" (of unit vectors: cosine) or "l2".
    """

    checked: bool = False
    """Whether `load` makes sure that its files are what `save` wrote; else a gallery hashes them before."""

    parallel: bool = False
    """Whether `search` may be called from several threads at once, for a few queries each; else for all of them."""

    def __init__(self, width: int, *, metric: IndexMetric) -> None:
        self.width = width
        self.metric = metric
        self.notes: list[str] = []
        """What was changed on the way: fewer cells than asked for, Flat instead of something else."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of vectors."""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether `search` returns the m nearest vectors, at any effort."""

    @property
    def efforts(self) -> tuple[int, ...]:
        """Values of `effort` worth trying, ascending: each looks at more vectors than the one before."""
        return (1,)

    def cost(self, effort: int | None = None) -> float:  # noqa: ARG002
        """Return about how many vectors one query is compared with, to order efforts by price."""
        return float(len(self))

    def train(self, sample: np.ndarray) -> None:  # noqa: B027
        """Learn from (n, D) float32 vectors, once, before the first `add`."""

    @abstractmethod
    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Add (n, D) float32 vectors under n int64 ids that are not taken."""

    @abstractmethod
    def search(
        self, queries: np.ndarray, m: int, *, effort: int | None = None, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the m nearest vectors of each query that the index finds, nearest first.

        Args:
            queries: (nq, D) float32.
            m: how many.
            effort: how hard to look, one of `efforts` or between them; None is the index's own choice.
            allowed: boolean, one for each id from 0 on: what may be found. An id beyond it may not.

        Returns:
            Distances (nq, m) float32, smaller is nearer (1 - inner product, or the squared L2 distance), and ids
            (nq, m) int64; inf and -1 where fewer were found.
        """

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the index to `path`: a file or a folder, as the class likes."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, *, mmap: bool = True, device: str = "cpu") -> Self:
        """Read what `save` has written; with `mmap`, leave vectors on the disk where that is possible."""


def state_of(file: Path) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced: where it was hashed once, it need not be hashed again."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
