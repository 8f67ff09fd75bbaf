"""Saving a model as weights plus JSON, and rebuilding it from them alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from occluded_reid.config import load_recipe
from occluded_reid.errors import CheckpointError
from occluded_reid.files import read_json, read_safetensors, write_json, write_safetensors
from occluded_reid.models.build import build_model
from occluded_reid.models.model import ReIDModel
from occluded_reid.models.trained_on import TrainedOn

__all__ = ["load_model", "require_model", "save_model"]

FORMAT = 1


def save_model(model: ReIDModel, folder: str | Path) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a folder, each whole or not at all.

    Heads that exist in training only are left out; classifiers are kept, so that training can go on from here.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    folder = Path(folder)
    dropped = tuple(f"heads.{name}." for name, head in model.parts.items() if head.info.training_only)
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith((*dropped, "_criterion."))}
    fingerprint = model.fingerprint
    write_safetensors(folder / "model.safetensors", kept, {"fingerprint": fingerprint}, CheckpointError)
    content = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "num_classes": model.num_classes,
        "slots": model.slots,
        "recipe": model.recipe.model_dump(mode="json"),
        **({} if model.trained_on is None else {"trained_on": model.trained_on.to_dict()}),
    }
    write_json(folder / "model.json", content, CheckpointError)


def require_model(folder: str | Path) -> None:
    """Refuse a folder that holds no saved model; nothing is read, so that many can be looked at before the first.

    Raises:
        CheckpointError: ``model.json`` is missing; a model one folder further down or up is named.
    """
    folder = Path(folder)
    if (folder / "model.json").is_file():
        return
    near = next((place for place in (folder / "model", folder.parent) if (place / "model.json").is_file()), None)
    what = "does not exist" if not folder.exists() else "holds no model.json" if folder.is_dir() else "is a file"
    raise CheckpointError(
        f"'{folder}' {what}; wanted the folder of a saved model. "
        + (f"Did you mean '{near}'?" if near else "Training writes it: OUTPUT/model.")
    )


def load_model(
    folder: str | Path, *, num_classes: int | None = None, heads: Mapping[str, Any] | None = None
) -> ReIDModel:
    """Rebuild a saved model.

    Args:
        folder: what `ReIDModel.save` has written.
        num_classes: None loads for inference; a number loads the classifiers too and must be the saved one.
        heads: head classes or instances by name, for a model that was built with such objects.

    Raises:
        CheckpointError: files are missing or damaged, do not belong together, or num_classes does not fit.
    """
    folder = Path(folder)
    require_model(folder)
    content = read_json(folder / "model.json", CheckpointError)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise CheckpointError(f"'{folder}' has format {found}; this version reads format {FORMAT}. Update the library.")
    saved = content["num_classes"]
    if num_classes is not None and num_classes != saved:
        raise CheckpointError(
            f"'{folder}' was trained on {saved or 'no'} classes; num_classes={num_classes} does not fit. "
            "Load it without num_classes for use, or with the number it was trained on."
        )
    objects = [n for n, head in content["recipe"]["model"]["heads"].items() if head["type"].startswith("object:")]
    if missing := [n for n in objects if n not in (heads or {})]:
        raise CheckpointError(
            f"'{folder}' was built with a head given as an object: {', '.join(missing)}. "
            "Pass the same one: load_model(…, heads={name: class}), or register it by name before training."
        )
    recipe = load_recipe(content["recipe"])
    if recipe.model.parser is not None:  # its weights are here: the folder they came from is not asked again
        recipe = recipe.override({"model.parser.weights": None})
    model = build_model(recipe, num_classes=num_classes, heads=heads)
    tensors, metadata = read_safetensors(folder / "model.safetensors", CheckpointError)
    if metadata.get("fingerprint") != content["fingerprint"]:
        raise CheckpointError(
            f"'{folder}' holds weights of {metadata.get('fingerprint')} and a description of {content['fingerprint']}. "
            "The two files do not belong together; copy the folder whole."
        )
    wanted = model.state_dict()
    needed = {k for k in wanted if not k.startswith("_criterion.")} - {
        k for n, h in model.parts.items() if h.info.training_only for k in wanted if k.startswith(f"heads.{n}.")
    }
    if missing_keys := sorted(needed - set(tensors)):
        raise CheckpointError(f"'{folder}' misses {len(missing_keys)} tensors, such as '{missing_keys[0]}'.")
    for key in needed:
        if tensors[key].shape != wanted[key].shape:
            raise CheckpointError(
                f"'{folder}': '{key}' has shape {tuple(tensors[key].shape)}; "
                f"the model wants {tuple(wanted[key].shape)}."
            )
    model.load_state_dict({k: tensors[k] for k in needed}, strict=False)
    # Models saved before this was recorded, or trained from batches of unknown origin, have none.
    model.trained_on = TrainedOn.from_dict(content["trained_on"]) if "trained_on" in content else None
    return model.eval()
