"""Queries of an evaluation with the images that the matcher finds for each, ready to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import ReIDData
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.embed import Occlusion, occluded_sample
from occluded_reid.evaluation.ranking.matches import MatchRanks, places
from occluded_reid.models import ReIDModel
from occluded_reid.pixels import THUMBNAIL, ImageLike, to_rgb, to_thumbnail
from occluded_reid.search import InMemoryRows, exact_topk
from occluded_reid.visualize import RankedItem, RankedQuery

__all__ = ["HITS", "as_seen", "query_row", "ranked_rows"]

HITS = 10
"""Gallery images of a row."""


@checked(EvaluationError)
def ranked_rows(
    model: ReIDModel,
    data: ReIDData,
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    positions: Sequence[int],
    *,
    exclude_same_camera: bool = True,
    occlusion: Occlusion | None = None,
    matches: MatchRanks | None = None,
    notes: Sequence[str] = (),
) -> list[RankedQuery]:
    """Return ranked lists of some queries by the model's own matcher, right and wrong marked.

    What the evaluation drops is dropped here too, and what is equally near comes in the same order. Memory: the images
    of these rows, and the gallery's embeddings once more where its names are not in order.

    Args:
        model: whose matcher ranks, and whose heads say what is visible.
        data: the images.
        query: the embedded queries of `data`, all of them, in their order.
        gallery: the embedded gallery, likewise.
        positions: which queries.
        exclude_same_camera: leave out gallery images of the query's identity and camera.
        occlusion: how the queries were occluded before they were embedded, so that they are drawn as they were seen.
        matches: where the true matches stand; the best-ranked one is then appended to rows that do not show it.
        notes: a line above each row, or none.

    Raises:
        EvaluationError: the embeddings are not those of the data's images.
        ImageError: an image cannot be read.
    """
    for name, side, samples in (("query", query, data.query), ("gallery", gallery, data.gallery)):
        if len(side) != len(samples) or (side.paths and side.paths != tuple(sample.name for sample in samples)):
            raise EvaluationError(
                f"the {name} embeddings are not those of '{data.name}': {len(side)} rows and {len(samples)} images, or "
                "other names. Give the data set that was embedded, loaded by the same options."
            )
    chosen = list(positions)
    asked = query.embeddings[chosen]
    identity, camera = query.identity[chosen], query.camera[chosen]
    order = np.argsort(places(gallery))
    known, seen_by = gallery.identity[order], gallery.camera[order]
    sorted_already = np.array_equal(order, np.arange(len(order)))
    rows = gallery.embeddings if sorted_already else gallery.embeddings[torch.from_numpy(order)]

    def allowed(start: int, stop: int) -> np.ndarray:
        same = identity[:, None] == known[None, start:stop]
        return np.asarray(~(same & (camera[:, None] == seen_by[None, start:stop])))

    best = exact_topk(asked, InMemoryRows(rows), model.matcher, HITS, allowed=allowed if exclude_same_camera else None)
    drawn = []
    for i, q in enumerate(chosen):
        found, distances = order[best.positions[i]].tolist(), best.distances[i].tolist()
        ranks: list[int | None] = [None] * len(found)
        if matches is not None and matches.offsets[q] < matches.offsets[q + 1]:
            first = int(matches.offsets[q])
            if int(matches.rows[first]) not in found:
                found.append(int(matches.rows[first]))
                distances.append(float(matches.distance[first]))
                ranks.append(int(matches.ranks[first]))
        details = model.matcher.explain(asked, gallery.embeddings, [i] * len(found), found)
        items = [
            RankedItem(
                to_thumbnail(data.gallery[g].path),
                distances[n],
                correct=bool(gallery.identity[g] == identity[i]),
                identity=data.gallery[g].identity,
                camera=data.camera_label(data.gallery[g].camera),
                shared=dict(zip(asked.names, details.shared[n].tolist(), strict=True)),
                slot_distances=dict(zip(asked.names, details.slot_distance[n].tolist(), strict=True)),
                rank=ranks[n],
            )
            for n, g in enumerate(found)
        ]
        sample = data.query[q]
        image: ImageLike = sample.path if occlusion is None else occluded_sample(sample, occlusion)[0]
        camera_seen = data.camera_label(sample.camera)
        drawn.append(
            query_row(model, image, items, identity=sample.identity, camera=camera_seen, note=notes[i] if notes else "")
        )
    return drawn


def query_row(
    model: ReIDModel,
    image: ImageLike,
    items: Sequence[RankedItem],
    *,
    identity: str | None = None,
    camera: int | str | None = None,
    note: str = "",
) -> RankedQuery:
    """Return one row: a query image with what the model sees of it, and its hits.

    Args:
        model: gives the query's visibility and part mask.
        image: of any kind.
        items: the hits.
        identity: who it is, where that is known.
        camera: number or name of the camera, likewise.
        note: a line above the row.
    """
    (shown,), pixels = as_seen(model, [image])  # what was cut off lies under no mask
    output = model.infer(pixels)
    seen = model.collect(output).visibility[0].tolist()
    maps = [head.maps["segmentation"] for head in output.heads.values() if "segmentation" in head.maps]
    visibility: Mapping[str, float] = dict(zip(model.slots, seen, strict=True))
    return RankedQuery(
        shown,
        items,
        visibility,
        mask=maps[0].argmax(1)[0].cpu().numpy() if maps else None,
        classes=maps[0].shape[1] if maps else 8,
        identity=identity,
        camera=camera,
        note=note,
    )


def as_seen(model: ReIDModel, images: Sequence[ImageLike]) -> tuple[list[np.ndarray], torch.Tensor]:
    """Return what the model keeps of each image, scaled down where it is larger than any picture, and its pixels."""
    seen = model.preprocess.see(images)
    kept = []
    for image, box in zip(images, seen.boxes, strict=True):
        whole = to_rgb(image)
        kept.append(np.asarray(to_thumbnail(whole if box is None else whole.crop(box), THUMBNAIL)))
    return kept, model.preprocess.normalize(seen.pixels)
