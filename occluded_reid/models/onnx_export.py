"""A model as one graph for other programs: ONNX, or torch's own exported program."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from occluded_reid.errors import BuildError, CheckpointError, MissingExtraError
from occluded_reid.files import as_path, atomic_write
from occluded_reid.models.engines import quiet_export
from occluded_reid.models.network import InferenceGraph, Network

__all__ = ["METADATA", "VISIBILITY", "export_model", "read_metadata"]

METADATA = "occluded_reid"
"""Key of an ONNX file's metadata under which an exported model describes itself, in JSON."""
VISIBILITY = "visibility"
"""Name of the output that holds the visibility of all slots."""

_FORMAT = 1
_CLOSE = 1e-4  # largest difference of an embedding, relative to its largest number, between torch and ONNX Runtime
_BATCHES = (1, 2, 7)
_TRACED = 3  # images in the batch that is traced: a number of its own, so that no other size is taken for it


def export_model(model: Network, file: str | Path) -> Path:
    """Write a model as one graph: images (N, 3, H, W) in, normalised; every slot and the visibility (N, S) out.

    N is free. An .onnx file describes itself: input size, normalisation, slots, matcher; `load_model` takes it back. It
    is run through ONNX Runtime on batches of 1, 2 and 7 before it gets its name, and compared with the model. A .pt2
    file is what torch.export.load reads.

    Args:
        model: any, but one that crops images or is a network in a file already.
        file: ending in .onnx or .pt2.

    Returns:
        The file.

    Raises:
        BuildError: the file has another ending; the model crops images, which looks at them before they are resized
            and so is no part of such a graph; or its backbone is a network in a file.
        CheckpointError: the graph differs from the model, or the file cannot be written.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    file = as_path(file, CheckpointError)
    if file.suffix not in (".onnx", ".pt2"):
        raise BuildError(f"'{file}' ends in '{file.suffix}'; give a name that ends in .onnx, or .pt2 for torch.")
    if model.preprocess.crops:
        raise BuildError(
            f"'{model.name}' crops each image by what its parser finds ({model.recipe.model.input.crop.rule}), before "
            "the image is resized: that is no part of a graph on images of one size. Build the model without it "
            "(model.input.crop.rule=none) and crop outside, or use the model through this library."
        )
    if model.backbone.frozen:
        raise BuildError(f"the backbone of '{model.name}' is a network in a file: take that file itself.")
    graph = InferenceGraph(model).eval()
    images = torch.zeros(_TRACED, 3, model.preprocess.height, model.preprocess.width, device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), quiet_export():
            program = torch.export.export(
                graph, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}}
            )
            content = _as_onnx(program, model) if file.suffix == ".onnx" else _as_torch(program)
        if file.suffix == ".onnx":
            _require_close(content, graph, images)
    finally:
        model.train(was_training)
    with atomic_write(file, CheckpointError) as temporary:
        temporary.write_bytes(content)
    return file


def read_metadata(content: bytes) -> dict[str, Any] | None:
    """Return how an ONNX file describes itself, or None where this library has not written it.

    Raises:
        CheckpointError: the description is damaged or of a newer version.
    """
    onnx = _package("onnx")
    properties = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
    if METADATA not in properties:
        return None
    try:
        described = json.loads(properties[METADATA])
        right = described["format"] == _FORMAT and described["slots"] and described["input"] and described["matcher"]
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise CheckpointError(
            f"an exported model's own description ('{METADATA}' in its metadata) is damaged, or of a newer version. "
            "Export the model again, or update the library."
        )
    return dict(described)


def _as_onnx(program: Any, model: Network) -> bytes:
    onnx = _package("onnx")
    _package("onnxscript")
    made = torch.onnx.export(
        program, input_names=["images"], output_names=[*model.slots, VISIBILITY], verbose=False, dynamo=True
    )
    if made is None:
        raise CheckpointError(f"torch gave no ONNX graph for '{model.name}'.")
    graph = made.model_proto
    described = {
        "format": _FORMAT,
        "name": model.name,
        "fingerprint": model.fingerprint,
        "slots": model.slots,
        "judged": list(model.judged),
        "input": model.recipe.model.input.model_dump(mode="json", exclude={"crop"}),
        "matcher": model.recipe.model.matcher.model_dump(mode="json"),
    }
    onnx.helper.set_model_props(graph, {METADATA: json.dumps(described)})
    return bytes(graph.SerializeToString())


def _as_torch(program: Any) -> bytes:
    written = io.BytesIO()
    torch.export.save(program, written)
    return written.getvalue()


def _require_close(content: bytes, graph: nn.Module, traced: Tensor) -> None:
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for count in _BATCHES:
        images = torch.randn(count, *traced.shape[1:], generator=generator)
        with torch.no_grad():
            wanted = [each.cpu().numpy() for each in graph(images.to(traced.device))]
        for name, given, own in zip(
            [output.name for output in session.get_outputs()],
            session.run(None, {"images": images.numpy()}),
            wanted,
            strict=True,
        ):
            off = float(np.abs(given - own).max()) / max(1.0, float(np.abs(own).max()))
            if not off <= _CLOSE:
                raise CheckpointError(
                    f"the exported graph gives '{name}' with a difference of {off:.2g} on {count} images; at most "
                    f"{_CLOSE:g} is allowed. Nothing was written. Report this with the recipe."
                )


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as cause:
        raise MissingExtraError(f'ONNX needs the package {name}: pip install "occluded-reid[onnx]"') from cause
