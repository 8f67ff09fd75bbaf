"""A second stage of training goes on from the model of its first, with the same people (PCB's refined part pooling)."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from occluded_reid.config import Recipe
from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import CheckpointError, RecipeError
from occluded_reid.models import ReIDModel, load_model
from occluded_reid.models.provenance import TrainedOn
from occluded_reid.models.start import continue_from

__all__ = ["go_on", "load_first_stage", "missing_first_stage", "require_first_stage"]


def missing_first_stage(recipe: Recipe, what: str = "no model is given to go on from") -> RecipeError:
    """Return the error that says how to make a first stage."""
    first = recipe.optim.continues
    return RecipeError(
        f"'{recipe.name}' is a second stage of training, and {what}. Train the first one: occluded-reid train {first} "
        f"--data DATA --output RUN; then give its model, with the same data: --from RUN/model (start=…)."
    )


def load_first_stage(folder: str | Path, data: ReIDData) -> ReIDModel:
    """Load a trained model with its classifiers.

    Args:
        folder: of the model that the first stage has left.
        data: that the second stage is trained on.

    Raises:
        CheckpointError: it is no such folder, or was trained on another number of people.
    """
    people = len(data.train_classes())
    known = load_model(folder)
    _require_same_people(known.trained_on, data, str(folder))
    try:
        return load_model(folder, num_classes=people)
    except CheckpointError as error:
        raise CheckpointError(
            f"a second stage keeps the classifiers of its first, for the {people} people of '{data.name}': {error}"
        ) from error


def go_on(model: ReIDModel, source: ReIDModel, data: ReIDData) -> str:
    """Give a model what its first stage has learnt; return in words what that was.

    Raises:
        RecipeError: the first stage was never trained.
        CheckpointError: it is another network, has no classifiers, or knows other people.
    """
    if source.origin.trained is False:
        raise missing_first_stage(model.recipe, f"the model '{source.name}' to go on from was never trained")
    if source.recipe.optim.continues is not None:
        raise missing_first_stage(model.recipe, f"the model '{source.name}' to go on from is a second stage itself")
    _require_same_people(source.trained_on, data, source.name)
    if source.num_classes is None:
        raise CheckpointError(
            f"the model '{source.name}' is loaded for inference, without classifiers. Give its folder, or load it with "
            f"load_model(…, num_classes={model.num_classes})."
        )
    alone = model.recipe.optim.alone
    told = continue_from(model, source, () if alone is None else alone.parts)
    model.origin = source.origin
    return told


def require_first_stage(model: nn.Module) -> None:
    """Refuse to begin a second stage with a model that has learnt nothing.

    Raises:
        RecipeError: it was never trained.
    """
    if isinstance(model, ReIDModel) and model.recipe.optim.continues is not None and model.origin.trained is False:
        raise missing_first_stage(model.recipe, f"the model '{model.name}' was never trained")


def _require_same_people(known: TrainedOn | None, data: ReIDData, source: str) -> None:
    """Refuse other people, where it is on record whom the first stage was trained on."""
    if known is None:
        return
    wanted = TrainedOn.of(data)
    if (known.data, known.identities) != (wanted.data, wanted.identities):
        raise CheckpointError(
            f"'{source}' was trained on {len(known.identities)} people of '{known.data}', and is to go on with "
            f"{len(wanted.identities)} of '{wanted.data}', not all the same. A second stage keeps the classifiers, "
            "whose rows are people: give the data that the first stage had (--data, --holdout, --validation, --seed)."
        )
