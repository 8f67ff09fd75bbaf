"""ReIDModel: backbone, heads in order, criterion, matcher and preprocessing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from occluded_reid.arguments import checked, shown
from occluded_reid.backbones.base import Backbone
from occluded_reid.config import OptimConfig, Recipe
from occluded_reid.contracts import ModelOutput
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import BuildError, CheckpointError, ShapeError
from occluded_reid.files import as_path
from occluded_reid.forked import require_threads
from occluded_reid.heads.base import Head
from occluded_reid.losses.criterion import Criterion
from occluded_reid.matchers.base import Matcher
from occluded_reid.models.embedding import embed_images
from occluded_reid.models.engines import Engine, Engines
from occluded_reid.models.network import Network
from occluded_reid.models.onnx_export import export_model
from occluded_reid.models.precision import Precision
from occluded_reid.models.preprocess import Preprocess
from occluded_reid.models.provenance import Origin, TrainedOn
from occluded_reid.pixels import Channels, Images, as_list
from occluded_reid.sealed import write_sealed

__all__ = ["ReIDModel"]

_LOG = logging.getLogger(__name__)


class ReIDModel(Network):
    """One system: ``model(images, targets)`` for training, ``model.embed(images)`` for use.

    Made by `build_model` and `load_model`.

    Attributes:
        recipe: the recipe it was built from.
        num_classes: identities it classifies in training, or None for a model built for inference.
        slots: name -> width of the slots that `embed` returns.
        preprocess: from files or pictures to the tensor that `embed` wants.
        matcher: the system's own matcher.
        criterion: the recipe's losses.
        trained_on: whom it was trained on, or None where nothing was recorded.
        origin: where its weights come from.
        source: what `load_model` was given, a folder's or a file's path from the root on, or a name; None for a model
            that was built. Whether the weights are still those is for the fingerprint to say.
    """

    def __init__(
        self,
        recipe: Recipe,
        num_classes: int | None,
        backbone: Backbone,
        heads: Mapping[str, Head],
        criterion: Criterion | None,
        matcher: Matcher,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__(recipe, num_classes, backbone, heads, preprocess)
        self.matcher = matcher
        self.trained_on: TrainedOn | None = None
        self.origin = Origin()
        self.source: str | None = None
        self._cautioned = False
        self._criterion = criterion
        self._engines = Engines()

    @property
    def cautions(self) -> tuple[str, ...]:
        """What should be known before anyone relies on it: that it was never trained, or its visibility was not."""
        return self.origin.cautions(self.name, self.parts)

    def caution(self) -> None:
        """Log the cautions as warnings of the logger ``occluded_reid``, once for this model."""
        if not self._cautioned:
            for text in self.cautions:
                _LOG.warning("%s", text)
        self._cautioned = True

    @property
    def criterion(self) -> Criterion:
        """The recipe's losses.

        Raises:
            BuildError: the model was built for inference.
        """
        if self._criterion is None:
            raise BuildError(
                f"'{self.name}' was built for inference and computes no loss. "
                f"Build it for training: build_model('{self.name}', num_classes=…)."
            )
        return self._criterion

    @property
    def engine(self) -> str:
        """What computes embeddings, see `embed_with`."""
        return self._engines.engine

    @property
    def precision(self) -> str:
        """The numbers that embeddings are computed with, see `embed_with`."""
        return self._engines.precision

    def embed_with(self, *, engine: Engine | None = None, precision: Precision | None = None) -> Self:
        """Say how `embed` computes from now on; training is not touched by it.

        Args:
            engine: "torch"; "onnx", ONNX Runtime on a CPU (extra: onnx), from the first image on; or "auto", which is
                ONNX Runtime where that is installed and all parts of the model are the library's, and torch elsewhere.
                Both work on a copy whose batch normalisations are folded. It is made when 128 images have come (in a
                second or two for ONNX Runtime), anew when the weights have changed, and compared with the model on
                three images: 1e-5 of the largest number is allowed. None leaves the engine as it is.
            precision: "float32"; "bfloat16" or "float16" where the processor or the GPU has arithmetic for it, which is
                asked when it embeds. None leaves it as it is.

        Returns:
            The model itself.

        Raises:
            BuildError: there is no such engine, or it does not compute in that precision.
            DeviceError: there is no such precision.
        """
        self._engines = Engines(engine or self.engine, precision or self.precision)
        return self

    @checked(ShapeError, only=("progress",))
    @torch.inference_mode()
    def embed(
        self,
        images: Images,
        *,
        precision: Precision | None = None,
        batch_size: int | None = None,
        channels: Channels = "rgb",
        progress: Callable[[int, int], None] | None = None,
    ) -> PartEmbeddings:
        """Embed images: slots in float32, visibility 1 where no head gives one.

        Args:
            images: one image or several: paths, bytes of files, PIL images, uint8 arrays, tensors of one image each; or
                N that are prepared, as `preprocess` gives them, a tensor of floats (N, 3, H, W). Prepared ones stay on
                the model's device; embeddings of others come to the CPU.
            precision: for these images, as in `embed_with`; None is the model's own.
            batch_size: images in one pass; None is 64, and all at once where they are prepared.
            channels: the order of colours in arrays and tensors that are not prepared; "bgr" is OpenCV's.
            progress: called with (images done, images in all) after each pass.

        Raises:
            ImageError: an image cannot be read, or has no pixels; it is named.
            ShapeError: there is no image, or an array or a tensor has another type or shape than an image.
            BuildError: prepared images have another size, or the engine that was asked for cannot run this model.
            DeviceError: the device has no arithmetic of that precision; or this process was forked from one that had
                computed, and would wait for ever.
            EmbeddingError: the model gives NaN.

        Example:
            ``model.embed(sorted(Path("photos").glob("*.jpg")), batch_size=32)``
        """
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ShapeError(f"batch_size is {shown(batch_size)}; give a whole number above 0, or None.")
        made: Iterator[PartEmbeddings]
        if isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point():
            if channels != "rgb":
                raise ShapeError(
                    f"channels is {shown(channels)}, and the images are prepared, whose colours model.preprocess has "
                    "put in order. Give channels to model.preprocess, or give the images themselves."
                )
            images = images.float()
            total = len(images)
            size = batch_size or max(total, 1)
            made = (self._embed_prepared(images[n : n + size], precision) for n in range(0, max(total, 1), size))
        else:
            several = as_list(images, channels)
            if not several:
                raise ShapeError("there is no image to embed; give at least one.")
            total = len(several)
            names = [str(im) if isinstance(im, str | Path) else f"images[{n}]" for n, im in enumerate(several)]
            made = embed_images(_At(self, precision), several, names, batch_size or 64)
        done, rows = 0, list[PartEmbeddings]()
        for part in made:
            rows.append(part)
            done += len(part)
            if progress is not None:
                progress(done, total)
        return PartEmbeddings.cat(rows)

    def _embed_prepared(self, images: Tensor, precision: Precision | None) -> PartEmbeddings:
        self._require_images(images)
        require_threads("embed images", self.device.type)
        run = self._engines.choose(self, len(images), precision)
        if run is None or not torch.isfinite(images.sum()):  # what is no number is not lost in another engine
            return self.collect(self.infer(images))
        *embeddings, visibility = run(images.to(self.device))
        return PartEmbeddings(tuple(self.slots), tuple(embeddings), visibility)

    @torch.inference_mode()
    def infer(self, images: Tensor) -> ModelOutput:
        """Return all outputs in evaluation mode, for pictures and tests; the mode before is restored.

        Raises:
            ShapeError: they are no tensor (N, 3, H, W).
            DeviceError: this process was forked from one that had computed, and would wait for ever.
        """
        _require_tensor(images)
        require_threads("embed images", self.device.type)
        was_training = self.training
        self.eval()
        try:
            output: ModelOutput = self(images.to(self.device))
            return output
        finally:
            self.train(was_training)

    def collect(self, output: ModelOutput) -> PartEmbeddings:
        """Gather the inference slots of an output and their visibility."""
        embeddings, visibility = self.slot_tensors(output)
        return PartEmbeddings(tuple(self.slots), embeddings, visibility)

    def parameter_groups(self, optim: OptimConfig) -> list[dict[str, Any]]:
        """Return optimiser groups: the backbone's and the new parameters, biases apart where their rate differs."""
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                scale = optim.backbone_scale if name.startswith("backbone.") else 1.0
                scale *= optim.bias_scale if name.endswith("bias") else 1.0
                groups.setdefault(scale, []).append(parameter)
        return [
            {"params": parameters, "lr": optim.lr * scale, "weight_decay": optim.weight_decay}
            for scale, parameters in groups.items()
            if scale > 0
        ]

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json``, from which alone `load_model` rebuilds the model.

        Each is written whole or not at all, with its checksum. Heads that exist in training only are left out;
        classifiers are kept, so that training can go on from here.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        folder = as_path(folder, CheckpointError)
        dropped = tuple(f"heads.{name}." for name, head in self.parts.items() if head.info.training_only)
        kept = {k: v for k, v in self.state_dict().items() if not k.startswith((*dropped, "_criterion."))}
        write_sealed(folder, "model", self.to_dict(), kept, CheckpointError)

    def to_dict(self) -> dict[str, Any]:
        """Return what model.json says of the model, beside the checksums."""
        return {
            "fingerprint": self.fingerprint,
            "num_classes": self.num_classes,
            "slots": self.slots,
            "recipe": self.recipe.model_dump(mode="json"),
            "origin": self.origin.to_dict(),
            **({} if self.trained_on is None else {"trained_on": self.trained_on.to_dict()}),
        }

    def export(self, file: str | Path) -> Path:
        """Write the model as one graph for other programs, .onnx or .pt2; see `export_model`."""
        return export_model(self, file)

    def describe(self) -> str:
        """Return a few lines: backbone, stages, heads, slots, parameters."""
        stages = ", ".join(f"{n} {s.channels}/{s.stride}" for n, s in self.backbone.feature_info.items())
        total = sum(v.numel() for v in self.inference_state().values())
        slots = ", ".join(f"{name} {width}" for name, width in self.slots.items())
        return (
            f"{self.name}: {self.preprocess.height}×{self.preprocess.width}, "
            f"{self.recipe.model.backbone.type} ({stages})\n"
            f"heads: {', '.join(self.heads)} → slots {slots}\n{total / 1e6:.2f} M parameters at inference"
        )


class _At(NamedTuple):
    """A model at a precision, for `embed_images`."""

    model: ReIDModel
    precision: Precision | None

    @property
    def preprocess(self) -> Preprocess:
        return self.model.preprocess

    def embed(self, images: Tensor) -> PartEmbeddings:
        return self.model._embed_prepared(images, self.precision)


def _require_tensor(images: object) -> None:
    """Refuse what is no tensor of several images."""
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise ShapeError(
            f"images are {tuple(images.shape) if isinstance(images, Tensor) else shown(images)}; give a tensor "
            "(N, 3, H, W) as model.preprocess(images) makes it."
        )
