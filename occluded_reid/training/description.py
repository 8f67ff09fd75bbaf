"""What a run was started with, so that another one is not continued by mistake."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from occluded_reid.files import text_bytes
from occluded_reid.models import ReIDModel
from occluded_reid.parsing.network import hash_weights
from occluded_reid.training.batches import Batches

__all__ = ["describe_run", "differences"]


def describe_run(model: ReIDModel, loader: Batches, seed: int, processes: int) -> dict[str, Any]:
    """Return everything that decides the weights of a run, as plain JSON.

    Where first weights came from is left out: they are in the checkpoint. A parser that crops has decided what is
    learnt from before the checkpoint is read, so its weights must be those of before.
    """
    recipe = model.recipe.model_dump(mode="json")
    for key in ("weights", "weights_match"):
        for part in (recipe["model"], recipe["model"]["backbone"], recipe["model"].get("parser") or {}):
            part.pop(key, None)
    parser = getattr(getattr(model, "preprocess", None), "parser", None)
    digest = hashlib.sha256()
    samples = getattr(loader, "samples", ())
    for sample in samples:
        digest.update(text_bytes(f"{sample.name}\0{sample.identity}\0"))
    return {
        "recipe": {key: recipe[key] for key in ("model", "data", "optim")},
        "seed": seed,
        "num_classes": model.num_classes,
        "processes": processes,
        "training images": f"{len(samples)}, {digest.hexdigest()[:12]}",
        **({} if parser is None else {"parser": hash_weights(parser)[:12]}),
    }


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing in which a saved run differs from the one that is asked for.

    More epochs are no difference where the schedule has steps: the epochs that were trained are the same.

    Example:
        >>> differences({"seed": 0, "processes": 1}, {"seed": 1, "processes": 1})
        ['seed: 0 then, 1 now']
    """
    then, now = _flat(saved), _flat(wanted)
    lines = []
    for key in sorted({*then, *now}):
        before, after = then.get(key), now.get(key)
        prolonged = key == "recipe.optim.epochs" and now.get("recipe.optim.cosine_end") is None
        if before != after and not (
            prolonged and isinstance(after, int) and isinstance(before, int) and after > before
        ):
            lines.append(f"{key}: {before} then, {after} now")
    return lines


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
