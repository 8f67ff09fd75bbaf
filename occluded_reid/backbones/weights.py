"""Weights files: reading them safely, and saying what does not fit when they do not."""

from __future__ import annotations

import logging
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from occluded_reid.backbones.hub_files import hub_weights
from occluded_reid.backbones.layouts import (
    KINDS,
    LAYOUTS,
    Imported,
    Unsupported,
    WeightsLayout,
    kind_of,
    recognise,
    translate,
)
from occluded_reid.config import is_hub
from occluded_reid.errors import UnknownNameError, WeightsError
from occluded_reid.files import read_safetensors
from occluded_reid.options import did_you_mean

__all__ = ["load_into", "read_weights", "transfer_by_name"]

_LOG = logging.getLogger(__name__)

# What torch.load raises on damaged files, and on files of something else.
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, struct.error, pickle.UnpicklingError),
)
# Under which keys training programs keep a network; where a file has several, the first of these is taken.
_WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "module", "teacher", "model_ema", "ema"),
    *("state_dict_ema", "ema_state_dict", "student", "weights", "params", "encoder", "backbone"),
)
_DEEPEST = 4
_PREFIXES = ("module.", "backbone.", "base.", "model.", "network.", "encoder.", "_orig_mod.")
# Numbers and settings that are often saved beside the weights. They are read as nothing at all, so that no code of
# theirs is asked for; anything else that is no tensor is refused.
_BESIDE = (
    *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "argparse.Namespace"),
)


class _LeftOut:
    """What stands for a number or a setting beside the weights."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a .safetensors file, or a .pth/.pt/.bin file of tensors (nothing else in it is ever run).

    "hf-hub:owner/name" is a .safetensors file on the Hugging Face hub, fetched because it is named.

    The tensors may lie under a key that is in use for them ("state_dict", "model", "teacher", "model_ema", …); numbers
    of NumPy and settings of argparse beside them are left out.

    Raises:
        WeightsError: the file is missing, damaged, holds other objects than tensors, or holds them under other keys; or
            the hub cannot be reached.
    """
    path = hub_weights(str(path)) if is_hub(path) else Path(path)
    if path.suffix == ".safetensors":
        tensors: Mapping[Any, Any] = read_safetensors(path, WeightsError)[0]
    else:
        tensors = _unwrapped(_load(path), path)
    found = {str(k).removeprefix("module."): v for k, v in tensors.items() if isinstance(v, Tensor)}
    if not found:
        raise WeightsError(f"'{path}' holds no tensors{_what_is_there(tensors)}. {_ADVICE}")
    return found


_ADVICE = "Give a file whose top level, or whose key 'state_dict', maps names to tensors."


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([(_LeftOut, name) for name in _BESIDE]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        # torch's own message advises to load such a file without care; its reasons stay in the chain of causes.
        why = error.strerror if isinstance(error, OSError) else "it is damaged, or holds other objects than tensors"
        strange = re.search(r"GLOBAL ([\w.]+)", str(error))
        if strange is not None:
            why = f"it is damaged, or holds other objects than tensors: '{strange[1]}'"
        raise WeightsError(
            f"'{path}' could not be read as a file of tensors: {why}. Give a .safetensors file, or a .pth file that "
            "torch.load(weights_only=True) accepts."
        ) from error


def _unwrapped(content: Any, path: Path) -> Mapping[Any, Any]:
    """The mapping of tensors within what a file holds."""
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            raise WeightsError(f"'{path}' holds {type(content).__name__}; wanted a mapping of names to tensors.")
        keys = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not keys:
            break
        if len(keys) > 1:
            _LOG.warning("'%s' holds weights under %s; those under '%s' are taken", path, ", ".join(keys), keys[0])
        content = content[keys[0]]
    found: Mapping[Any, Any] = content
    return found


def _what_is_there(content: Mapping[Any, Any]) -> str:
    """The keys of a mapping without tensors, and which of them have some below."""
    below = [repr(key) for key, value in content.items() if isinstance(value, Mapping)]
    if below:
        return f" at its top level, but mappings under {', '.join(below[:8])}"
    return f", only {', '.join(repr(key) for key in list(content)[:8])}" if content else ""


def load_into(
    model: nn.Module,
    path: str | Path,
    match: str = "auto",
    resize: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    stem: str = "usual",
) -> Imported | None:
    """Load a file into a whole model.

    Args:
        model: the network; its classifier may be absent from the file.
        path: weights file.
        match: how the file is laid out: a project's name in `LAYOUTS`; "timm", the network's own names, all with one
            prefix in use ("backbone.", "base.", …) or without; "order", as many tensors, of the same shapes, in the
            same order; "auto", what its names tell, and "timm" where they tell nothing.
        resize: for tensors of the network that may have another size in the file, what brings them to the right one.
        stem: the first layers of the network ("usual", "linear", "unpadded"; see `TimmBackbone`).

    Returns:
        What a file of another project held besides the backbone; None for one in the network's own names.

    Raises:
        WeightsError: the layout or a shape does not fit; the message shows the first names of both sides.
        UnknownNameError: there is no layout of that name.
    """
    layout = _named(match)
    tensors, own = read_weights(path), model.state_dict()
    if match == "order":
        if len(tensors) != len(own):
            raise WeightsError(_layouts(path, tensors, own, "do not match in order and shape", _ORDER))
        named = _resized(dict(zip(own, tensors.values(), strict=True)), resize)
        if any(named[key].shape != value.shape for key, value in own.items()):
            raise WeightsError(_layouts(path, tensors, own, "do not match in order and shape", _ORDER))
        tensors = named
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or "fc"
    classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    wanted = {k for k in own if not k.startswith(classifiers) and not k.endswith("num_batches_tracked")}
    given, imported = tensors, None
    if match == "auto":
        layout = _recognised(path, tensors, own)
    if layout is not None:
        tensors, imported = _translated(layout, path, tensors, model, wanted, stem)
        tensors = _resized(tensors, resize)
    else:
        tensors = _resized(_without_prefix(tensors, wanted), resize)
    fitting = {k: v for k, v in tensors.items() if k in own and v.shape == own[k].shape}
    if missing := sorted(wanted - set(fitting)):
        other = [key for key in missing if key in tensors]
        of = "" if layout is None else f"of the layout {layout.name} "
        if len(other) == len(missing):
            shown = ", ".join(f"'{k}' {tuple(tensors[k].shape)} for {tuple(own[k].shape)}" for k in other[:3])
            trouble = f"{of}have {len(other)} tensors of another shape: {shown}"
            advice = "The names fit. Build the network as it was when the file was written: other options, other sizes."
            raise WeightsError(_layouts(path, given, own, trouble, advice))
        raise WeightsError(_layouts(path, given, own, f"{of}miss {len(missing)} tensors, such as '{missing[0]}'"))
    model.load_state_dict(fitting, strict=False)
    return imported


def _named(match: str) -> WeightsLayout | None:
    """The project's layout of that name; None for the ways that are no project's."""
    ways = {layout.name: layout for layout in LAYOUTS}
    if match in ways:
        return ways[match]
    known = ["auto", "timm", "order", *ways]
    if match not in (*known, "names"):
        raise UnknownNameError(
            f"no layout of weights is named '{match}'.{did_you_mean(match, known)} There are: {', '.join(known)}."
        )
    return None


def _recognised(path: str | Path, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> WeightsLayout | None:
    layout = recognise(tensors)
    if isinstance(layout, Unsupported):
        raise WeightsError(
            _layouts(path, tensors, own, f"are {layout.name}'s, a layout that is not loaded", layout.reason)
        )
    return layout


def _translated(
    layout: WeightsLayout, path: str | Path, tensors: dict[str, Tensor], model: nn.Module, wanted: set[str], stem: str
) -> tuple[dict[str, Tensor], Imported]:
    """A project's tensors under the network's names, and what it held besides; the log says what became of all."""
    own, kind = model.state_dict(), kind_of(model) or ""
    said = f"are laid out as {layout.name}'s"
    if kind not in layout.stems:
        fitting = "; ".join(KINDS[each] for each in layout.stems)
        advice = (
            f"Layout {layout.name} is of: {fitting}. This network is {KINDS.get(kind, 'of another form')}. "
            "Choose such a backbone; if the file is in the network's own names after all, say layout: timm."
        )
        raise WeightsError(_layouts(path, tensors, own, f"{said}, for another kind of network", advice))
    if stem != layout.stems[kind]:
        advice = (
            f"{_STEMS[layout.stems[kind]]} Set model.backbone.options.stem={layout.stems[kind]}, so that the numbers "
            "are the authors'; if the file is of another project after all, say which (layout: timm)."
        )
        raise WeightsError(_layouts(path, tensors, own, f"{said}, whose first layers are other ones", advice))
    result = translate(layout, tensors, wanted, own)
    if result.unknown:
        trouble = f"{said}, and hold {len(result.unknown)} tensors that it does not know, such as '{result.unknown[0]}'"
        raise WeightsError(
            _layouts(path, tensors, own, trouble, "They belong to a part that this network does not have.")
        )
    left = ", ".join(f"{what} ({count})" for what, count in result.left_out.items())
    _LOG.info(
        "the weights of '%s' %s: %d tensors go to the backbone; left out: %s",
        *(path, said, len(result.named), left or "nothing"),
    )
    for what, count in result.changes.items():
        _LOG.warning(
            "the weights of '%s' are loaded without %d tensors, so that embeddings differ from the authors': %s",
            *(path, count, what),
        )
    parts = {key: value for key, value in result.neck.items() if key in _NECK}
    neck = parts if set(parts) == set(_NECK) and all(value.ndim == 1 for value in parts.values()) else None
    return result.named, Imported(layout.name, neck, "class_token" if kind in ("vit", "clip") else "map")


_NECK = ("weight", "bias", "running_mean", "running_var")
_STEMS = {
    "usual": "Its first layers are the usual ones.",
    "linear": "Its authors leave out the ReLU before the first pool.",
    "unpadded": "Its authors' first pool has no padding and rounds up.",
}


def _resized(
    tensors: Mapping[str, Tensor], resize: Mapping[str, Callable[[Tensor], Tensor]] | None
) -> dict[str, Tensor]:
    return {key: resize[key](value) if resize and key in resize else value for key, value in tensors.items()}


def _without_prefix(tensors: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Tensors under their own names, or under those without a prefix, if these are the ones that are wanted."""
    if wanted <= set(tensors):
        return tensors
    for prefix in _PREFIXES:
        bare = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if wanted <= set(bare):
            return bare
    return tensors


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


_NAMES = (
    "Convert the names, or pass weights_match: order if only the names differ. Layouts that are known: "
    f"{', '.join(layout.name for layout in LAYOUTS)}."
)
_ORDER = "Give a file with these tensors in this order, or one whose names fit (weights_match: timm)."


def _layouts(
    source: object, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], trouble: str, advice: str = _NAMES
) -> str:
    def show(tensors: Mapping[str, Tensor]) -> str:
        first = "\n    ".join(f"{k} {tuple(v.shape)}" for k, v in list(tensors.items())[:5])
        return f"{len(tensors)} tensors:\n    {first}\n    …"

    both = f"  the file has {show(given)}\n  the network wants {show(wanted)}"
    return f"the weights of '{source}' {trouble}.\n{both}\n{advice}"
