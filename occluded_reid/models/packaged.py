"""Models that come with the library: where their weights lie, and that they are what was shipped.

Weights are stored as float16 and used as float32: loading widens each number, which loses nothing, so a model that was
rounded before it was packaged has the same fingerprint after loading, wherever it is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from occluded_reid.errors import CheckpointError
from occluded_reid.files import look, write_text
from occluded_reid.models.model import ReIDModel
from occluded_reid.sealed import file_sha256, read_sealed, read_sealed_tensors, write_sealed

__all__ = [
    "WEIGHTS",
    "packaged_folder",
    "read_packaged",
    "round_to_half",
    "write_packaged",
]

WEIGHTS = Path(__file__).parents[1] / "weights"

_AGAIN = "Install the package again: pip install --force-reinstall --no-deps occluded-reid."
# A path from the root of some machine, or from somebody's home; not the slashes of an address or of "Rank-1/mAP".
_PLACE = re.compile(r"(?:^|[\s\"'=(\[,:])((?:/(?!/)[\w.~-]+/|~[/\\]|[A-Za-z]:[\\/](?!/)|\\\\\w)[^\s\"']*)")


def packaged_folder(name: str) -> Path:
    """Return the folder of a model that comes with the library.

    Raises:
        CheckpointError: this installation does not have it.
    """
    folder = WEIGHTS / name
    if look(folder / "model.json", CheckpointError) is None:
        raise CheckpointError(
            f"'{name}' comes with the library, but this installation has no weights of it: '{folder}' holds no "
            f"model.json. {_AGAIN} Or give a model of your own: the folder that training wrote (--model OUTPUT/model)."
        )
    return folder


def read_packaged(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return description and weights of a model that comes with the library, every file compared with its sha256.

    Raises:
        CheckpointError: this installation does not have it, or a file is missing or not what was shipped.
    """
    folder = packaged_folder(name)
    try:
        content = read_sealed(folder, "model", CheckpointError)
        beside = content.get("beside")
        for file, digest in (beside if isinstance(beside, dict) else {}).items():
            if Path(file).name != file or file_sha256(folder / file, CheckpointError) != digest:
                raise CheckpointError(f"'{folder / file}' is not the file that model.json was written with.")
        return content, read_sealed_tensors(folder, "model", content, CheckpointError)
    except CheckpointError as cause:
        raise CheckpointError(
            f"the weights of '{name}' in this installation are not those that were shipped: {cause} {_AGAIN}"
        ) from cause


def round_to_half(model: ReIDModel) -> ReIDModel:
    """Round a model's numbers to those that float16 has, in place; forget its places and what it froze.

    What is calibrated and measured afterwards is what `write_packaged` stores and what will be loaded.

    Args:
        model: loaded for inference.

    Raises:
        CheckpointError: a number is beyond the largest of float16.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            half = tensor.half()
            if not half.isfinite().all():
                raise CheckpointError(f"'{name}' holds numbers beyond ±65,504, which float16 has not. Scale it down.")
            tensor.copy_(half)
    backbone = model.recipe.model.backbone.model_dump()
    backbone["weights"] = "hub" if model.origin.weights == "hub" else None
    backbone["options"].pop("frozen_stages", None)  # whoever trains it further decides that anew
    changes: dict[str, Any] = {"data.teacher": None, "model.backbone": backbone}
    if model.recipe.model.parser is not None:
        changes["model.parser.weights"] = None
    model.recipe = model.recipe.override(changes)
    return model


def write_packaged(model: ReIDModel, folder: Path, beside: Mapping[str, str]) -> None:
    """Write a rounded model as it is shipped: float16 weights, and texts beside them under the same seal.

    Args:
        model: from `round_to_half`, without classifiers.
        folder: made if it does not exist; files of these names are replaced.
        beside: name -> text of further files, such as the calibration and the card.

    Raises:
        CheckpointError: the model was not rounded or still has classifiers, a text names a place on a machine, or the
            folder cannot be written.
    """
    if model.num_classes is not None:
        raise CheckpointError("the model still classifies people; load it without num_classes.")
    tensors = {}
    for name, tensor in model.inference_state().items():
        tensors[name] = tensor.half() if tensor.is_floating_point() else tensor
        if not torch.equal(tensors[name].to(tensor.dtype), tensor):
            raise CheckpointError(
                f"'{name}' holds numbers that float16 has not. Round the model first: round_to_half()."
            )
    content = model.to_dict()
    for name, text in {"model.json": json.dumps(content, ensure_ascii=False), **beside}.items():
        if found := _PLACE.search(text):
            raise CheckpointError(
                f"'{name}' names a place on this machine, '{found[1]}', which is private. Leave it out."
            )
    for name, text in beside.items():
        write_text(folder / name, text, CheckpointError)
    sums = {name: file_sha256(folder / name, CheckpointError) for name in beside}
    write_sealed(folder, "model", {**content, "beside": sums}, tensors, CheckpointError)
