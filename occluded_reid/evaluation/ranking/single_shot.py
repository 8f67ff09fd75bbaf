"""Where the true match stands when the gallery has one random image of each person, as CUHK03's first protocol has it.

A draw is a gallery: of each identity the image whose hash of (seed, draw, name) is smallest. For the query's own
identity the smallest among the images that it may be answered with is taken, so that a draw never leaves an answerable
query without an answer. All draws share one walk over the gallery: float32 tiles propose, exact distances decide, and
an image comes before another by (distance rounded to 1e-6, place of its name), as with all gallery images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.ranking.matches import Labelled, places
from occluded_reid.files import text_bytes
from occluded_reid.matchers.base import NO_SHARED_SLOT, PairScorer
from occluded_reid.search.blocks import Block, Distances

__all__ = ["SingleShotRanks", "draw_galleries", "rank_single_shot_by"]

_BLOCK_VALUES = 1 << 20  # distances of a tile that are looked at together: 4 MB
_RESCORED_PAIRS = 1 << 18

Progress = Callable[[int, int], None]
"""Called with (gallery rows done, gallery rows in all)."""


@dataclass(frozen=True)
class SingleShotRanks:
    """The rank of each query's match in each draw.

    Attributes:
        ranks: (Nq, draws) int64 from 1; 0 in all draws for a query that has nothing to find.
        rows: (Nq, draws) position in the gallery of the match that was drawn; -1 where there is none.
        excluded: pairs dropped for having the same identity and camera.
        unshared: pairs left in that share no slot; all gallery images count, whether drawn or not.
    """

    ranks: np.ndarray
    rows: np.ndarray
    excluded: int
    unshared: int

    @property
    def answerable(self) -> np.ndarray:
        """(Nq,) bool: whether the gallery holds something to find."""
        return np.asarray(self.ranks[:, 0] > 0)

    @property
    def unanswerable(self) -> int:
        """Queries without anything to find."""
        return int((~self.answerable).sum())

    def hits(self, k: int) -> np.ndarray:
        """Return the share of draws in which each answerable query finds its match among the first k images.

        Args:
            k: rank, from 1.

        Returns:
            One number in [0, 1] for each answerable query: what intervals resample.

        Raises:
            EvaluationError: k is less than 1.
        """
        if k < 1:
            raise EvaluationError(f"rank {k} was asked for; ranks are counted from 1.")
        return np.asarray((self.ranks[self.answerable] <= k).mean(1))

    def rank(self, k: int) -> float:
        """Return CMC at rank k, the mean over draws and answerable queries; NaN without any."""
        hits = self.hits(k)
        return float(hits.mean()) if len(hits) else float("nan")


def rank_single_shot_by(
    distances: Distances,
    query: Labelled,
    gallery: Labelled,
    *,
    exclude_same_camera: bool = True,
    draws: int = 10,
    seed: int = 0,
    tile_rows: int = 1024,
    progress: Progress | None = None,
) -> SingleShotRanks:
    """Rank each query's match among one random gallery image of every identity, several times.

    Average precision is not defined here: each query has one match in a draw. Where the gallery has names, neither the
    draws nor the ranks depend on its order; without names the position stands for the name.

    Memory: one block of a tile of distances, 8 bytes for each gallery image and draw, and 24 for each query and draw.

    Args:
        distances: of Nq queries to Ng gallery images.
        query: who is asked for.
        gallery: who is searched.
        exclude_same_camera: never answer a query with an image of its own identity and camera.
        draws: how often a gallery is drawn.
        seed: of the draws.
        tile_rows: gallery rows at a time: changes time and memory, never a number.
        progress: called after each tile.

    Raises:
        EvaluationError: there is no draw to make, or a distance is NaN.

    Example:
        >>> from dataclasses import make_dataclass
        >>> from occluded_reid.search.blocks import MatrixDistances
        >>> people = make_dataclass("People", ["identity", "camera", "paths"], namespace={"__len__": lambda self: 3})
        >>> query = people(np.array([7, 8, 9]), np.array([0, 0, 0]), ())
        >>> gallery = people(np.array([7, 8, 9]), np.array([1, 1, 0]), ())
        >>> rank_single_shot_by(MatrixDistances(1 - np.eye(3)), query, gallery, draws=2).ranks.tolist()
        [[1, 1], [1, 1], [0, 0]]
    """
    if draws < 1:
        raise EvaluationError(f"{draws} galleries cannot be drawn; give at least 1 draw.")
    order = draw_galleries(gallery, draws, seed)
    place = places(gallery)
    drawn = _drawn(gallery.identity, order, place)
    rows, excluded = _answers(query, gallery, order, place, exclude_same_camera)
    exact = _exact_answers(rows, distances.score)
    before = np.zeros(rows.shape, dtype=np.int64)
    unshared = 0
    for start in range(0, len(gallery), tile_rows):
        stop = min(start + tile_rows, len(gallery))
        read = distances.tile(start, stop)
        step = max(1, _BLOCK_VALUES // (stop - start))
        for first in range(0, len(query), step):
            block = slice(first, min(first + step, len(query)))
            near = read(block.start, block.stop)
            distance = near.distance.numpy()
            _refuse_nan(distance, first, start)
            same = query.identity[block, None] == gallery.identity[None, start:stop]
            unshared += _unshared(near, same, query.camera[block], gallery.camera[start:stop], exclude_same_camera)
            margin = np.broadcast_to(np.asarray(near.tolerance, dtype=np.float64), len(distance))
            for draw in range(draws):
                columns = np.flatnonzero(drawn[draw, start:stop])
                before[block, draw] += _ahead(
                    np.where(same[:, columns], np.inf, distance[:, columns]).astype(np.float32),
                    exact[block, draw],
                    margin,
                    distances.score,
                    first,
                    columns + start,
                    place[columns + start][None, :] < place[rows[block, draw]][:, None],
                )
        if progress is not None:
            progress(stop, len(gallery))
    return SingleShotRanks(np.where(rows >= 0, before + 1, 0), rows, excluded, unshared)


def draw_galleries(gallery: Labelled, draws: int, seed: int = 0) -> np.ndarray:
    """Return a random number for each draw and gallery image, (draws, Ng) uint64: the smallest of a person is drawn.

    It is the beginning of the SHA-256 of "seed:draw:name", so that neither other images nor their order matter.
    """
    names = gallery.paths or tuple(str(position) for position in range(len(gallery)))
    numbers = np.empty((draws, len(gallery)), dtype=np.uint64)
    for draw in range(draws):
        for position, name in enumerate(names):
            numbers[draw, position] = int.from_bytes(hashlib.sha256(text_bytes(f"{seed}:{draw}:{name}")).digest()[:8])
    return numbers


def _drawn(identity: np.ndarray, order: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Which images each draw's gallery has, (draws, Ng) bool: one of each identity."""
    drawn = np.zeros(order.shape, dtype=bool)
    for draw, numbers in enumerate(order):
        sorted_rows = np.lexsort((place, numbers, identity))
        first = np.ones(len(identity), dtype=bool)
        first[1:] = identity[sorted_rows][1:] != identity[sorted_rows][:-1]
        drawn[draw, sorted_rows[first]] = True
    return drawn


def _answers(
    query: Labelled, gallery: Labelled, order: np.ndarray, place: np.ndarray, exclude_same_camera: bool
) -> tuple[np.ndarray, int]:
    """The gallery row that answers each query in each draw, (Nq, draws), -1 without any; and the pairs left out."""
    by_identity = np.lexsort((place, gallery.identity))
    known = gallery.identity[by_identity]
    rows = np.full((len(query), len(order)), -1, dtype=np.int64)
    excluded = 0
    groups, group_of = np.unique(np.stack([query.identity, query.camera], axis=1), axis=0, return_inverse=True)
    group_of = group_of.reshape(-1)
    sizes = np.bincount(group_of, minlength=len(groups))
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(sizes)[:-1])
    for (identity, camera), queries in zip(groups, members, strict=True):
        mine = by_identity[np.searchsorted(known, identity) : np.searchsorted(known, identity, side="right")]
        if exclude_same_camera:
            allowed = mine[gallery.camera[mine] != camera]
            excluded += (len(mine) - len(allowed)) * len(queries)
            mine = allowed
        if len(mine):
            rows[queries] = mine[order[:, mine].argmin(1)]
    return rows, excluded


def _exact_answers(rows: np.ndarray, score: PairScorer) -> np.ndarray:
    """Deciding distances of the answers, (Nq, draws); -inf where there is none, so that nothing comes before it."""
    exact = np.full(rows.shape, -np.inf)
    queries, draws = np.nonzero(rows >= 0)
    for begin in range(0, len(queries), _RESCORED_PAIRS):
        q, d = (index[begin : begin + _RESCORED_PAIRS] for index in (queries, draws))
        exact[q, d] = score(q, rows[q, d])
        if len(wrong := np.flatnonzero(np.isnan(exact[q, d]))):
            raise _nan(int(q[wrong[0]]), int(rows[q, d][wrong[0]]))
    return exact


def _ahead(
    distance: np.ndarray,
    own: np.ndarray,
    margin: np.ndarray,
    score: PairScorer,
    first: int,
    rows: np.ndarray,
    earlier: np.ndarray,
) -> np.ndarray:
    """How many images come before each query's own, (nq,).

    Args:
        distance: (nq, n) float32, infinite for images that do not count.
        own: (nq,) deciding distance of the query's own image.
        margin: (nq,) how far `distance` may be off.
        score: the deciding distances.
        first: the first query.
        rows: (n,) gallery positions of the columns.
        earlier: (nq, n) whether an image wins a tie.
    """
    low, high = ((own + sign * margin).astype(np.float32)[:, None] for sign in (-1, 1))
    ahead = np.asarray((distance < low).sum(1))
    q, g = np.nonzero((distance >= low) & (distance <= high) & np.isfinite(distance))
    for begin in range(0, len(q), _RESCORED_PAIRS):
        some, columns = (index[begin : begin + _RESCORED_PAIRS] for index in (q, g))
        exact = score(some + first, rows[columns])
        wins = (exact < own[some]) | ((exact == own[some]) & earlier[some, columns])
        ahead += np.bincount(some[wins], minlength=len(ahead))
    return ahead


def _unshared(
    near: Block, same: np.ndarray, query_camera: np.ndarray, gallery_camera: np.ndarray, exclude_same_camera: bool
) -> int:
    """Number of pairs of a block that share no slot and are left in."""
    apart = near.distance.numpy() >= NO_SHARED_SLOT if near.unshared is None else near.unshared.numpy()
    if exclude_same_camera:
        apart = apart & ~(same & (query_camera[:, None] == gallery_camera[None, :]))
    return int(apart.sum())


def _refuse_nan(distance: np.ndarray, first: int, start: int) -> None:
    wrong = np.isnan(distance)
    if wrong.any():
        query, row = np.argwhere(wrong)[0]
        raise _nan(first + int(query), start + int(row))


def _nan(query: int, row: int) -> EvaluationError:
    return EvaluationError(
        f"the distance of query {query} to gallery image {row} is NaN, so nothing can be ranked by it. Look at what "
        "the matcher or the matrix makes of that image."
    )
