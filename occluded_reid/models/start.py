"""What a model begins with: another project's file, whose normalisations heads take, or a trained model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from occluded_reid.backbones.layouts import Imported
from occluded_reid.errors import CheckpointError
from occluded_reid.heads.base import Head
from occluded_reid.heads.class_token import ClassTokenHead
from occluded_reid.heads.global_ import GlobalHead
from occluded_reid.models.model import ReIDModel

__all__ = ["continue_from", "fill_necks", "has_own_weights", "start_from", "take_over"]

_LOG = logging.getLogger(__name__)
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


def fill_necks(imported: Imported, heads: Mapping[str, Head], last: str, source: str) -> tuple[str, ...]:
    """Give the normalisation of a file to every head that normalises the same feature; the log says which.

    Args:
        imported: what the file held.
        heads: the model's heads by name.
        last: name of the backbone's last stage, whose mean projects normalise.
        source: name of the file, for the log.

    Returns:
        The names of the heads that took it.
    """
    if imported.neck is None:
        return ()
    width = int(imported.neck["weight"].shape[0])
    taken = []
    for name, head in heads.items():
        neck = getattr(head, "neck", None)
        if isinstance(neck, nn.BatchNorm1d) and neck.num_features == width and _takes(imported, head, last):
            neck.load_state_dict(dict(imported.neck), strict=False)
            taken.append(name)
    what = f"batch normalisation of {width} numbers in '{source}' (layout {imported.layout})"
    if taken:
        _LOG.info("the %s goes to the neck of: %s", what, ", ".join(taken))
    else:
        kind = "'class_token'" if imported.of == "class_token" else "'global'"
        _LOG.warning(
            "the %s is left out: no head normalises that feature. A head %s with options.neck: bnneck takes it",
            *(what, kind),
        )
    return tuple(taken)


def has_own_weights(heads: Mapping[str, Head], filled: Collection[str]) -> bool:
    """Whether a head has weights that did not come from the file, so that there is something to be trained yet.

    Args:
        heads: the model's heads by name.
        filled: those that took the file's normalisation.
    """
    return any(
        not (name in filled and weight.startswith("neck."))
        for name, head in heads.items()
        for weight, _ in head.named_parameters()
    )


def _takes(imported: Imported, head: Head, last: str) -> bool:
    """Whether a head normalises the very feature that the file's normalisation is of."""
    if imported.of == "class_token":
        return isinstance(head, ClassTokenHead) and head.token == "cls"
    return isinstance(head, GlobalHead) and (head.source, head.pooling, len(head.project)) == (
        (None, last),
        "average",
        0,
    )
