"""A pretrained network in a file, as a model of this library."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from occluded_reid.backbones.frozen import FrozenBackbone
from occluded_reid.errors import BuildError, WeightsError
from occluded_reid.files import as_path
from occluded_reid.models.build import build_model
from occluded_reid.models.model import ReIDModel
from occluded_reid.models.onnx_export import VISIBILITY, read_metadata
from occluded_reid.options import did_you_mean
from occluded_reid.registry import BACKBONES

__all__ = ["PRESETS", "Preset", "is_network", "load_embedder"]

_log = logging.getLogger("occluded_reid")
_TYPES = {".onnx": "onnx", ".xml": "openvino"}


@dataclass(frozen=True)
class Preset:
    """What a family of networks wants to be shown.

    Attributes:
        mean, std: of RGB values in [0, 1].
        channels: order of the colours.
        resample: how its authors resized.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Literal["rgb", "bgr"] = "rgb"
    resample: Literal["bilinear", "bicubic"] = "bilinear"


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "imagenet": Preset((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchreid, BoT, most others
        "half": Preset((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # TransReID, CLIP-ReID
        "bytes": Preset((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),  # 0 … 255; fast-reid normalises inside
        "openvino-retail": Preset((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), channels="bgr"),
    }
)
"""What families of re-identification networks want to be shown, by name."""


def is_network(path: str | Path) -> bool:
    """Return whether a path names a network's file (.onnx, .xml), and no folder."""
    path = Path(path)
    return path.suffix.lower() in _TYPES and not path.is_dir()


def load_embedder(
    file: str | Path, *, preset: str | Preset | None = None, outputs: tuple[str, ...] | None = None
) -> ReIDModel:
    """Take a network in a file as a model: its embedding is the slot ``global``, matched by cosine.

    It embeds, searches, evaluates and saves like any other; `ReIDModel.save` keeps the network itself. To put heads on
    its maps, build a recipe with ``backbone={"type": "onnx", "weights": file}``. What `export_model` has written says
    itself what it wants to be shown, and comes back with all its slots, their visibility and its matcher.

    Args:
        file: .onnx, or .xml with its .bin beside it.
        preset: a name in `PRESETS`, or one's own. None takes "openvino-retail" for OpenVINO's
            person-reidentification-retail networks, and "imagenet" for others, with a notice.
        outputs: names of the tensors to take, see `FrozenBackbone`; None takes the network's own output.

    Raises:
        WeightsError: the file is missing, damaged, or no network on single images of a fixed size.
        BuildError: there is no such preset or tensor, or the network gives no vector.
        MissingExtraError: what runs it is not installed.
    """
    file = as_path(file, WeightsError)
    kind = _TYPES.get(file.suffix.lower())
    if kind is None:
        raise WeightsError(f"'{file}' is no network that can be loaded; wanted {' or '.join(_TYPES)}.")
    backbone = cast(type[FrozenBackbone], BACKBONES.get(kind))
    contents = backbone.read(file)
    (height, width), _ = backbone.inspect(contents, str(file))
    described = read_metadata(contents[0]) if kind == "onnx" else None
    if described is not None:
        return _exported(file, described, preset, outputs)
    shown = _preset(file, preset)
    options = {"channels": shown.channels, **({} if outputs is None else {"outputs": list(outputs)})}
    recipe = {
        "name": file.stem,
        "model": {
            "input": {
                "height": height,
                "width": width,
                "mean": list(shown.mean),
                "std": list(shown.std),
                "resample": shown.resample,
            },
            "backbone": {"type": kind, "weights": str(file), "options": options},
            "heads": {"global": "embedding"},
            "matcher": {"type": "plain", "options": {"metric": "cosine"}},
        },
    }
    return build_model(recipe).eval()


def _exported(
    file: Path, described: Mapping[str, Any], preset: str | Preset | None, outputs: tuple[str, ...] | None
) -> ReIDModel:
    """A model that this library has exported, as it was."""
    if preset is not None or outputs is not None:
        raise BuildError(f"'{file}' says itself what it wants and gives; leave preset and outputs out.")
    slots = list(described["slots"])
    options = {"slots": slots, "visibility": VISIBILITY, "judged": described.get("judged")}
    recipe = {
        "name": described["name"],
        "model": {
            "input": described["input"],
            "backbone": {"type": "onnx", "weights": str(file), "options": {"outputs": [*slots, VISIBILITY]}},
            "heads": {"exported": {"type": "exported", "options": options}},
            "matcher": described["matcher"],
        },
    }
    return build_model(recipe).eval()


def _preset(file: Path, preset: str | Preset | None) -> Preset:
    if isinstance(preset, Preset):
        return preset
    if preset is None:
        preset = "openvino-retail" if file.name.startswith("person-reidentification-retail") else "imagenet"
        if preset == "imagenet":
            _log.warning(
                "'%s' does not say what it wants to be shown: RGB with ImageNet's mean and deviation is taken. If its "
                "authors did otherwise, say so: load_model(file, preset=…), or --preset.",
                file.name,
            )
    if preset not in PRESETS:
        raise BuildError(
            f"there is no preset '{preset}' for networks.{did_you_mean(preset, list(PRESETS))} "
            f"There are: {', '.join(PRESETS)}; or give a Preset(mean, std, channels) of your own."
        )
    return PRESETS[preset]
