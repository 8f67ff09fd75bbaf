"""Saved models: where they lie, and a model rebuilt from its weights and JSON alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from occluded_reid.arguments import checked
from occluded_reid.backbones import is_frozen
from occluded_reid.backbones.hub_files import WEIGHTS, HubAddress, fetch
from occluded_reid.config import PACKAGED, Recipe, is_hub, is_packaged, load_recipe
from occluded_reid.errors import BuildError, CheckpointError, RecipeError, WeightsError
from occluded_reid.files import absolute, as_path, look
from occluded_reid.models.build import build_model
from occluded_reid.models.embedder import Preset, is_network, load_embedder
from occluded_reid.models.engines import Engine
from occluded_reid.models.model import ReIDModel
from occluded_reid.models.packaged import packaged_folder, read_packaged
from occluded_reid.models.precision import Precision
from occluded_reid.models.provenance import Origin, TrainedOn
from occluded_reid.sealed import read_sealed, read_sealed_tensors

__all__ = ["folder_of", "hub_folder", "load_model", "require_model"]

_LOG = logging.getLogger(__name__)


def require_model(folder: str | Path) -> None:
    """Refuse a folder that holds no saved model; nothing is read, so that many can be looked at before the first.

    Raises:
        CheckpointError: ``model.json`` is missing (a model one folder further down or up is named), or a folder on the
            way may not be entered.
    """
    if is_packaged(folder):
        packaged_folder(str(folder))
        return
    if is_hub(folder):
        HubAddress.of(str(folder))
        return
    folder = as_path(folder, CheckpointError)
    if is_network(folder) or look(folder / "model.json", CheckpointError) is not None:
        return
    near = next(
        (place for place in (folder / "model", folder.parent) if look(place / "model.json", CheckpointError)), None
    )
    found = look(folder, CheckpointError)
    what = "does not exist" if found is None else "holds no model.json" if S_ISDIR(found.st_mode) else "is a file"
    raise CheckpointError(
        f"'{folder}' {what}; wanted the folder of a saved model. "
        + (f"Did you mean '{near}'?" if near else "Training writes it: OUTPUT/model.")
        + ("" if near else f" Or name one that comes with the library: {', '.join(PACKAGED)}.")
    )


@checked(CheckpointError)
def load_model(
    folder: str | Path,
    *,
    num_classes: int | None = None,
    heads: Mapping[str, Any] | None = None,
    preset: str | Preset | None = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
) -> ReIDModel:
    """Rebuild a saved model, or take a network in a file (.onnx, OpenVINO's .xml) as one.

    Args:
        folder: what `ReIDModel.save` has written; or a network's file, as `load_embedder` takes it; or the name of a
            model that comes with the library, "oreid_lite". As a text that is always this one; a folder of that name is
            given as a `Path`, or as "./oreid_lite". Or "hf-hub:owner/name", what was saved and put onto
            the Hugging Face hub, perhaps with "@revision": the only name for which anything is fetched, and only
            safetensors and JSON are.
        num_classes: None loads for inference; a number loads the classifiers too and must be the saved one.
        heads: head classes or instances by name, for a model that was built with such objects.
        preset: of a network's file: what it wants to be shown, see `load_embedder`. A saved model takes none.
        engine, precision: how it embeds, see `ReIDModel.embed_with`.

    Raises:
        CheckpointError: files are missing or damaged, do not belong together, are not those that were shipped, or
            num_classes does not fit.
        WeightsError, BuildError, MissingExtraError: as `load_embedder`; or the hub cannot be reached, or has no such
            model.
        BuildError, DeviceError: as `ReIDModel.embed_with`.
    """
    model = _loaded(folder, num_classes, heads, preset)
    return model.embed_with(engine=engine, precision=precision)


def _loaded(
    folder: str | Path, num_classes: int | None, heads: Mapping[str, Any] | None, preset: str | Preset | None
) -> ReIDModel:
    if is_hub(folder):
        place, exactly = hub_folder(str(folder))
        model = _loaded(place, num_classes, heads, preset)
        model.source = exactly
        return model
    packaged = str(folder) if is_packaged(folder) else None
    if packaged is not None and look(Path(packaged) / "model.json", CheckpointError) is not None:
        _LOG.warning(
            "'%s' is taken as the name of the model that comes with the library; the folder of that name is './%s'",
            *(packaged, packaged),
        )
    folder = packaged_folder(packaged) if packaged is not None else as_path(folder, CheckpointError)
    if is_network(folder):
        model = load_embedder(folder, preset=preset)
        model.source = str(absolute(folder, CheckpointError))
        return model
    require_model(folder)
    if preset is not None:
        raise BuildError(f"'{folder}' is a saved model, which says itself what it wants to be shown; leave preset out.")
    shipped = None if packaged is None else read_packaged(packaged)
    content = read_sealed(folder, "model", CheckpointError) if shipped is None else shipped[0]
    recipe, saved = _recipe_of(folder, content), content.get("num_classes")
    if num_classes is not None and num_classes != saved:
        raise CheckpointError(
            f"'{folder}' was trained on {saved or 'no'} classes; num_classes={num_classes} does not fit. "
            "Load it without num_classes for use, or with the number it was trained on; to train its weights on with "
            "other people, train(…, start=…) or build_model(…, num_classes=…, pretrained=True) of a packaged one."
        )
    objects = [name for name, head in recipe.model.heads.items() if head.type.startswith("object:")]
    if missing := [n for n in objects if n not in (heads or {})]:
        raise CheckpointError(
            f"'{folder}' was built with a head given as an object: {', '.join(missing)}. "
            "Pass the same one: load_model(…, heads={name: class}), or register it by name before training."
        )
    # The weights of a parser and a network in a file are here: where they came from is not asked again.
    kept = {"backbone": is_frozen(recipe.model.backbone.type), "parser": recipe.model.parser is not None}
    recipe = recipe.override({f"model.{part}.weights": None for part, here in kept.items() if here})
    tensors = read_sealed_tensors(folder, "model", content, CheckpointError) if shipped is None else shipped[1]
    model = build_model(recipe, num_classes=num_classes, heads=heads, pretrained=False)
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
    if "sha256" not in content and model.fingerprint != content["fingerprint"]:
        raise CheckpointError(
            f"'{folder}' is damaged: its weights and settings make {model.fingerprint}; model.json names "
            f"{content['fingerprint']}. Use another copy of the folder."
        )
    # Models saved before this was recorded, or trained from batches of unknown origin, have none.
    model.trained_on = TrainedOn.from_dict(content["trained_on"]) if "trained_on" in content else None
    model.origin = Origin.from_dict(content.get("origin"))
    model.source = packaged or str(absolute(folder, CheckpointError))
    model.caution()
    return model.eval()


def _recipe_of(folder: Path, content: Mapping[str, Any]) -> Recipe:
    """The recipe that a description holds; the number of classes is looked at, too."""
    saved, recipe = content.get("num_classes", "nothing"), content.get("recipe")
    if not isinstance(saved, int | None) or isinstance(saved, bool) or not isinstance(recipe, Mapping):
        raise CheckpointError(
            f"'{folder / 'model.json'}' is damaged: num_classes is {saved!r} and recipe is a {type(recipe).__name__}; "
            "wanted a number or null, and a mapping. Use another copy of the folder."
        )
    try:
        return load_recipe(recipe)
    except RecipeError as cause:
        raise CheckpointError(
            f"'{folder / 'model.json'}' holds no recipe of this version: {cause}\nUse another copy of the folder, or "
            "the version of the library that wrote it."
        ) from cause


_DESCRIPTION, _CALIBRATION = "model.json", "calibration.json"


def hub_folder(text: str, *, ask: bool = True) -> tuple[Path, str]:
    """Return the folder in the hub's cache of a model that was saved with this library, and where it is from.

    Args:
        text: ``hf-hub:owner/name``, perhaps with ``@revision``.
        ask: False takes what the cache has, and asks nobody.

    Returns:
        The folder, and the address with the commit, which is the same model for ever.

    Raises:
        WeightsError: the hub cannot be reached, or has no such model.
    """
    address = HubAddress.of(text)
    if address.file != WEIGHTS:
        raise WeightsError(f"'{text}' names a file; a model is {address}. A file is for a backbone (--weights {text}).")
    described = fetch(address, _DESCRIPTION, ask=ask)
    if described is None and not ask:
        raise WeightsError(
            f"{address} is not in the hub's cache, and the hub is not asked for what was not named now. Name it: "
            f"--model {address}."
        )
    if described is None:
        raise WeightsError(
            f"{address} has no {_DESCRIPTION}, so it is no model that this library has saved. Weights of a backbone "
            f"are given to a recipe: --weights {address}."
        )
    exactly = HubAddress(address.repository, described.parent.name)  # all files of one commit
    if fetch(exactly, WEIGHTS, ask=ask) is None:
        raise WeightsError(f"{address} has a {_DESCRIPTION} and no {WEIGHTS}. Look at the address.")
    fetch(exactly, _CALIBRATION, ask=ask)  # where there is one
    return described.parent, str(exactly)


def folder_of(source: str) -> Path:
    """Return where the files of a loaded model lie, by its `source`; nothing is fetched.

    Raises:
        CheckpointError, WeightsError: it comes with the library or from the hub, and is not there any more.
    """
    if is_packaged(source):
        return packaged_folder(source)
    return hub_folder(source, ask=False)[0] if is_hub(source) else Path(source)
