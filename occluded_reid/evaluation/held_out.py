"""Scores of a model on a data set's queries, for training to watch."""

from __future__ import annotations

from collections.abc import Callable

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.embed import embed_sides
from occluded_reid.evaluation.evaluate import evaluate
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.models import ReIDModel

__all__ = ["held_out_scores"]


@checked(EvaluationError)
def held_out_scores(data: ReIDData, *, exclude_same_camera: bool = True) -> Callable[[ReIDModel], dict[str, float]]:
    """Return a function from a model to ``{"Rank-1": …, "mAP": …}`` on the data set's queries and gallery.

    Args:
        data: with queries and a gallery.
        exclude_same_camera: as of `Protocol`.

    Raises:
        EvaluationError: the data set has no queries, or none of them has an image to find.
    """
    if not data.query or not data.gallery:
        raise EvaluationError(
            f"'{data.name}' has no queries or no gallery to evaluate on. Hold identities out (holdout=…), or train "
            "without evaluation."
        )

    if exclude_same_camera and len(data.unanswerable()) == len(data.query):  # now, and not after an epoch
        raise EvaluationError(
            f"none of the {len(data.query)} queries of '{data.name}' has an image of its person under another camera "
            "to find. Take more identities or images of several cameras; or count those of the same camera too: "
            "exclude_same_camera=False (--no-exclude-same-camera)."
        )

    protocol = Protocol(bootstrap=0, ranks=(1,), exclude_same_camera=exclude_same_camera)

    def scores(model: ReIDModel) -> dict[str, float]:
        query, gallery = embed_sides(model, data)
        report = evaluate(query, gallery, model.matcher, protocol)
        return {"Rank-1": report.rank(1), "mAP": report.mAP}

    return scores
