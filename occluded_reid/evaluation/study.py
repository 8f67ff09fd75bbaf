"""One model under several matchings and occlusions: the table that says what visibility is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import ReIDData
from occluded_reid.data.occlusion import Occluders
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.conditions import MATCHINGS, Condition, Study
from occluded_reid.evaluation.embed import EmbeddedWithTruth, Occlusion, embed_with_truth
from occluded_reid.evaluation.evaluate import evaluate
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.report import Report
from occluded_reid.evaluation.tuning.untouched import require_apart, training_note
from occluded_reid.matchers.base import Matcher
from occluded_reid.models import ReIDModel
from occluded_reid.registry import did_you_mean
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

__all__ = ["MATCHINGS", "Condition", "Study", "study"]


@checked(EvaluationError)
def study(
    model: ReIDModel,
    data: ReIDData,
    *,
    matchings: Sequence[str] = ("own",),
    fractions: Sequence[float] = (),
    occluders: Occluders | None = None,
    seeds: Iterable[int] = (0,),
    protocol: Protocol | None = None,
    rerank: KReciprocal | None = None,
    tuned: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Evaluate a model on a data set's queries, clean and with a share of each body mask occluded.

    Memory: the embeddings of gallery and queries, one tile of distances.

    Args:
        model: the model; its own matcher is used.
        data: queries and gallery; occlusion and "true" need part masks.
        matchings: any of `MATCHINGS`, each once.
        fractions: shares of the body mask to occlude, 0 … 1; the clean queries always come first, so 0 adds nothing.
        occluders: what to occlude with; generated shapes by default.
        seeds: one occlusion of every query for each.
        protocol: what counts; None is what the data set's benchmark counts.
        rerank: re-rank each condition by k-reciprocal encodings over all its queries; see `evaluate`.
        tuned: what was chosen on which other people, in words, for the reports: `Tuned.text`.
        progress: called with (images embedded, images to embed).

    Raises:
        EvaluationError: somebody is both in training and in queries or gallery, an unknown matching, a share outside
            0 … 1, no seed, no queries or gallery, or a matching that the model cannot do.
        MaskError: a part mask that occlusion or "true" needs is missing.
    """
    require_apart(data)
    matchings = tuple(dict.fromkeys(matchings))
    if not matchings or any(m not in MATCHINGS for m in matchings):
        unknown = next((m for m in matchings if m not in MATCHINGS), "")
        hint = did_you_mean(unknown, list(MATCHINGS))
        raise EvaluationError(f"there is no matching '{unknown}'.{hint} There are: {', '.join(MATCHINGS)}.")
    if outside := [f for f in fractions if not 0 <= f <= 1]:
        raise EvaluationError(f"the share of the body to occlude is {outside[0]}; give 0 … 1: 0.35 means 35 %.")
    fractions = tuple(dict.fromkeys(f for f in fractions if f))
    if "global" in matchings and "global" not in model.slots:
        raise EvaluationError(f"'{model.name}' has no slot 'global' (it has {', '.join(model.slots)}).")
    named = Protocol.of(data)
    protocol = protocol or named
    lower = () if model.precision == "float32" else (f"embeddings are computed in {model.precision}",)
    protocol = replace(
        protocol,
        dataset=protocol.dataset or named.dataset,
        split=protocol.split or named.split,
        cameras_known=data.cameras_known,
        notes=(*named.notes, *model.cautions, *lower),
    )
    things = occluders or Occluders.generated(0)
    seeds = tuple(dict.fromkeys(seeds)) if fractions else (0,)
    if not seeds:
        raise EvaluationError("there is no seed to occlude with; give at least one.")
    truth = "true" in matchings
    total = len(data.gallery) + len(data.query) * (1 + len(fractions) * len(seeds))
    done = 0

    def embed(samples: Sequence[Any], occlusion: Occlusion | None) -> EmbeddedWithTruth:
        nonlocal done
        result = embed_with_truth(
            model,
            data,
            samples,
            occlusion=occlusion,
            truth=truth,
            progress=None if progress is None else lambda n, _: progress(done + n, total),
        )
        done += len(samples)
        return result

    gallery = embed(data.gallery, None)
    fingerprint = model.fingerprint
    clean = gallery.embedded
    conditions: dict[tuple[str, float], list[tuple[Report, float]]] = {}
    for fraction in (0.0, *fractions):
        for seed in seeds if fraction else (0,):
            query = embed(data.query, Occlusion(fraction, things, seed) if fraction else None)
            hidden = (
                f"{fraction:.0%} of each body occluded by {things.description}, seed {seed}" if fraction else "clean"
            )
            clean = query.embedded if not fraction else clean
            for matching in matchings:
                report = evaluate(
                    _seen(query, matching),
                    _seen(gallery, matching),
                    _matcher(model, matching),
                    replace(protocol, name=f"{model.name}, {matching} ({MATCHINGS[matching]}), {hidden}"),
                    rerank=rerank,
                    fingerprint=fingerprint,
                    tuned=tuned,
                )
                conditions.setdefault((matching, fraction), []).append((report, query.covered))
    ordered = tuple(
        Condition(m, f, tuple(r for r, _ in conditions[m, f]), float(np.mean([c for _, c in conditions[m, f]])))
        for m in matchings
        for f in (0.0, *fractions)
    )
    training = training_note(model, data)
    return Study(fingerprint, protocol.dataset, things.description, seeds, ordered, clean, gallery.embedded, training)


def _seen(rows: EmbeddedWithTruth, matching: str) -> EmbeddedSet:
    """The rows as a matching sees them."""
    embedded = rows.embedded
    if matching == "global":
        return embedded.select(["global"])
    if matching == "all_slots":
        ones = torch.ones_like(embedded.embeddings.visibility)
        return replace(embedded, embeddings=embedded.embeddings.with_visibility(ones))
    if matching == "true":
        if rows.truth is None:
            raise EvaluationError("true visibility was not computed.")
        return replace(embedded, embeddings=embedded.embeddings.with_visibility(rows.truth))
    return embedded


def _matcher(model: ReIDModel, matching: str) -> Matcher:
    """The model's own matcher; with one slot left, the weights of the others would be unknown names."""
    options: Mapping[str, Any] = getattr(model.matcher, "weights", {})
    if matching != "global" or not set(options) - {"global"}:
        return model.matcher
    from occluded_reid.registry import MATCHERS

    config = model.matcher.config
    return MATCHERS.create(config["type"], **{**config["options"], "weights": {}})
