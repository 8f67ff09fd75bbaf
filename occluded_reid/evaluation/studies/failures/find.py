"""From two embedded sets and a matcher to where it fails, in one walk over the gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EmbeddingError, EvaluationError
from occluded_reid.evaluation.bootstrap import FEW
from occluded_reid.evaluation.evaluate import require_rows
from occluded_reid.evaluation.metrics import query_numbers
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.ranking.matches import MatchRanks, rank_matches
from occluded_reid.evaluation.report import Report, report_of, require_answers
from occluded_reid.evaluation.studies.failures.bins import Bins, visibility_bins
from occluded_reid.evaluation.studies.failures.result import Failures
from occluded_reid.evaluation.studies.failures.slices import Slice, slice_of
from occluded_reid.evaluation.studies.failures.unshared import count_unshared, slots_shared, slots_visible
from occluded_reid.matchers.base import Matcher

__all__ = ["find_failures"]


@checked(EvaluationError)
def find_failures(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    protocol: Protocol | None = None,
    *,
    visibility_edges: Sequence[float] | None = None,
    cameras_known: bool = True,
    camera_names: Mapping[int, str] | None = None,
    fingerprint: str = "",
    tuned: str = "",
    test_time: str = "",
    tile_rows: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> Failures:
    """Evaluate a matcher and say where it fails, in one walk over the gallery.

    Memory: as `evaluate`, and a byte for each slot of each image.

    Args:
        query: Nq labelled rows.
        gallery: Ng labelled rows with the same slots.
        matcher: the distance; by its rule a slot is visible or not.
        protocol: what counts; None is the common rule. Single shots have no slices.
        visibility_edges: ascending edges between bins of the query's mean visibility, so that two models or data sets
            can be compared bin by bin: (0.5, 0.75). None makes a bin of each number of visible slots where visibility
            is 0 or 1, else four bins of about as many queries each.
        cameras_known: False leaves out the slices by camera: `ReIDData.cameras_known`.
        camera_names: number -> name, for the slices' names: `ReIDData.camera_names`.
        fingerprint: of the model that made the embeddings, for the report.
        tuned: what was chosen on which other data, in words, for the report.
        test_time: what was done beside the model itself, in words, for the report.
        tile_rows: gallery rows at a time: changes time and memory, never a number.
        progress: called with (gallery rows done, gallery rows in all).

    Raises:
        EvaluationError: what `evaluate` refuses, single shots, or edges that are not ascending within (0, 1).

    Example:
        >>> import torch
        >>> from occluded_reid.embeddings import PartEmbeddings
        >>> from occluded_reid.matchers import VisibilityWeightedMatcher
        >>> rows = PartEmbeddings(("a", "b"), (torch.eye(2), torch.eye(2)), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        >>> query = EmbeddedSet(rows, identity=[7, 8], camera=[0, 0])
        >>> gallery = EmbeddedSet(rows, identity=[7, 8], camera=[1, 2])
        >>> found = find_failures(query, gallery, VisibilityWeightedMatcher())
        >>> [(part.name, part.queries) for part in found.by_visibility]
        [('1 of 2 slots', 1), ('2 of 2 slots', 1)]
        >>> [part.name for part in found.by_camera_pair]
        ['0 → 1', '0 → 2']
    """
    protocol = protocol or Protocol()
    if protocol.shots == "single":
        raise EvaluationError(
            "shots='single' ranks another gallery in each draw, so no match has one place; look for failures with "
            "shots='multi'."
        )
    require_rows(query, gallery)
    try:
        query.embeddings.require_same_slots(gallery.embeddings)
    except EmbeddingError as error:
        raise EvaluationError(f"query and gallery cannot be compared: {error}") from error
    found = rank_matches(
        query,
        gallery,
        matcher,
        exclude_same_camera=protocol.exclude_same_camera,
        tile_rows=tile_rows,
        progress=progress,
    )
    require_answers(len(found.rows), query, gallery, protocol)
    report = report_of(
        query_numbers(found, protocol.ap),
        query,
        gallery,
        protocol,
        excluded=found.excluded,
        unshared=found.unshared,
        slots=query.embeddings.widths,
        matcher=matcher.config,
        fingerprint=fingerprint,
        tuned=tuned,
        test_time=test_time,
    )
    bins = visibility_bins(query.embeddings, matcher, report.answerable, visibility_edges)
    seen = (
        slots_visible(query.embeddings, matcher, tile_rows),
        slots_visible(gallery.embeddings, matcher, tile_rows),
    )
    shared = slots_shared(*seen, found.queries, found.rows)
    width = seen[0].shape[1]
    cameras = query.camera[found.queries], gallery.camera[found.rows]
    by_camera_pair: tuple[Slice, ...] = ()
    by_query_camera: tuple[Slice, ...] = ()
    if cameras_known:
        pairs, place = np.unique(np.stack(cameras, 1), axis=0, return_inverse=True)
        called = dict(camera_names or {})
        names = [f"{called.get(q, q)} → {called.get(g, g)}" for q, g in pairs.tolist()]
        by_camera_pair = _slices(report, found, place.reshape(-1), names, [tuple(map(float, p)) for p in pairs])
        known, place = np.unique(cameras[0], return_inverse=True)
        by_query_camera = _slices(
            report, found, place, [str(called.get(c, c)) for c in known.tolist()], [(float(c),) for c in known]
        )
    counts, place = np.unique(shared, return_inverse=True)
    by_shared_slots = _slices(report, found, place, [f"{n} of {width}" for n in counts], [(float(n),) for n in counts])
    return Failures(
        report,
        _slices(report, found, bins.place[found.queries], bins.names, bins.keys),
        by_shared_slots,
        by_camera_pair,
        by_query_camera,
        count_unshared(query, gallery, seen, found, dropped=protocol.exclude_same_camera),
        bins.visibility,
        found,
        query.paths,
        _notes(bins, by_shared_slots, cameras_known),
    )


def _slices(
    report: Report, found: MatchRanks, place: np.ndarray, names: Sequence[str], keys: Sequence[tuple[float, ...]]
) -> tuple[Slice, ...]:
    """One slice for each name; (matches,) `place` says in which a match belongs."""
    return tuple(
        slice_of(report, found, place == number, name, key)
        for number, (name, key) in enumerate(zip(names, keys, strict=True))
        if (place == number).any()
    )


def _notes(bins: Bins, by_shared_slots: Sequence[Slice], cameras_known: bool) -> tuple[str, ...]:
    notes = [
        "A slice leaves the matches of the other slices out of the gallery; all images of other people stay. The fewer "
        "matches a query has left, the harder it is to find one: compare slices with about as many for each query.",
        bins.note,
    ]
    if len(by_shared_slots) == 1:
        notes.append("Every match shares as many slots as every other, so their number says nothing here.")
    if not cameras_known:
        notes.append("The camera of each image is unknown, so there are no slices by camera.")
    notes.append(f"(few): fewer than {FEW} queries, shown without an interval; do not rely on it.")
    return tuple(notes)
