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
from occluded_reid.matchers.base import NO_SHARED_SLOT
from occluded_reid.search.tiles import Distances, Tile, score_pairs

__all__ = ["SingleShotRanks", "draw_galleries", "rank_single_shot_by"]

_BLOCK_VALUES = 1 << 20  # distances of a tile that are looked at together: 4 MB

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
        >>> from occluded_reid.search.matrix import MatrixDistances
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
    exact = _exact_answers(rows, distances)
    before = np.zeros(rows.shape, dtype=np.int64)
    unshared = 0
    for tile in distances.tiles(tile_rows, _BLOCK_VALUES):
        block, window = slice(tile.first, tile.last), slice(tile.start, tile.stop)
        distance = tile.distance.cpu().numpy()
        _refuse_nan(distance, tile.first, tile.start)
        same = query.identity[block, None] == gallery.identity[None, window]
        unshared += _unshared(tile, distance, same, query.camera[block], gallery.camera[window], exclude_same_camera)
        others = np.where(same, np.float32(np.inf), distance)
        for draw in range(draws):
            answer = place[rows[block, draw]]

            def earlier(which: np.ndarray, rows: np.ndarray, answer: np.ndarray = answer) -> np.ndarray:
                return np.asarray(place[rows] < answer[which])

            columns = np.flatnonzero(drawn[draw, window])
            own = exact[block, draw]
            around = (own + np.array([[-1.0], [1.0]]) * tile.tolerance).astype(np.float32)
            shown = others[:, columns]
            before[block, draw] += (shown < around[0, :, None]).sum(1)
            before[block, draw] += tile.count_nearer(shown, np.arange(len(own)), own, around, earlier, columns)
        if progress is not None and tile.last == len(query):
            progress(tile.stop, len(gallery))
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


def _exact_answers(rows: np.ndarray, distances: Distances) -> np.ndarray:
    """Deciding distances of the answers, (Nq, draws); -inf where there is none, so that nothing comes before it."""
    exact = np.full(rows.shape, -np.inf)
    queries, draws = np.nonzero(rows >= 0)
    exact[queries, draws] = score_pairs(distances.score, queries, rows[queries, draws])
    for query, draw in np.argwhere(np.isnan(exact))[:1]:
        raise _nan(int(query), int(rows[query, draw]))
    return exact


def _unshared(
    tile: Tile,
    distance: np.ndarray,
    same: np.ndarray,
    query_camera: np.ndarray,
    gallery_camera: np.ndarray,
    exclude_same_camera: bool,
) -> int:
    """Number of pairs of a block that share no slot and are left in."""
    apart = distance >= NO_SHARED_SLOT if tile.unshared is None else tile.unshared.numpy()
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
