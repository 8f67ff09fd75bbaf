"""A model's graph in ONNX Runtime, for embedding on a CPU."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from occluded_reid.errors import BuildError, MissingExtraError

__all__ = ["OnnxEngine", "has_onnxruntime", "quiet_export"]

_OPSET = 17
_TRACED = 3  # images in the batch that is traced: a number of its own, so that no other size is taken for it


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


class OnnxEngine:
    """Images (N, 3, H, W) in, the outputs of a graph out, computed by ONNX Runtime on as many threads as torch has.

    The graph is traced, which takes a second or two where `export_model` takes twenty; so it follows the one path that
    these images take, and whoever makes an engine compares it with the graph on others.

    Args:
        graph: in evaluation mode, on the CPU.
        size: (height, width) of the images.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BuildError: the graph cannot be traced, or ONNX Runtime cannot run it.
    """

    def __init__(self, graph: nn.Module, size: tuple[int, int]) -> None:
        try:
            runtime: Any = importlib.import_module("onnxruntime")
        except ImportError as cause:
            raise MissingExtraError(
                "engine is 'onnx', which needs the package onnxruntime: pip install \"occluded-reid[onnx]\""
            ) from cause
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(_traced(graph, size), options, providers=["CPUExecutionProvider"])
        except Exception as cause:  # torch's exporter and ONNX Runtime raise whatever they like
            raise BuildError(
                f"the model cannot be brought to ONNX Runtime: {_first_line(cause)} Use engine='torch'."
            ) from cause

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run a batch."""
        return tuple(torch.from_numpy(rows) for rows in self._session.run(None, {"images": images.numpy()}))


@contextmanager
def quiet_export() -> Iterator[None]:
    """Torch's exporters report their own doings; what matters is the comparison afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _traced(graph: nn.Module, size: tuple[int, int]) -> bytes:
    written = io.BytesIO()
    with torch.inference_mode(False), torch.no_grad(), quiet_export():
        torch.onnx.export(
            graph,
            (torch.zeros(_TRACED, 3, *size),),
            written,  # type: ignore[arg-type]
            input_names=["images"],
            dynamic_axes={"images": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,  # ten times as fast as the other exporter
        )
    return written.getvalue()


def _first_line(cause: Exception) -> str:
    text = str(cause).strip()
    return (text.splitlines()[0] if text else type(cause).__name__).rstrip(".") + "."
