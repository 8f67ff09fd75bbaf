"""Nothing is fitted or chosen on people who are tested on: the checks."""

from __future__ import annotations

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.data.dataset import ReIDData
from occluded_reid.data.holdout import shared_identities
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.studies.tuned import Tuned
from occluded_reid.models import ReIDModel

__all__ = ["require_apart", "require_untouched", "training_note"]


def require_apart(data: ReIDData) -> None:
    """Refuse data in which a person is both in training and a query or a gallery image.

    Raises:
        EvaluationError: there are such people; their number and the first of them are named.
    """
    if both := shared_identities(data):
        raise EvaluationError(
            f"{len(both)} identities of '{data.name}', such as '{both[0]}', are in training and in queries or gallery: "
            "the numbers would be of people the model knows. Split the people, or hold some out (holdout=…); "
            "`occluded-reid data verify` counts them."
        )


def require_untouched(fitted: Tuned | Calibration, data: ReIDData, *, fingerprint: str | None = None) -> None:
    """Refuse settings or thresholds that were made with people who are now tested on, or for another model.

    Args:
        fitted: tuned settings, or a calibration.
        data: whose queries and gallery are the test side.
        fingerprint: of the model, before tuned settings are applied to it; None is not compared.

    Raises:
        EvaluationError: a person of the test side was tuned or calibrated with, a calibration with the same data does
            not name its people, or the model is another one.
    """
    tuned = isinstance(fitted, Tuned)
    if fitted.data == data.name:
        tested = {*data.identities("query"), *data.identities("gallery")}
        if isinstance(fitted, Tuned):
            people = fitted.identities
        elif fitted.people:
            people = fitted.people
        else:
            # Their numbers say nothing: they depend on what else of the data was loaded.
            raise EvaluationError(
                f"the calibration was made with people of '{data.name}' that it does not name, so nobody can say "
                "whether they are tested on now. Calibrate again, with people=…; the command line gives them."
            )
        if again := sorted(tested.intersection(people)):
            raise EvaluationError(
                f"{len(again)} of the {len(tested)} people of the test side of '{data.name}', such as '{again[0]}', "
                f"were {'tuned' if tuned else 'calibrated'} with. What was chosen on people says nothing new about "
                "them: take validation identities from training (--validation), with the hold-out and seed of the test."
            )
    if isinstance(fitted, Tuned):
        if fingerprint is not None:
            fitted.require_model(fingerprint)
    elif fingerprint is not None and fitted.model is not None and fitted.model != fingerprint:
        raise EvaluationError(
            f"the calibration was made for the model {fitted.model}; this one is {fingerprint}. A threshold means "
            "nothing for other distances: calibrate again."
        )


def training_note(model: ReIDModel, data: ReIDData) -> str:
    """Say whether the model was trained on the people of queries and gallery, as far as its folder tells."""
    tested = {*data.identities("query"), *data.identities("gallery")}
    if model.trained_on is None:
        return "not known whether the model was trained on these people"
    if again := model.trained_on.among(data.name, tested):
        return f"the model was trained on {len(again)} of these {len(tested)} people, such as '{again[0]}'"
    seen = model.trained_on.names
    if data.name not in seen:
        other = ", ".join(f"'{name}'" for name in seen)
        return (
            f"the model was trained on {other}; on none of these {len(tested)} people, unless '{data.name}' is the "
            "same data under another name"
        )
    return f"the model was trained on none of these {len(tested)} people"
