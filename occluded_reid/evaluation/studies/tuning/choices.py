"""From options and their values to candidates, and from a model and a validation side to the best of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any

import torch

from occluded_reid.arguments import checked
from occluded_reid.config import apply_overrides
from occluded_reid.data.dataset import ReIDData
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EvaluationError, OccludedReIDError
from occluded_reid.evaluation.embed import embed_sides
from occluded_reid.evaluation.leakage import require_apart
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.studies.tuned import Tuned
from occluded_reid.evaluation.studies.tuning.tune import Candidate, stripe_threshold, tune, without_threshold
from occluded_reid.models import ReIDModel
from occluded_reid.options import did_you_mean
from occluded_reid.registry import MATCHERS
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

__all__ = ["AS_IT_IS", "candidates_of", "tune_model"]

AS_IT_IS = "as it is"
"""Name of the model's own settings, where no combination of the choices is equal to them."""

_RERANK = "rerank."


def candidates_of(model: ReIDModel, choices: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Candidate], str]:
    """Return every combination of some values of some options, by name, and the name of the model's own settings.

    Args:
        model: what is not chosen is as it is.
        choices: option -> values. "threshold" is τ of the head that has one, or of a matcher with binary visibility;
            "rerank.k1", "rerank.k2" and "rerank.weight" are those of `KReciprocal`, beside its defaults; everything
            else is an option of the model's matcher: "metric", "weights.backbone".

    Raises:
        EvaluationError: nothing is chosen, a value comes twice, or the model has no such option; the choice is named.

    Example:
        >>> from occluded_reid.models import build_model
        >>> found, default = candidates_of(build_model("sorn_lite"), {"threshold": [0.1, 0.15]})
        >>> list(found), default
        (['threshold=0.15', 'threshold=0.1'], 'threshold=0.15')
    """
    if not choices or not all(len(values) for values in choices.values()):
        empty = [key for key, values in choices.items() if not len(values)]
        raise EvaluationError(
            f"there is nothing to choose from{f' for {empty[0]}' if empty else ''}; give options and their values: "
            "threshold=0.1,0.15,0.2."
        )
    for key, values in choices.items():
        if twice := [value for i, value in enumerate(values) if value in values[:i]]:
            raise EvaluationError(f"{key}={twice[0]} is given twice; give each value once.")
    own = Candidate(
        model.matcher,
        stripe_threshold(model) if "threshold" in choices else None,
        KReciprocal() if any(key.startswith(_RERANK) for key in choices) else None,
    )
    found: dict[str, Candidate] = {}
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        name = ", ".join(f"{key}={value}" for key, value in chosen.items())
        try:
            found[name] = _candidate(model, own, chosen)
        except (OccludedReIDError, TypeError, ValueError) as error:
            raise EvaluationError(f"'{name}' cannot be tried on '{model.name}': {error}") from error
    default = next((name for name, candidate in found.items() if candidate.setting == own.setting), AS_IT_IS)
    return {default: found.get(default, own), **found}, default


@checked(EvaluationError)
def tune_model(
    model: ReIDModel,
    data: ReIDData,
    choices: Mapping[str, Sequence[Any]],
    *,
    metric: str = "mAP",
    protocol: Protocol | None = None,
    embedding: Callable[[int, int], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Embed a validation side once and try every combination of the choices on it.

    Memory: the embeddings of the side, and one evaluation.

    Args:
        model: what is tuned; it stays as it is, `Tuned.apply` gives the tuned one.
        data: whose queries and gallery are the validation side: ``load_dataset(…, holdout=100, validation=100)``.
        choices: as `candidates_of` takes them.
        metric: what decides: "mAP", "mINP" or "Rank-1", ….
        protocol: what counts.
        embedding: called with (images embedded, images to embed).
        progress: called with (candidates done, candidates in all).

    Raises:
        EvaluationError: there is no validation side, it shares people with training, or a choice does not fit.
    """
    require_apart(data)
    if not data.query or not data.gallery:
        raise EvaluationError(
            f"'{data.name}' has no queries or no gallery to tune on. Take validation identities from training "
            "(validation=…)."
        )
    candidates, default = candidates_of(model, choices)
    identities = sorted({*data.identities("query"), *data.identities("gallery")})
    cut = any(candidate.threshold is not None for candidate in candidates.values())
    with without_threshold(model) if cut else nullcontext():
        query, gallery = embed_sides(model, data, progress=embedding)
    known = model.trained_on
    return tune(
        query,
        gallery,
        candidates,
        data=data.name,
        identities=identities,
        metric=metric,
        default=default,
        protocol=protocol,
        part=data.part,
        fingerprint=model.fingerprint,
        trained_on=None if known is None else len(known.among(data.name, identities)),
        progress=progress,
    )


def _candidate(model: ReIDModel, own: Candidate, chosen: Mapping[str, Any]) -> Candidate:
    made = own
    config = own.matcher.config
    options = dict(config["options"])
    depths: dict[str, Any] = {}
    for key, value in chosen.items():
        if key == "threshold" and own.threshold is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise EvaluationError(f"threshold is {value!r}; give a share of the stripe, between 0 and 1.")
            made = replace(made, threshold=replace(own.threshold, value=float(value)))
        elif key == "threshold":
            options = {**options, "visibility": "binary", "threshold": value}
        elif key.startswith(_RERANK):
            part = key.removeprefix(_RERANK)
            known = [field.name for field in fields(KReciprocal)]
            if part not in known:
                raise EvaluationError(
                    f"re-ranking has no '{part}'.{did_you_mean(part, known)} It has: {', '.join(known)}."
                )
            depths[part] = value
        else:
            options = apply_overrides(options, {key: value})
    if depths:  # together: k1 alone may not go with the k2 of before
        made = replace(made, rerank=replace(own.rerank or KReciprocal(), **depths))
    if options != config["options"]:
        made = replace(made, matcher=MATCHERS.create(config["type"], **options))
    # Two empty rows: a weight of a slot that is not there is said now and not after embedding.
    widths = model.slots
    rows = PartEmbeddings(tuple(widths), tuple(torch.ones(1, w) for w in widths.values()), torch.ones(1, len(widths)))
    made.matcher.distance(rows, rows)
    return made
