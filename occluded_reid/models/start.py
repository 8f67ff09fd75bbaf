"""Going on from a trained model: with other people, whose classifiers are made anew, or with the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from occluded_reid.errors import CheckpointError
from occluded_reid.models.model import ReIDModel

__all__ = ["continue_from", "start_from", "take_over"]

_SHOWN = 5


def start_from(model: ReIDModel, source: ReIDModel) -> str:
    """Take the weights of a trained model over, and the record of whom it was trained on.

    Classifiers stay as they were made: their rows are people. So do losses, heads that exist in training only, which no
    saved model has, and a parser, which comes from the recipe.

    Args:
        model: built for training.
        source: what it begins with; the networks must be alike.

    Returns:
        What was taken over and what was made anew, in words.

    Raises:
        CheckpointError: a tensor is missing in one of them or has another shape; both shapes are named.
    """
    own, given = _taken(model), _taken(source)
    take_over(
        model,
        own,
        given,
        f"training '{model.name}' cannot start from '{source.fingerprint}'",
        "Train with the recipe of that model, or start from weights of the backbone (--weights).",
    )
    model.trained_on = source.trained_on
    fresh = sorted(name for name, head in model.parts.items() if head.info.training_only)
    anew = ["the classifiers, for other people", *(f"the head '{name}'" for name in fresh)]
    return f"started from {source.fingerprint}; made anew: {', '.join(anew)}"


def continue_from(model: ReIDModel, source: ReIDModel, fresh: Sequence[str]) -> str:
    """Take a trained model over with its classifiers, to go on with the same people: a second stage of training.

    Losses and heads that exist in training only, which no saved model has, and a parser stay as they were made.

    Args:
        model: built for training.
        source: what it begins with, loaded with its classifiers.
        fresh: what begin the names of parameters that `source` may lack: they are made in this stage.

    Returns:
        What was taken over and what is new, in words.

    Raises:
        CheckpointError: a tensor is missing in one of them or has another shape; both shapes are named.
    """
    own, given = _whole(model), _whole(source)
    new = [key for key in own if key not in given and key.startswith(tuple(fresh))]
    take_over(
        model,
        {key: value for key, value in own.items() if key not in new},
        given,
        f"training '{model.name}' cannot go on from '{source.fingerprint}'",
        f"Train its first stage with the recipe '{model.recipe.optim.continues}', changed as this one is.",
    )
    model.trained_on = source.trained_on
    return f"went on from {source.fingerprint}, classifiers included; new: {', '.join(new) or 'nothing'}"


def take_over(
    model: ReIDModel, own: Mapping[str, Tensor], given: Mapping[str, Tensor], trouble: str, advice: str
) -> None:
    """Load tensors into a model, all of them or none.

    Args:
        model: receives them.
        own: those of its tensors that are to be replaced, by name.
        given: what they are replaced with.
        trouble: the beginning of the message where they do not fit.
        advice: its end.

    Raises:
        CheckpointError: a tensor is missing in one of both or has another shape; both shapes are named.
    """
    wrong = [
        f"'{key}' is {_shape(given.get(key))} there, {_shape(own.get(key))} here"
        for key in {**own, **given}
        if _shape(given.get(key)) != _shape(own.get(key))
    ]
    if wrong:
        more = f"\n  … and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CheckpointError(
            f"{trouble}, which is another network:\n  " + "\n  ".join(wrong[:_SHOWN]) + f"{more}\n{advice}"
        )
    model.load_state_dict(dict(given), strict=False)


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else str(tuple(tensor.shape))


def _whole(model: ReIDModel) -> dict[str, Tensor]:
    """The tensors that a saved model has, without those of a parser."""
    dropped = tuple(f"heads.{name}." for name, head in model.parts.items() if head.info.training_only)
    return {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith((*dropped, "_criterion.")) and "parser" not in key.split(".")
    }


def _taken(model: ReIDModel) -> dict[str, Tensor]:
    """The tensors that go from one model to the other."""
    return {key: value for key, value in model.inference_state().items() if "parser" not in key.split(".")}
