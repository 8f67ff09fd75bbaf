"""Training a parsing network on images and part masks, with the loop that trains models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from occluded_reid.arguments import checked
from occluded_reid.config import Component, DataConfig, InputConfig, OptimConfig
from occluded_reid.contracts import FeatureMaps, HeadOutput, ModelOutput, Targets
from occluded_reid.data.cache import DecodedImages
from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.data.images import open_mask
from occluded_reid.data.loader import TrainLoader
from occluded_reid.errors import BuildError, DataError, EvaluationError, TrainingError
from occluded_reid.files import absolute, write_json
from occluded_reid.functional import smoothed_segmentation_loss
from occluded_reid.losses.criterion import LossValues
from occluded_reid.models import ReIDModel
from occluded_reid.parsing.label_maps import label_table
from occluded_reid.parsing.label_sets import label_set_named
from occluded_reid.parsing.labelled import LabelledImages
from occluded_reid.parsing.network import ParsingNetwork
from occluded_reid.parsing.recipe import ParserRecipe, load_parser_recipe
from occluded_reid.parsing.saved import load_parser_weights, save_parser
from occluded_reid.parsing.scores import ConfusionMatrix, ParsingScores
from occluded_reid.registry import PARSERS, check_options
from occluded_reid.training.processes import Processes, make_accelerator
from occluded_reid.training.state import EpochRecord, TrainResult
from occluded_reid.training.trainer import Trainer

__all__ = ["ParserResult", "evaluate_parser", "region_areas", "train_parser"]

_IGNORED = 255
_MEASURED = 2000  # training images on which the usual areas of the regions are measured
_BATCH = 64


@dataclass(frozen=True)
class ParserResult:
    """A trained parser.

    Attributes:
        training: history and places.
        scores: on the images that were held out; None where there were none.
        areas: region -> share of the image that it usually covers.
    """

    training: TrainResult
    scores: ParsingScores | None
    areas: Mapping[str, float]

    @property
    def parser(self) -> Path:
        """The parser folder: what `load_parser` and a recipe's ``model.parser.weights`` take."""
        return self.training.model

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON knows it."""
        scores = None if self.scores is None else self.scores.to_dict()
        return {**self.training.to_dict(), "scores": scores, "areas": dict(self.areas)}

    def summary(self) -> str:
        """Return a line on the training, and the scores."""
        areas = ", ".join(f"{name} {value:.3f}" for name, value in self.areas.items())
        lines = [self.training.summary(), f"usual area of the regions: {areas}"]
        return "\n".join([*lines, *([] if self.scores is None else [self.scores.format()])])


@checked(TrainingError)
def train_parser(
    recipe: str | Path | Mapping[str, Any] | ParserRecipe,
    data: ReIDData,
    output: str | Path,
    *,
    seed: int = 0,
    workers: int = 0,
    evaluate_every: int = 0,
    resume: bool = False,
    tensorboard: bool = False,
    checkpoint_every: float = 600.0,
    limit_bytes: int = 4 << 30,
    show: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> ParserResult:
    """Train every layer of a parsing network; the parser is left in ``output/model``.

    Args:
        recipe: "sgam_parser", "small_parser", a YAML file, a mapping, or a `ParserRecipe`.
        data: images with masks; it learns from the training split and is scored on queries and gallery.
        output: folder of the run: checkpoints, ``log.jsonl``, ``model/`` and ``scores.json``.
        seed: of first weights, order, augmentation and dropout.
        workers: processes that prepare batches; 0 prepares them in line.
        evaluate_every: epochs between evaluations on what is held out; 0 evaluates at the end only.
        resume: go on from the last checkpoint in `output`.
        tensorboard: write TensorBoard logs too.
        checkpoint_every: seconds between checkpoints within an epoch.
        limit_bytes: keep decoded images in memory up to this many bytes.
        show: draw a progress bar and print a line an epoch, on stderr.
        on_epoch: called with the record of each epoch when it is done.

    Raises:
        RecipeError: the recipe is not valid.
        BuildError: it names a parser that is no network, or one whose parts do not fit.
        DataError: the training split is empty or does not fill a batch.
        MaskError: a mask is missing, or its classes cannot be mapped to those of the parser.
        WeightsError: the first weights cannot be had.
        TrainingError, CheckpointError, NonFiniteLossError: as `train`.

    Example:
        ``train_parser("small_parser", load_dataset("market1501", "market/", masks="masks/", holdout=100), "runs/p")``
    """
    settings, output = load_parser_recipe(recipe), absolute(output, TrainingError)
    processes = Processes(make_accelerator(settings.optim.precision))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the same first weights in every process and every run
        parser = _create(settings)
    source = settings.data.labels or parser.label_set
    held_out = [sample for sample in (*data.query, *data.gallery) if sample.mask is not None]
    # Before the weights: what is wrong with the data should be said before they are fetched.
    loader = _make_loader(settings, parser, data, source, seed, workers, processes, limit_bytes)
    if not resume:
        _start_from(settings, parser)
    facts = {"recipe": settings.name, "data": data.name, "images": len(loader.samples), "masks": source, "seed": seed}
    task = _ParserTask(settings, parser.freeze(False), loader.images, facts)

    def scores(_: ReIDModel) -> dict[str, float]:
        found = evaluate_parser(parser, held_out, source)
        return {"mIoU": found.mean_iou, "pixel_accuracy": found.pixel_accuracy}

    trainer = Trainer(
        cast(ReIDModel, task),  # as far as the loop is concerned
        loader,
        output,
        processes=processes,
        seed=seed,
        evaluate=scores if held_out else None,
        evaluate_every=evaluate_every,
        best_by="mIoU" if held_out and evaluate_every else None,
        tensorboard=tensorboard,
        checkpoint_every=checkpoint_every,
        show=show,
        on_epoch=on_epoch,
    )
    training = trainer.fit(resume=resume)
    parser.freeze()
    final = evaluate_parser(parser, held_out, source) if held_out else None
    result = ParserResult(training, final, dict(zip(parser.names, parser.reference.tolist(), strict=True)))
    if processes.is_main:
        write_json(output / "scores.json", result.to_dict()["scores"], TrainingError)
    return result


@torch.no_grad()
def region_areas(parser: ParsingNetwork, images: Sequence[np.ndarray]) -> Tensor:
    """Return the usual area of each region, (R,): the median share of the image over the images where it is present.

    A region is present where its highest probability is above ½. One that is present nowhere keeps its old value.

    Args:
        parser: finds the regions.
        images: (H, W, 3) uint8, all of one size.
    """
    areas, present = [], []
    for start in range(0, len(images), _BATCH):
        pixels = torch.from_numpy(np.stack(images[start : start + _BATCH])).to(parser.reference.device)
        found = parser(pixels.permute(0, 3, 1, 2).float() / 255)
        areas.append(found.mean((2, 3)))
        present.append(found.amax((2, 3)) > 0.5)
    area, seen = torch.cat(areas), torch.cat(present)
    return torch.stack(
        [
            area[seen[:, r], r].median() if bool(seen[:, r].any()) else parser.reference[r]
            for r in range(len(parser.names))
        ]
    )


@checked(EvaluationError)
def evaluate_parser(
    parser: ParsingNetwork,
    samples: Sequence[Sample],
    labels: str | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ParsingScores:
    """Compare a parser with masks, at each image's own size.

    Args:
        parser: gives its own classes; the masks are mapped to them.
        samples: images with masks.
        labels: label set of the masks; None is that of the parser.
        progress: called with (done, total).

    Raises:
        DataError: there are no samples, or one has no mask.
        MaskError: a mask does not fit, or its classes cannot be mapped to those of the parser.
    """
    source = label_set_named(labels or parser.label_set)
    table = label_table(source.name, parser.label_set)
    if not samples or any(sample.mask is None for sample in samples):
        raise DataError("there is nothing to compare the parser with. Give images that have part masks.")
    matrix = ConfusionMatrix(label_set_named(parser.label_set).names, ignore=None if parser.background else 0)
    was_training = parser.training
    parser.eval()
    for start in range(0, len(samples), _BATCH):
        chunk = samples[start : start + _BATCH]
        parsed = parser.parse([sample.path for sample in chunk], [sample.name for sample in chunk])
        for sample, found in zip(chunk, parsed, strict=True):
            size = found.shape[1], found.shape[0]
            matrix.add(table[open_mask(cast(Path, sample.mask), size, source.classes)], found)
        if progress is not None:
            progress(start + len(chunk), len(samples))
    parser.train(was_training)
    return matrix.scores()


class _ParserTask(nn.Module):
    """A parser as the training loop knows models: forward pass, criterion, parameter groups, and a way to be saved."""

    num_classes = None
    heads: Mapping[str, nn.Module] = {}

    def __init__(
        self, recipe: ParserRecipe, parser: ParsingNetwork, images: DecodedImages, facts: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.recipe, self.parser = recipe, parser
        self._images, self._facts = images, facts

    def forward(self, images: Tensor, targets: Targets) -> ModelOutput:  # noqa: ARG002
        logits = self.parser.logits(images)
        if self.recipe.model.loss.at == "input":
            logits = nn.functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
        return ModelOutput(FeatureMaps({}, images), {"parser": HeadOutput(maps={"segmentation": logits})})

    def criterion(self, output: ModelOutput, targets: Targets) -> LossValues:
        loss = self.recipe.model.loss
        logits = output["parser"].maps["segmentation"]
        labels = cast(Tensor, targets.parsing)
        if labels.shape[1:] != logits.shape[2:]:
            # "nearest-exact" samples pixel centres, as image libraries do; "nearest" would shift the mask.
            smaller = nn.functional.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest-exact")
            labels = smaller[:, 0].long()
        if not self.parser.background:
            labels = torch.where(labels == 0, _IGNORED, labels - 1)
        value = smoothed_segmentation_loss(
            logits, labels, loss.smoothing, class_balanced=loss.class_balanced, ignore_index=_IGNORED
        )
        return LossValues(value, {"segmentation": value})

    def parameter_groups(self, optim: OptimConfig) -> list[dict[str, Any]]:
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.parser.named_parameters():
            scale = optim.backbone_scale if name.startswith("backbone.") else 1.0
            scale *= optim.bias_scale if name.endswith("bias") else 1.0
            groups.setdefault(scale, []).append(parameter)
        return [
            {"params": parameters, "lr": optim.lr * scale, "weight_decay": optim.weight_decay}
            for scale, parameters in groups.items()
            if scale > 0
        ]

    def save(self, folder: str | Path) -> None:
        was_training = self.training
        self.eval()
        chosen = np.unique(np.linspace(0, len(self._images) - 1, _MEASURED).round()).astype(int)
        self.parser.reference.copy_(region_areas(self.parser, [self._images[int(i)][0] for i in chosen]))
        self.train(was_training)
        save_parser(self.parser, folder, self._facts)


def _create(recipe: ParserRecipe) -> ParsingNetwork:
    factory = PARSERS.get(recipe.model.type)
    parser = factory(**check_options(factory, recipe.model.options, f"model.options of '{recipe.model.type}'"))
    if not isinstance(parser, ParsingNetwork):
        raise BuildError(
            f"'{recipe.model.type}' is no network that can be trained. Take one of those that are: deeplabv3, small."
        )
    return parser


def _start_from(recipe: ParserRecipe, parser: ParsingNetwork) -> None:
    model = recipe.model
    if model.weights is not None:
        load_parser_weights(parser, model.weights)
    elif model.backbone.weights is not None:
        parser.load_backbone(model.backbone.weights, model.backbone.weights_match)


def _make_loader(
    recipe: ParserRecipe,
    parser: ParsingNetwork,
    data: ReIDData,
    source: str,
    seed: int,
    workers: int,
    processes: Processes,
    limit_bytes: int,
) -> TrainLoader:
    height, width = parser.input_size
    swaps = label_set_named(parser.label_set).swaps
    augment = [
        Component(type="flip_labels", options={**component.options, "label_set": parser.label_set})
        if swaps and component.type == "flip"
        else component
        for component in recipe.data.augment
    ]
    images = LabelledImages(data.train, height, width, source=source, target=parser.label_set, limit_bytes=limit_bytes)
    return TrainLoader(
        data.train,
        classes=data.train_classes(),
        input=InputConfig(height=height, width=width, mean=parser.mean, std=parser.std),
        data=DataConfig(batch=recipe.data.batch, augment=augment),
        images=images,
        seed=seed,
        workers=workers,
        rank=processes.index,
        world_size=processes.count,
    )
