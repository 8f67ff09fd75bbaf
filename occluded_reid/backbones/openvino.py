"""Networks in OpenVINO's format (an .xml beside its .bin), frozen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from occluded_reid.backbones.frozen import Found, FrozenBackbone, Runner
from occluded_reid.errors import MissingExtraError, WeightsError
from occluded_reid.registry import BACKBONES

__all__ = ["OpenVINOBackbone"]

_IGNORED = {"Constant", "Parameter", "Convert", "FakeQuantize", "Result", "Transpose"}


@BACKBONES.register("openvino")
class OpenVINOBackbone(FrozenBackbone):
    """A frozen network from OpenVINO's intermediate representation; see `FrozenBackbone` for its options."""

    @staticmethod
    def read(file: Path) -> list[bytes]:
        """Return the graph and its constants.

        Raises:
            WeightsError: one of the two files is missing.
        """
        try:
            return [file.read_bytes(), file.with_suffix(".bin").read_bytes()]
        except OSError as cause:
            raise WeightsError(
                f"'{cause.filename}' cannot be read: {cause.strerror}. OpenVINO's format is two files, NAME.xml and "
                "NAME.bin, side by side."
            ) from cause

    @staticmethod
    def inspect(contents: Sequence[bytes], source: str) -> tuple[tuple[int, int], list[Found]]:
        """Return the size of the images it takes, and the tensors it computes."""
        model = _parsed(contents, source)
        shape = model.inputs[0].partial_shape if len(model.inputs) == 1 else None
        if shape is None or len(shape) != 4 or any(d.is_dynamic for d in list(shape)[1:]) or shape[1].get_length() != 3:
            raise WeightsError(
                f"'{source}' has the inputs {[str(i.partial_shape) for i in model.inputs]}; wanted one image "
                "(N, 3, height, width) of a fixed height and width. Convert the network so."
            )
        model.reshape([1, 3, shape[2], shape[3]])
        found = [
            Found(name, tuple(output.partial_shape.to_shape()))
            for name, output in _outputs(model).items()
            if output.partial_shape.is_static and len(output.partial_shape) in (2, 4) and output.partial_shape[0] == 1
        ]
        return (shape[2].get_length(), shape[3].get_length()), found

    @staticmethod
    def runner(contents: Sequence[bytes], tensors: Sequence[str]) -> Runner:
        """Return the network on the CPU, in float32."""
        return _OpenVINORunner(contents, tensors)


class _OpenVINORunner(Runner):
    def __init__(self, contents: Sequence[bytes], tensors: Sequence[str]) -> None:
        openvino = _openvino()
        model = _parsed(contents, "the network in the checkpoint")
        known = _outputs(model)
        model = openvino.Model([known[name] for name in tensors], model.get_parameters(), "chosen")
        size = model.inputs[0].partial_shape
        model.reshape([-1, 3, size[2], size[3]])
        self._count = len(tensors)
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": max(1, torch.get_num_threads())}
        self._network = openvino.Core().compile_model(model, "CPU", options)

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        given = self._network(images)
        return [np.array(given[number]) for number in range(self._count)]


def _parsed(contents: Sequence[bytes], source: str) -> Any:
    openvino = _openvino()
    try:
        return openvino.Core().read_model(model=contents[0], weights=contents[1])
    except RuntimeError as cause:
        reason = str(cause).strip().splitlines()[-1]
        raise WeightsError(
            f"'{source}' is not a network in OpenVINO's format, or damaged: {reason} Are .xml and .bin whole, and from "
            "one conversion?"
        ) from cause


def _outputs(model: Any) -> dict[str, Any]:
    """What is computed, by name; where a name stands twice the later one counts."""
    return {
        operation.get_friendly_name(): operation.output(0)
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in _IGNORED and operation.get_output_size() == 1
    }


def _openvino() -> Any:
    """Import the package without its reporting: it would send an event to its makers, from a forked process.

    It does without where `openvino_telemetry` is not installed, so that is what it is told while it is imported.
    """
    telemetry = "openvino_telemetry"
    quiet = "openvino" not in sys.modules and telemetry not in sys.modules
    if quiet:
        sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as cause:
        raise MissingExtraError(
            'networks in OpenVINO\'s format need the package openvino: pip install "occluded-reid[openvino]"'
        ) from cause
    finally:
        if quiet:
            del sys.modules[telemetry]
    return openvino
