"""Weights files: reading them safely, and saying what does not fit when they do not."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from occluded_reid.errors import WeightsError
from occluded_reid.files import read_safetensors

__all__ = ["load_into", "read_weights", "transfer_by_name"]

# What torch.load raises on damaged files, and on files of something else.
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, struct.error, pickle.UnpicklingError),
)
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a .safetensors file, or a .pth/.pt/.bin file of tensors only (nothing else in it is ever run).

    Raises:
        WeightsError: the file is missing, damaged, or holds more than tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path, WeightsError)[0]
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        # torch's own message advises to load such a file without care; its reasons stay in the chain of causes.
        why = error.strerror if isinstance(error, OSError) else "it is damaged, or holds other objects than tensors"
        raise WeightsError(
            f"'{path}' could not be read as a file of tensors: {why}. Give a .safetensors file, or a .pth file that "
            "torch.load(weights_only=True) accepts."
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(f"'{path}' holds {type(content).__name__}; wanted a mapping of names to tensors.")
    tensors = {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError(f"'{path}' holds no tensors.")
    return tensors


def load_into(model: nn.Module, path: str | Path, match: str = "names") -> None:
    """Load a file into a whole model, by names or by order.

    Args:
        model: the network; its classifier may be absent from the file.
        path: weights file.
        match: "names", or "order": as many tensors, of the same shapes, in the same order.

    Raises:
        WeightsError: the key layout does not fit; the message shows the first keys of both sides.
    """
    tensors, own = read_weights(path), model.state_dict()
    if match == "order":
        given, wanted = list(tensors.items()), list(own.items())
        if [tuple(v.shape) for _, v in given] != [tuple(v.shape) for _, v in wanted]:
            raise WeightsError(_layouts(path, tensors, own, "do not match in order and shape"))
        tensors = {name: value for (name, _), (_, value) in zip(wanted, given, strict=True)}
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or "fc"
    classifier = (named,) if isinstance(named, str) else tuple(named)
    wanted_keys = {k for k in own if not k.startswith(classifier) and not k.endswith("num_batches_tracked")}
    fitting = {k: v for k, v in tensors.items() if k in own and v.shape == own[k].shape}
    if missing := sorted(wanted_keys - set(fitting)):
        raise WeightsError(_layouts(path, tensors, own, f"miss {len(missing)} tensors, such as '{missing[0]}'"))
    model.load_state_dict(fitting, strict=False)


def transfer_by_name(whole: nn.Module, features: nn.Module, name: str) -> None:
    """Copy a whole timm model's tensors into its features_only form, whose flattened stages are named ``stages_0``.

    Raises:
        WeightsError: a tensor of the feature network has no counterpart.
    """
    source, target = whole.state_dict(), features.state_dict()
    renamed = {**{k.replace(".", "_", 1): v for k, v in source.items()}, **source}
    renamed |= {f"model.{k}": v for k, v in source.items()}  # transformers are wrapped, not flattened
    if missing := sorted(k for k in target if k not in renamed or renamed[k].shape != target[k].shape):
        raise WeightsError(_layouts(name, source, target, f"miss {len(missing)} tensors, such as '{missing[0]}'"))
    features.load_state_dict({k: renamed[k] for k in target})


def _layouts(source: object, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], trouble: str) -> str:
    def show(tensors: Mapping[str, Tensor]) -> str:
        first = "\n    ".join(f"{k} {tuple(v.shape)}" for k, v in list(tensors.items())[:5])
        return f"{len(tensors)} tensors:\n    {first}\n    …"

    return (
        f"the weights of '{source}' {trouble}.\n  the file has {show(given)}\n  the network wants {show(wanted)}\n"
        "Convert the names, or pass weights_match: order if only the names differ."
    )
