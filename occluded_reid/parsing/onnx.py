"""Any segmentation network in ONNX form as a teacher."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from occluded_reid.errors import BuildError, ImageError, MaskError, MissingExtraError, WeightsError
from occluded_reid.files import absolute
from occluded_reid.options import did_you_mean
from occluded_reid.parsing.base import Teacher
from occluded_reid.parsing.frames import Frame, labels_on_image
from occluded_reid.parsing.label_maps import flip_order
from occluded_reid.parsing.onnx_settings import settings_for
from occluded_reid.pixels import Channels, ImageLike, to_rgb
from occluded_reid.registry import PARSERS

__all__ = ["OnnxTeacher"]

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "coreml": "CoreMLExecutionProvider"}


@PARSERS.register("onnx")
class OnnxTeacher(Teacher):
    """Runs a segmentation network with onnxruntime.

    Images go through one at a time, so a mask never depends on its neighbours; the same model, settings and providers
    give the same masks.

    Args:
        model: the .onnx file.
        preset: settings of a known model: "bodypix".
        providers: of onnxruntime, best first: "cpu", "cuda", "coreml", or their full names.
        threads: for one image; 0 lets onnxruntime choose.
        **settings: see `OnnxSettings`; they replace those of the preset.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        WeightsError: the file is missing or is no ONNX model.
        BuildError: settings, label set and model do not fit together. The model is tried on a grey image to find out.
        UnknownOptionError: there is no such setting.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        preset: str | None = None,
        providers: tuple[str, ...] = ("cpu",),
        threads: int = 0,
        **settings: Any,
    ) -> None:
        self.settings = settings_for(preset, settings)
        self.label_set = self.settings.label_set
        self.model = absolute(model, WeightsError)
        self._session = _open(self.model, tuple(providers), threads)
        self._read_graph()
        chosen = self.settings
        self._frame = Frame(
            chosen.height, chosen.width, chosen.multiple, chosen.pad, chosen.stride, chosen.resample, self._fixed
        )
        self._table = np.asarray(chosen.table)
        self._classes = np.unique(self._table)
        self._mirrored = self._mirror_order() if chosen.flip else None
        self._try()

    def parse(
        self, images: Sequence[ImageLike], names: Sequence[str], *, channels: Channels = "rgb"
    ) -> list[np.ndarray]:
        """Return the class of each pixel, (H, W) uint8 for each image, upright.

        Args:
            images: of any kind that `occluded_reid.pixels.to_rgb` takes.
            names: what messages call them.
            channels: the order of colours in arrays and tensors (not that of the network: see `OnnxSettings`).

        Raises:
            ImageError: an image cannot be read, or is too large for the network; it is named.
            ShapeError: an array or a tensor has another type or shape than an image.
            MaskError: the model gave NaN or infinite values for an image, which is named.
        """
        pairs = zip(images, names, strict=True)
        return [self._parse_one(to_rgb(image, name=f"'{name}'", channels=channels), name) for image, name in pairs]

    def describe(self) -> dict[str, Any]:
        """Return the model's sha256 and all settings."""
        content = hashlib.sha256(self.model.read_bytes()).hexdigest()
        return {"model": self.model.name, "sha256": content, **asdict(self.settings)}

    def _parse_one(self, image: Image.Image, name: str) -> np.ndarray:
        try:
            layout = self._frame.layout(image.size)
        except ImageError as cause:
            raise ImageError(f"'{name}': {cause}") from cause
        pixels = self._frame.draw(image, layout)
        scores, person = self._scores(pixels)
        if self._mirrored is not None:
            mirrored, nobody = self._scores(pixels[:, ::-1])
            scores = (scores + mirrored[self._mirrored][..., ::-1]) / 2
            person = None if person is None or nobody is None else (person + nobody[..., ::-1]) / 2
        if not np.isfinite(scores).all() or (person is not None and not np.isfinite(person).all()):
            raise MaskError(f"the model '{self.model}' gave NaN or infinite scores for '{name}'. Use it in float32.")
        settings = self.settings
        places = labels_on_image(
            scores, layout, person=person, threshold=settings.person_threshold, decide=settings.decide
        )
        return np.asarray(np.append(self._classes, 0)[places], dtype=np.uint8)  # position -1 is nobody

    def _scores(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The score of each class that the table names, (K, h, w), and that of a person, (h, w)."""
        parts = [self.settings.person_name] if self.settings.output == "person_parts" else []
        maps = self._run(pixels, [self._output, *parts])
        channels = maps[0]
        if len(channels) != len(self._table):
            raise BuildError(
                f"output '{self._output}' of '{self.model}' has {len(channels)} channels; label set "
                f"'{self.label_set}' with these settings wants {len(self._table)}. Give the label set that the model "
                f"was trained on, or class_table=[…] with one class of '{self.label_set}' for each channel "
                f"(output_layout says which axis holds the channels; shape after it: {channels.shape})."
            )
        if self.settings.output == "logits":
            channels = _softmax(channels)
        elif self.settings.output == "person_parts":
            channels = _sigmoid(channels)
        join = np.ndarray.max if self.settings.merge == "max" else np.ndarray.sum
        merged = np.stack([join(channels[self._table == label], axis=0) for label in self._classes])
        if not parts:
            return merged, None
        if len(maps[1]) != 1:
            raise BuildError(
                f"output '{parts[0]}' of '{self.model}' has {len(maps[1])} channels; wanted 1, the person logits."
            )
        return merged, _sigmoid(maps[1][0])

    def _run(self, pixels: np.ndarray, outputs: list[str | None]) -> list[np.ndarray]:
        """Normalised pixels through the network; each output as (K, h, w) float32."""
        settings = self.settings
        mean, std = np.asarray(settings.mean, np.float32), np.asarray(settings.std, np.float32)
        values = pixels.astype(np.float32) / (np.float32(255.0) * std) - mean / std
        if settings.channels == "bgr":
            values = values[..., ::-1]
        if self._layout == "nchw":
            values = values.transpose(2, 0, 1)
        fed = np.ascontiguousarray(values[None], dtype=self._type)
        maps = [np.asarray(each, dtype=np.float32) for each in self._session.run(outputs, {self._input: fed})]
        for name, each in zip(outputs, maps, strict=True):
            if each.ndim != 4 or each.shape[0] != 1 or 0 in each.shape:
                raise BuildError(
                    f"output '{name}' of '{self.model}' has shape {each.shape}; wanted a map for each class, "
                    "(1, classes, h, w) or (1, h, w, classes). Choose another with output_name."
                )
        return [each[0].transpose(2, 0, 1) if self._output_layout == "nhwc" else each[0] for each in maps]

    def _read_graph(self) -> None:
        """Find input, outputs, axes and fixed sizes; say what does not fit."""
        settings = self.settings
        inputs, outputs = self._session.get_inputs(), [each.name for each in self._session.get_outputs()]
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shown = ", ".join(f"{each.name} {each.shape}" for each in inputs)
            raise BuildError(f"'{self.model}' takes {shown}; wanted one input of four axes, a batch of images.")
        if inputs[0].type not in _TYPES:
            raise BuildError(f"'{self.model}' takes {inputs[0].type}; wanted float32 or float16. Export it so.")
        self._input, self._type = inputs[0].name, _TYPES[inputs[0].type]
        for name in filter(None, (settings.output_name, settings.person_name)):
            if name not in outputs:
                raise BuildError(
                    f"'{self.model}' has no output '{name}'.{did_you_mean(name, outputs)} It has: {', '.join(outputs)}."
                )
        if settings.output_name is None and len(outputs) > 1:
            raise BuildError(f"'{self.model}' has outputs {', '.join(outputs)}. Choose one with output_name.")
        self._output = settings.output_name or outputs[0]
        # What a graph leaves open is a name, None or 0 there.
        shape = [side if isinstance(side, int) and side > 0 else None for side in inputs[0].shape]
        axis = {"nchw": 1, "nhwc": 3}
        fitting = [name for name, at in axis.items() if shape[at] == 3]
        layout = settings.layout or (fitting[0] if len(fitting) == 1 else None)
        if layout is None:
            raise BuildError(
                f"the input of '{self.model}' is {inputs[0].shape}, which does not say where its 3 channels are. "
                "Give layout=nchw or layout=nhwc."
            )
        if shape[axis[layout]] not in (3, None):
            raise BuildError(
                f"the input of '{self.model}' is {inputs[0].shape}; with layout={layout} it would have "
                f"{shape[axis[layout]]} channels instead of 3. Give the other layout, or an RGB model."
            )
        if shape[0] not in (1, None):
            raise BuildError(f"'{self.model}' takes {shape[0]} images at once; wanted 1. Export it with a batch of 1.")
        self._layout, self._output_layout = layout, settings.output_layout or layout
        self._fixed = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])

    def _mirror_order(self) -> np.ndarray:
        """For each class, where among the scores of the mirrored image it is."""
        order = flip_order(self.label_set)
        places = {int(label): place for place, label in enumerate(self._classes)}
        alone = [int(label) for label in self._classes if order[label] not in places]
        if alone:
            raise BuildError(
                f"with flip, class {alone[0]} of '{self.label_set}' becomes class {order[alone[0]]} in the mirror, "
                "which class_table does not name. Name both, or give flip=false."
            )
        return np.array([places[order[label]] for label in self._classes])

    def _try(self) -> None:
        """One grey image, so that what does not fit is said now and not in the middle of a folder."""
        grey = Image.new("RGB", (64, 128), (128, 128, 128))
        try:
            self._parse_one(grey, "a grey image")
        except (BuildError, MaskError):
            raise
        # onnxruntime's errors have no common base of their own.
        except Exception as cause:
            size = "×".join(map(str, self._frame.layout(grey.size).network))
            raise BuildError(
                f"'{self.model}' cannot be run on a canvas of {size} (width×height): {cause} "
                "Look at height, width, multiple, pad and stride."
            ) from cause


def _open(model: Path, providers: tuple[str, ...], threads: int) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as cause:
        raise MissingExtraError(
            "the teacher 'onnx' needs onnxruntime, which is not installed: pip install 'occluded-reid[onnx]'"
        ) from cause
    if not model.is_file():
        raise WeightsError(f"the ONNX model '{model}' does not exist. Look at the path.")
    wanted = [_PROVIDERS.get(name.lower(), name) for name in providers]
    available = runtime.get_available_providers()
    if not wanted or (missing := [name for name in wanted if name not in available]):
        raise BuildError(
            f"this onnxruntime has no {', '.join(missing) if wanted else 'provider to choose from an empty list'}; it "
            f"has {', '.join(available)}. Choose among those, or install another build such as onnxruntime-gpu."
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # warnings about a model's unused constants help nobody here
    try:
        return runtime.InferenceSession(str(model), options, providers=wanted)
    # onnxruntime's errors have no common base of their own.
    except Exception as cause:
        raise WeightsError(f"'{model}' cannot be opened as an ONNX model: {cause}. Is the file whole?") from cause


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Over the first axis."""
    grown = np.exp(logits - logits.max(axis=0, keepdims=True))
    return np.asarray(grown / grown.sum(axis=0, keepdims=True))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # Beyond ±80 float32 has reached 0 and 1, and exp would overflow a little later.
    return np.asarray(1 / (1 + np.exp(-logits.clip(-80, 80))))
