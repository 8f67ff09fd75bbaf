"""Networks in ONNX form, frozen."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from occluded_reid.backbones.frozen import Found, FrozenBackbone, Runner
from occluded_reid.errors import MissingExtraError, WeightsError
from occluded_reid.files import open_file
from occluded_reid.registry import BACKBONES

__all__ = ["OnnxBackbone"]

_BRANCHING = {"If", "Loop", "Scan"}


@BACKBONES.register("onnx")
class OnnxBackbone(FrozenBackbone):
    """A frozen network from an .onnx file, run by onnxruntime; see `FrozenBackbone` for its options."""

    @staticmethod
    def read(file: Path) -> list[bytes]:
        """Return the content of the file.

        Raises:
            WeightsError: it cannot be read.
        """
        try:
            with open_file(file) as opened:
                return [opened.read()]
        except OSError as cause:
            raise WeightsError(f"'{file}' cannot be read: {cause.strerror}. Look at the path.") from cause

    @staticmethod
    def inspect(contents: Sequence[bytes], source: str) -> tuple[tuple[int, int], list[Found]]:
        """Return the size of the images it takes, and the tensors it computes."""
        model = _parsed(contents[0], source)
        size = _image_size(model, source)
        branching = sorted({node.op_type for node in model.graph.node} & _BRANCHING)
        if branching:
            raise WeightsError(
                f"'{source}' decides as it runs what to compute ({', '.join(branching)}). Export the network without "
                "control flow, by tracing it on one image."
            )
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        shaped = _onnx().shape_inference.infer_shapes(model)
        known = {info.name: info for info in (*shaped.graph.value_info, *shaped.graph.output)}
        found = []
        for node in shaped.graph.node:
            for name in node.output:
                info = known.get(name)
                shape = None if info is None else [d.dim_value for d in info.type.tensor_type.shape.dim]
                # An exporter may leave the batch of an output open, or give it the name of a size.
                if shape and len(shape) in (2, 4) and shape[0] in (0, 1) and all(shape[1:]):
                    found.append(Found(name, (1, *shape[1:])))
        return size, found

    @staticmethod
    def runner(contents: Sequence[bytes], tensors: Sequence[str]) -> Runner:
        """Return the network on the CPU."""
        return _OnnxRunner(contents[0], tensors)


class _OnnxRunner(Runner):
    """A session that gives the chosen tensors; a network made for one image at a time is run so."""

    def __init__(self, content: bytes, tensors: Sequence[str]) -> None:
        runtime, onnx = _package("onnxruntime"), _onnx()
        model = _parsed(content, "the network in the checkpoint")
        height, width = _image_size(model, "the network in the checkpoint")
        initial = {tensor.name for tensor in model.graph.initializer}
        self._input = next(i.name for i in model.graph.input if i.name not in initial)
        for value in (*model.graph.input, *model.graph.output):
            if value.name not in initial and value.type.tensor_type.shape.dim:
                value.type.tensor_type.shape.dim[0].dim_param = "batch"
        own = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors if name not in own)
        del model.graph.value_info[:]  # shapes of the old batch size
        options = runtime.SessionOptions()
        options.intra_op_num_threads = max(1, torch.get_num_threads())
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as cause:
            raise WeightsError(
                f"onnxruntime cannot run this network: {_first_line(cause)} Export it again, with an opset that the "
                "installed onnxruntime knows."
            ) from cause
        self._tensors = list(tensors)
        self._alone = False
        self._alone = not self._takes_batches(height, width)

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        if not self._alone:
            return self._run(images)
        rows = [self._run(images[n : n + 1]) for n in range(len(images))]
        return [np.concatenate(each) for each in zip(*rows, strict=True)]

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        try:
            given: list[np.ndarray] = self._session.run(self._tensors, {self._input: images})
        except Exception as cause:
            raise WeightsError(f"the network failed on {len(images)} images: {_first_line(cause)}") from cause
        return given

    def _takes_batches(self, height: int, width: int) -> bool:
        try:
            given = self._run(np.zeros((3, 3, height, width), dtype=np.float32))
        except WeightsError:
            return False
        return all(len(each) == 3 for each in given)


def _parsed(content: bytes, source: str) -> Any:
    try:
        model = _onnx().load_model_from_string(content)
        _ = model.graph.input[0].name, model.graph.output[0].name
    except Exception as cause:
        raise WeightsError(
            f"'{source}' is not a network in ONNX form, or damaged: {_first_line(cause)} Is the file whole?"
        ) from cause
    elsewhere = [t.name for t in model.graph.initializer if t.data_location == t.EXTERNAL]
    if elsewhere:
        raise WeightsError(
            f"'{source}' keeps '{elsewhere[0]}' and {len(elsewhere) - 1} more of its weights in another file. "
            "Save it as one file: onnx.save(onnx.load(FILE), NEW)."
        )
    return model


def _image_size(model: Any, source: str) -> tuple[int, int]:
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initial]
    dims = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(dims) != 4 or dims[1] != 3 or not all(dims[2:]):
        shapes = [[d.dim_value or d.dim_param or "?" for d in i.type.tensor_type.shape.dim] for i in inputs]
        raise WeightsError(
            f"'{source}' has the inputs {shapes}; wanted one image (N, 3, height, width) of a fixed height and width. "
            "Export the network so."
        )
    return dims[2], dims[3]


def _first_line(cause: Exception) -> str:
    text = str(cause).strip()
    return (text.splitlines()[0] if text else type(cause).__name__).rstrip(".") + "."


def _onnx() -> Any:
    return _package("onnx")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as cause:
        raise MissingExtraError(
            f'networks in ONNX form need the package {name}: pip install "occluded-reid[onnx]"'
        ) from cause
