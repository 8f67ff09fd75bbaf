"""From two embedded sets and a matcher, or from a matrix of distances, to a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from occluded_reid.arguments import checked, shown
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EmbeddingError, EvaluationError
from occluded_reid.evaluation.metrics import query_numbers
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.ranking.matches import Labelled, places, rank_matches_by
from occluded_reid.evaluation.ranking.single_shot import rank_single_shot_by
from occluded_reid.evaluation.report import Report, report_of, require_answers
from occluded_reid.forked import require_threads
from occluded_reid.matchers.base import Matcher
from occluded_reid.numbered import whole_numbers
from occluded_reid.search.matrix import MatrixDistances
from occluded_reid.search.rerank.all_queries import RerankedDistances
from occluded_reid.search.rerank.bridge import Bridge, BridgedDistances
from occluded_reid.search.rerank.k_reciprocal import KReciprocal
from occluded_reid.search.tiles import Distances, Tiles

__all__ = ["evaluate", "evaluate_matrix", "require_rows"]


@checked(EvaluationError, but=("device",))
def evaluate(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    protocol: Protocol | None = None,
    *,
    rerank: KReciprocal | Bridge | None = None,
    fingerprint: str = "",
    tuned: str = "",
    test_time: str = "",
    tile_rows: int = 1024,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measure how well a matcher ranks the gallery for each query, in bounded memory.

    Numbers depend neither on tile size and threads nor, where the images have names, on the order of the gallery.
    Memory: one tile of distances with what it takes to look at it (about 100 MB, however large the sets), the queries
    once more as the matcher multiplies them, and a few numbers for each query and each true match.

    Args:
        query: Nq labelled rows.
        gallery: Ng labelled rows with the same slots.
        matcher: the distance.
        protocol: what counts; None is the common rule of the re-identification benchmarks.
        rerank: re-rank by k-reciprocal encodings before counting. As published, every query and its distances to the
            other queries then change the answer of each one, which no search does: the report says so. A `Bridge` in
            its place compares images that share too little through complete gallery images, each query alone; bridges
            may be images that do not count for the query.
        fingerprint: of the model that made the embeddings, for the report.
        tuned: what was chosen on which other data, in words, for the report.
        test_time: what was done beside the model itself (averaging over flipped images, …), for the report.
        tile_rows: gallery rows at a time: changes time and memory, never a number.
        device: where distances are multiplied, see `choose_device` ("auto" logs what it chose); None is where the
            queries are. It changes the time, never a number.
        progress: called with (gallery rows done, gallery rows in all) after each tile.

    Returns:
        CMC, mAP and mINP with intervals, the numbers of each query, and the protocol they stand on.

    Raises:
        EvaluationError: query or gallery is empty, their slots differ, a name stands twice in the gallery, a distance
            is NaN, or no query has an image to find.
        DeviceError: there is no such device.

    Example:
        >>> import torch
        >>> from occluded_reid.embeddings import PartEmbeddings
        >>> from occluded_reid.matchers import PlainMatcher
        >>> rows = PartEmbeddings(("global",), (torch.eye(2),), torch.ones(2, 1))
        >>> query = EmbeddedSet(rows, identity=[7, 8], camera=[0, 0])
        >>> report = evaluate(query, EmbeddedSet(rows, identity=[7, 9], camera=[1, 1]), PlainMatcher())
        >>> report.mAP, report.unanswerable
        (1.0, 1)
    """
    protocol = protocol or Protocol()
    require_rows(query, gallery)
    try:
        query.embeddings.require_same_slots(gallery.embeddings)
    except EmbeddingError as error:
        raise EvaluationError(f"query and gallery cannot be compared: {error}") from error
    if rerank is not None:
        if protocol.shots == "single":
            raise EvaluationError("re-ranking uses the whole gallery, shots='single' one image a person; choose one.")
        gallery = _by_name(gallery)
    numbers, excluded, unshared = _ranked(
        _distances(query, gallery, matcher, rerank, device),
        query,
        gallery,
        protocol,
        tile_rows,
        progress,
    )
    return report_of(
        numbers,
        query,
        gallery,
        protocol,
        excluded=excluded,
        unshared=unshared,
        slots=query.embeddings.widths,
        matcher=matcher.config,
        fingerprint=fingerprint,
        reranking=_in_words(rerank),
        tuned=tuned,
        test_time=test_time,
    )


def _distances(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    rerank: KReciprocal | Bridge | None,
    device: str | torch.device | None,
) -> Distances:
    if rerank is None:
        return Tiles(query.embeddings, gallery.embeddings, matcher, device=device)
    if isinstance(rerank, Bridge):
        return BridgedDistances(query.embeddings, gallery.embeddings, matcher, rerank, device=device)
    return RerankedDistances(query.embeddings, gallery.embeddings, matcher, rerank, device=device)


def _in_words(rerank: KReciprocal | Bridge | None) -> str:
    if rerank is None:
        return ""
    return f"{rerank}, each query alone" if isinstance(rerank, Bridge) else f"{rerank}, uses all queries"


@dataclass(frozen=True)
class _Labels:
    identity: np.ndarray
    camera: np.ndarray
    paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.identity)


@checked(EvaluationError)
def evaluate_matrix(
    distance: np.ndarray | torch.Tensor,
    query_identity: Sequence[int] | np.ndarray,
    gallery_identity: Sequence[int] | np.ndarray,
    query_camera: Sequence[int] | np.ndarray,
    gallery_camera: Sequence[int] | np.ndarray,
    protocol: Protocol | None = None,
    *,
    tile_rows: int = 1024,
) -> Report:
    """Measure a matrix of distances that something else has computed, by the same rules.

    Distances are rounded to 1e-6; nearer together is a tie, and the position in the gallery decides.

    Args:
        distance: (Nq, Ng), smaller is nearer.
        query_identity: Nq numbers.
        gallery_identity: Ng numbers.
        query_camera: Nq numbers.
        gallery_camera: Ng numbers.
        protocol: what counts; None is the common rule of the re-identification benchmarks.
        tile_rows: gallery rows at a time: changes time and memory, never a number.

    Raises:
        EvaluationError: shapes do not fit, a label is no whole number, a distance is NaN or infinite, or no query has
            an image to find.

    Example:
        >>> distance = np.array([[0.3, 0.1, 0.2], [0.9, 0.5, 0.4]])
        >>> report = evaluate_matrix(distance, [1, 2], [1, 2, 1], [0, 0], [1, 1, 1])
        >>> report.mAP, report.rank(1)  # (1/2 + 2/3) / 2 and 1/2: their mean
        (0.5416666666666666, 0.0)
    """
    protocol = protocol or Protocol()
    try:
        matrix = distance.detach().cpu().numpy() if isinstance(distance, torch.Tensor) else np.asarray(distance)
    except ValueError as cause:  # rows of different lengths
        raise EvaluationError(f"distance is {shown(distance)}; give a matrix (Nq, Ng) of numbers.") from cause
    sides = [
        _Labels(
            whole_numbers(f"{side}_identity", identity, EvaluationError),
            whole_numbers(f"{side}_camera", camera, EvaluationError),
        )
        for side, identity, camera in (
            ("query", query_identity, query_camera),
            ("gallery", gallery_identity, gallery_camera),
        )
    ]
    shapes = [array.shape for side in sides for array in (side.identity, side.camera)]
    if matrix.ndim != 2 or shapes != [(n,) for n in matrix.shape for _ in range(2)]:
        raise EvaluationError(
            f"distances are {matrix.shape}; identities and cameras of the queries {shapes[0]} and {shapes[1]}, of the "
            f"gallery {shapes[2]} and {shapes[3]}. Wanted (Nq, Ng), then Nq, Nq, Ng and Ng numbers."
        )
    query, gallery = sides
    require_rows(query, gallery)
    numbers, excluded, unshared = _ranked(MatrixDistances(matrix), query, gallery, protocol, tile_rows, None)
    return report_of(
        numbers,
        query,
        gallery,
        protocol,
        excluded=excluded,
        unshared=unshared,
        slots={},
        matcher={"type": "given distances", "options": {}},
        # Whoever computed the distances knows; here it would be a guess.
        reranking="not known",
        tuned="not known",
        test_time="not known",
    )


def _ranked(
    distances: Distances,
    query: Labelled,
    gallery: Labelled,
    protocol: Protocol,
    tile_rows: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int, int]:
    """The numbers of each query, the pairs left out, and the pairs without a common slot."""
    require_threads("evaluate")
    if tile_rows < 1:
        raise EvaluationError(f"tile_rows is {tile_rows}; give at least 1.")
    exclude, rows = protocol.exclude_same_camera, tile_rows
    if protocol.shots == "single":
        draws = {"draws": protocol.draws, "seed": protocol.seed}
        single = rank_single_shot_by(
            distances, query, gallery, exclude_same_camera=exclude, tile_rows=rows, progress=progress, **draws
        )
        require_answers(int(single.answerable.sum()), query, gallery, protocol)
        undefined = np.full(len(query), np.nan)  # one match in a draw: average precision says nothing new
        return (undefined, single.ranks, undefined), single.excluded, single.unshared
    found = rank_matches_by(distances, query, gallery, exclude_same_camera=exclude, tile_rows=rows, progress=progress)
    require_answers(len(found.rows), query, gallery, protocol)
    return query_numbers(found, protocol.ap), found.excluded, found.unshared


def require_rows(query: Labelled, gallery: Labelled) -> None:
    """Raise EvaluationError where a set is empty, or a name stands twice in the gallery."""
    for name, rows in (("query", query), ("gallery", gallery)):
        if not len(rows):
            raise EvaluationError(f"the {name} set is empty; give at least one embedded image.")
    if len(set(gallery.paths)) < len(gallery.paths):
        twice = next(name for name, count in Counter(gallery.paths).items() if count > 1)
        raise EvaluationError(
            f"'{twice}' stands twice in the gallery; names tell images apart and break ties. Leave one out, or give "
            "the images names of their own."
        )


def _by_name(rows: EmbeddedSet) -> EmbeddedSet:
    """The rows in the order of their names: neighbours that are equally near come in the order of the rows."""
    order = np.argsort(places(rows))
    if np.array_equal(order, np.arange(len(order))):
        return rows
    return EmbeddedSet(
        rows.embeddings[torch.from_numpy(order)],
        rows.identity[order],
        rows.camera[order],
        tuple(rows.paths[i] for i in order),
    )
