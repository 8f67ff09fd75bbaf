"""What computes a model's embeddings: the model itself, a copy of it made ready for speed, or ONNX Runtime."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from operator import is_
from typing import Any, Literal

import torch
from torch import Tensor, nn

from occluded_reid.errors import BuildError, MissingExtraError
from occluded_reid.models.folding import fold_normalizations
from occluded_reid.models.network import InferenceGraph, Network
from occluded_reid.models.precision import require_precision, require_precision_name
from occluded_reid.options import did_you_mean

__all__ = ["ENGINES", "Engine", "Engines", "OnnxEngine", "Run", "has_onnxruntime", "quiet_export"]

Engine = Literal["auto", "torch", "onnx"]
ENGINES = ("auto", "torch", "onnx")

Run = Callable[[Tensor], tuple[Tensor, ...]]
"""Images (N, 3, H, W) in, every slot and, last, the visibility out."""

_LOG = logging.getLogger("occluded_reid")
_WORTH = 128  # images that have to come before making something ready for them pays
_CLOSE = 1e-5  # largest difference from the model itself, relative to the largest number where that is above 1
_CHECKED = 3  # images that are compared
_OPSET = 17
_TRACED = 3  # images in the batch that is traced: a number of its own, so that no other size is taken for it


class Engines:
    """Makes and keeps what embeds for one model, and makes it anew when the model has changed.

    Changed means: a parameter, a buffer or a layer is another one, or has been written to; an option of a head, such as
    its threshold, has another value; the model lies elsewhere, or torch has another number of threads. Only what is
    written through ``tensor.data``, behind torch's own back, is not noticed.

    Args:
        engine: as `ReIDModel.embed_with` takes it.
        precision: likewise.

    Raises:
        BuildError: there is no such engine, or it does not compute in that precision.
        DeviceError: there is no such precision.
    """

    def __init__(self, engine: str = "auto", precision: str = "float32") -> None:
        if engine not in ENGINES:
            raise BuildError(
                f"engine is {engine!r}.{did_you_mean(str(engine), ENGINES)} Give {', '.join(map(repr, ENGINES))}."
            )
        require_precision_name(precision)
        self.engine, self.precision = engine, precision
        _require_together(engine, precision)
        self._lock = threading.Lock()
        self._came = 0  # images since the model has changed
        self._made: dict[str, tuple[_State, Run | None]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Engines:
        return Engines(self.engine, self.precision)

    def __reduce__(self) -> tuple[type[Engines], tuple[str, str]]:
        return Engines, (self.engine, self.precision)

    def choose(self, model: Network, count: int, precision: str | None) -> Run | None:
        """Return what embeds the next images; None is the model itself.

        Args:
            model: always the same.
            count: of the images.
            precision: for these images; None is the model's.

        Raises:
            BuildError: the engine that was asked for cannot run this model.
            DeviceError: the device has no arithmetic of that precision.
            MissingExtraError: onnxruntime was asked for, and is not installed.
        """
        precision = self.precision if precision is None else precision
        require_precision(precision, model.device)
        _require_together(self.engine, precision)
        with self._lock:
            self._came += count
            kept = self._made.get(precision)
            if kept is not None and not kept[0].holds():
                self._made.clear()
                kept, self._came = None, count
            asked = self.engine == "onnx" or precision != "float32"
            if not count or (kept is None and not asked and self._came < _WORTH):
                return None
            if kept is None:
                run = _make(model, self.engine, precision)
                kept = self._made[precision] = (_State(model), run)
            return kept[1]


def _require_together(engine: str, precision: str) -> None:
    if engine == "onnx" and precision != "float32":
        raise BuildError(
            f"engine is 'onnx', which computes in float32, and precision is '{precision}'. Leave one of them out."
        )


class _State:
    """What a model was like, so that a change is noticed; it is asked before every batch, and so has to be quick."""

    def __init__(self, model: Network) -> None:
        modules = [m for part in (model.backbone, model.heads, model.preprocess) for m in part.modules()]
        stores: list[Any] = [
            store for module in modules for store in (module._modules, module._parameters, module._buffers)
        ]
        roots: Any = model._modules
        self._places = [(roots, "backbone"), (roots, "heads"), *((store, name) for store in stores for name in store)]
        self._things: list[Any] = [store[name] for store, name in self._places]
        self._tensors = [t for t in self._things if isinstance(t, Tensor) and not t.is_inference()]
        self._options = [
            (module.__dict__, name)
            for module in model.heads.modules()
            for name, value in module.__dict__.items()
            if name != "training" and isinstance(value, int | float | str | bool | None)
        ]
        self._values = self._now()

    def holds(self) -> bool:
        """Whether the model is still so."""
        things = [store.get(name) for store, name in self._places]
        return all(map(is_, things, self._things)) and self._values == self._now()

    def _now(self) -> list[Any]:
        """How often each tensor was written to and where it lies; the heads' options; and torch's threads."""
        options = [attributes.get(name) for attributes, name in self._options]
        return [[(t._version, t.data_ptr()) for t in self._tensors], options, torch.get_num_threads()]


@torch.inference_mode(False)
@torch.no_grad()
def _make(model: Network, engine: str, precision: str) -> Run | None:
    """Return the fastest that gives what the model gives; None where that is the model itself."""
    device = model.device
    where = f"'{model.name}'"
    if model.backbone.frozen or any(tensor.is_inference() for tensor in model.state_dict().values()):
        if engine == "onnx" or precision != "float32":
            raise BuildError(
                f"engine is '{engine}' and precision '{precision}', but the backbone of {where} is a network in a file "
                "that computes in its own way, or its weights were made in inference mode. Leave both out."
            )
        return None
    if engine == "onnx" and device.type != "cpu":
        raise BuildError(f"engine is 'onnx', which runs on the CPU here, and {where} lies on '{device}'. Leave it out.")
    if device.type != "cpu" and precision == "float32":
        return None
    began = time.perf_counter()
    size = (model.preprocess.height, model.preprocess.width)
    noise = torch.randn(_CHECKED, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        graph = InferenceGraph(model, copied=True)
        wanted = _outputs(graph, noise)
    except Exception as cause:  # somebody else's part may hold what cannot be copied
        if engine == "onnx" or precision != "float32":
            raise BuildError(f"{where} cannot be copied to be made ready: {cause}") from cause
        _LOG.info("%s embeds as it is, for it cannot be copied: %s", where, cause)
        return None
    graph = _folded(model, graph, noise, wanted)
    if engine == "onnx" or (engine == "auto" and precision == "float32" and _may_trace(model) and has_onnxruntime()):
        try:
            run = OnnxEngine(graph, size)
            if not _close(_outputs(run, noise), wanted):
                raise BuildError(
                    f"{where} gives other embeddings through ONNX Runtime, by more than {_CLOSE:g}, as where a layer "
                    "decides by what it sees. Use engine='torch'."
                )
        except BuildError as cause:
            if engine == "onnx":
                raise
            _LOG.info("%s embeds through torch: %s", where, cause)
        else:
            _LOG.info("%s embeds through ONNX Runtime, made ready in %.1f s", where, time.perf_counter() - began)
            return run
    return _torch_run(graph, precision, device)


def _folded(model: Network, graph: InferenceGraph, noise: Tensor, wanted: list[Tensor]) -> InferenceGraph:
    """A copy with its batch normalisations folded; where that changes what it gives, one without."""
    try:
        fold_normalizations(graph, noise[:1])
        if _close(_outputs(graph, noise), wanted):
            return graph
        why: object = "it would give other embeddings"
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as cause:
        # A layer that is gone may be asked for something.
        why = cause
    _LOG.info("the batch normalisations of '%s' are not folded: %s", model.name, why)
    return InferenceGraph(model, copied=True)


def _may_trace(model: Network) -> bool:
    """Whether all parts are the library's, none of which decides by what it sees what to compute.

    A part of somebody else's might, and a comparison on a few images need not show it.
    """
    return all(type(part).__module__.startswith("occluded_reid.") for part in (model.backbone, *model.parts.values()))


def _torch_run(graph: nn.Module, precision: str, device: torch.device) -> Run:
    dtype = require_precision(precision, device)
    graph = graph.to(memory_format=torch.channels_last)
    if dtype != torch.float32:
        for module in graph.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(dtype)  # once, and not for each batch

    def run(images: Tensor) -> tuple[Tensor, ...]:
        lower = nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
        with lower:
            given: tuple[Tensor, ...] = graph(images.contiguous(memory_format=torch.channels_last))
            return given

    return run


def _outputs(run: Run, noise: Tensor) -> list[Tensor]:
    """What something gives for batches of two sizes, one after the other."""
    return [rows for count in (1, len(noise)) for rows in run(noise[:count])]


def _close(given: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(
        one.shape == other.shape and bool((one - other).abs().max() <= _CLOSE * max(1.0, float(other.abs().max())))
        for one, other in zip(given, wanted, strict=True)
    )


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
