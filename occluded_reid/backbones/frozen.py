"""A pretrained network, taken as it is: its maps become stages, its vectors stay what they are."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from occluded_reid.backbones.base import Backbone
from occluded_reid.contracts import FeatureMaps, StageInfo
from occluded_reid.errors import BuildError
from occluded_reid.registry import did_you_mean

__all__ = ["Found", "FrozenBackbone", "Given", "Runner"]

_SHOWN = 12
_LARGEST = 2**31  # bytes of a file: what ONNX itself can hold


@dataclass(frozen=True)
class Found:
    """A tensor of a network's graph: its name, and its shape for one image, (1, D) or (1, C, h, w)."""

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'×'.join(map(str, self.shape[1:]))}"


@dataclass(frozen=True)
class Given:
    """What a checkpoint remembers of a frozen network, so that it is rebuilt without the file it came from.

    Attributes:
        stages: name -> channels and stride, from fine to coarse.
        vectors: name -> width of what the network gives beside maps.
        tensors: names in the graph of what becomes the stages, and then of the vectors.
        bytes: lengths of the network's files.
    """

    stages: dict[str, tuple[int, int]]
    vectors: dict[str, int]
    tensors: tuple[str, ...]
    bytes: tuple[int, ...]


class Runner(ABC):
    """A compiled network: (N, 3, H, W) float32 in, the chosen tensors out, each with N rows."""

    @abstractmethod
    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Run a batch."""


class FrozenBackbone(Backbone):
    """A frozen network from a file. It has no parameters; heads are trained on its maps.

    Its bytes are a buffer of the model, so a checkpoint holds the whole network, and nothing outside is asked again.

    Args:
        input_size: (height, width) of the images in pixels.
        weights: the network's file; None where a checkpoint fills it in, which then gives `given`.
        outputs: names of the tensors to take: maps (N, C, h, w) become stages, vectors (N, D) keep their names. None
            takes the last vector, which is the network's own output, and the last map of each size above 1×1.
        channels: order in which the network takes the colours.
        given: what a checkpoint remembers.

    Raises:
        WeightsError: the file cannot be read as such a network.
        BuildError: it takes images of another size, or has no such tensors.
        MissingExtraError: the package that runs it is not installed.
    """

    frozen: ClassVar[bool] = True

    def __init__(
        self,
        input_size: tuple[int, int],
        *,
        weights: str | Path | None = None,
        outputs: tuple[str, ...] | None = None,
        channels: Literal["rgb", "bgr"] = "rgb",
        given: Given | None = None,
    ) -> None:
        super().__init__(input_size)
        self.channels = channels
        self._runner: Runner | None = None
        self.cache: Callable[[np.ndarray, Runner], Sequence[np.ndarray]] | None = None  # set while heads are trained
        if weights is None:
            if given is None:
                raise BuildError(
                    f"{type(self).__name__} is a network in a file, and none is given. Set model.backbone.weights=FILE."
                )
            if not all(0 <= count <= _LARGEST for count in given.bytes):
                raise BuildError(f"a frozen network of {given.bytes} bytes is none: a file has at most {_LARGEST}.")
            self.given = given
            files = [np.zeros(count, dtype=np.uint8) for count in given.bytes]
        else:
            contents = self.read(Path(weights))
            size, tensors = self.inspect(contents, str(weights))
            if size != input_size:
                raise BuildError(
                    f"'{weights}' takes images of {size[0]}×{size[1]} pixels, and the recipe makes them "
                    f"{input_size[0]}×{input_size[1]}. "
                    f"Set model.input.height={size[0]} and model.input.width={size[1]}."
                )
            self.given = _choose(tensors, outputs, input_size, str(weights), [len(content) for content in contents])
            files = [np.frombuffer(content, dtype=np.uint8).copy() for content in contents]
        for number, file in enumerate(files):
            self.register_buffer(f"file_{number}", torch.from_numpy(file))
        self.feature_info = {name: StageInfo(*info) for name, info in self.given.stages.items()}
        self.vectors = self.given.vectors
        if weights is not None:
            _ = self._compiled()  # what cannot run is said now

    @staticmethod
    @abstractmethod
    def read(file: Path) -> list[bytes]:
        """Return the contents of the files that make the network."""

    @staticmethod
    @abstractmethod
    def inspect(contents: Sequence[bytes], source: str) -> tuple[tuple[int, int], list[Found]]:
        """Return the (height, width) that the network takes, and its tensors in the order of computation.

        Raises:
            WeightsError: the contents are damaged, or no network on one image (1, 3, H, W) of a fixed size.
        """

    @staticmethod
    @abstractmethod
    def runner(contents: Sequence[bytes], tensors: Sequence[str]) -> Runner:
        """Return the network, ready to run, with these tensors as outputs."""

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return the stages as (N, C, h, w), and the vectors (N, D); no gradient flows through them."""
        array = images.detach().float().cpu().numpy()
        if self.channels == "bgr":
            array = array[:, ::-1]
        array, network = np.ascontiguousarray(array), self._compiled()
        rows = network(array) if self.cache is None else self.cache(array, network)
        tensors = [torch.from_numpy(np.array(each, dtype=np.float32)).to(images.device) for each in rows]
        maps, vectors = tensors[: len(self.feature_info)], tensors[len(self.feature_info) :]
        return FeatureMaps(
            dict(zip(self.feature_info, maps, strict=True)),
            images,
            vectors=dict(zip(self.vectors, vectors, strict=True)),
        )

    def train(self, mode: bool = True) -> Self:
        """Stay as it is: nothing in a frozen network knows a training mode."""
        return super().train(False) if mode else super().train(mode)

    def network_digest(self) -> str:
        """Return a sha256 of what decides the tensors it gives: the network's bytes, which tensors, the colours."""
        found = hashlib.sha256(repr((type(self).__name__, self.given.tensors, self.channels)).encode())
        for buffer in self.buffers():
            found.update(buffer.cpu().numpy().tobytes())
        return found.hexdigest()

    def _compiled(self) -> Runner:
        if self._runner is None:
            contents = [buffer.cpu().numpy().tobytes() for buffer in self.buffers()]
            self._runner = self.runner(contents, self.given.tensors)
        return self._runner

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._runner = None

    def __getstate__(self) -> dict[str, Any]:
        # What runs the network belongs to one process.
        return {**self.__dict__, "_runner": None}


def _choose(
    tensors: Sequence[Found],
    outputs: tuple[str, ...] | None,
    input_size: tuple[int, int],
    source: str,
    lengths: list[int],
) -> Given:
    """The tensors that become stages, fine to coarse, and then the vectors."""
    if outputs is not None:
        known = {tensor.name: tensor for tensor in tensors}
        missing = [name for name in outputs if name not in known]
        if missing:
            raise BuildError(
                f"'{source}' has no tensor '{missing[0]}'.{did_you_mean(missing[0], list(known))} "
                f"Of {len(known)} with a map or a vector, the last are: "
                f"{', '.join(map(str, list(tensors)[-_SHOWN:]))}."
            )
        chosen = [known[name] for name in outputs]
        vectors = [tensor for tensor in chosen if len(tensor.shape) == 2]
        maps = sorted((t for t in chosen if len(t.shape) == 4), key=lambda t: -t.shape[2] * t.shape[3])
    else:
        last = {tensor.shape[2:]: tensor for tensor in tensors if len(tensor.shape) == 4}
        maps = [
            t for size, t in sorted(last.items(), key=lambda item: -item[0][0] * item[0][1]) if _is_map(t, input_size)
        ]
        vectors = [tensor for tensor in tensors if len(tensor.shape) == 2][-1:]
    if not maps and not vectors:
        raise BuildError(f"'{source}' has neither a map (N, C, h, w) nor a vector (N, D) to embed with.")
    return Given(
        stages={f"stage{n}": (t.shape[1], max(1, round(input_size[0] / t.shape[2]))) for n, t in enumerate(maps)},
        vectors={vector.name: vector.shape[1] for vector in vectors},
        tensors=tuple(tensor.name for tensor in (*maps, *vectors)),
        bytes=tuple(lengths),
    )


def _is_map(tensor: Found, input_size: tuple[int, int]) -> bool:
    """Between the image itself and a pooled vector, of the image's own proportions: the weights of a kernel are not."""
    height, width = tensor.shape[2:]
    return 1 < height < input_size[0] and height * input_size[1] == width * input_size[0]
