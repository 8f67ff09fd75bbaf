"""From a recipe and a data set to a trained model, in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from occluded_reid.arguments import checked
from occluded_reid.config import Recipe
from occluded_reid.contracts import HeadInfo
from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import RecipeError, TrainingError
from occluded_reid.files import as_path
from occluded_reid.models import ReIDModel, build_model, load_model
from occluded_reid.models.build import find_recipe
from occluded_reid.models.provenance import TrainedOn
from occluded_reid.models.start import start_from
from occluded_reid.parsing.network import ParsingNetwork
from occluded_reid.registry import PARSERS
from occluded_reid.training.batches import make_loader
from occluded_reid.training.first_stage import go_on, load_first_stage, missing_first_stage
from occluded_reid.training.processes import Processes, make_accelerator
from occluded_reid.training.state import EpochRecord, TrainResult
from occluded_reid.training.teacher import require_teacher, teacher_of
from occluded_reid.training.trainer import Trainer

__all__ = ["train"]

_LOG = logging.getLogger(__name__)


@checked(TrainingError)
def train(
    recipe: str | Path | Mapping[str, Any] | Recipe | ReIDModel,
    data: ReIDData,
    output: str | Path,
    *,
    pretrained: bool | str | Path | None = None,
    start: str | Path | ReIDModel | None = None,
    seed: int = 0,
    workers: int = 0,
    evaluate: Callable[[ReIDModel], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    best_by: str | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    checkpoint_every: float = 600.0,
    checkpoint_steps: int | None = None,
    show: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    heads: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a recipe on a data set's training split; the model is left in ``output/model``.

    Args:
        recipe: a system's name, a YAML file, a mapping, a `Recipe`, or a model built for training.
        data: its training identities become the classes.
        output: folder of the run.
        pretrained: as `build_model`; without meaning for a model that is built already.
        start: a trained model, or its folder, to go on from with other people: backbone and heads are taken over, the
            classifiers made anew. Whom it was trained on stays on record. Without meaning on resume. A second stage
            (``optim.continues``: PCB's refined parts) takes its first stage's model, with the same people, and keeps
            the classifiers.
        seed: of first weights, order, augmentation and dropout.
        workers: processes that prepare batches; 0 prepares them in line.
        evaluate: returns scores of the model, higher is better. They choose ``output/best``: let them be of people who
            are not tested on, as ``load_dataset(…, validation=50)`` has them.
        evaluate_every: epochs between evaluations; 0 for never.
        best_by: the score that decides ``output/best``; None takes "mAP", or the first one.
        resume: go on from the last checkpoint in `output`.
        tensorboard: write TensorBoard logs too.
        checkpoint_every: seconds between checkpoints within an epoch.
        checkpoint_steps: a checkpoint after every so many steps of an epoch too.
        show: draw a progress bar and print a line an epoch, on stderr.
        on_epoch: called with the record of each epoch when it is done.
        heads: heads given as objects, as `build_model`.

    Returns:
        History, best epoch, and where the models are.

    Raises:
        RecipeError: the recipe is not valid, its masks do not fit its heads, or it is a second stage and there is no
            first one.
        DataError: the training split is empty, has one identity, or does not fill a batch.
        MaskError: the recipe needs part masks and some are missing.
        TrainingError: `output` holds another run, or cannot be written; `start` and `pretrained` are both given; or the
            batch of a process is one image, of which there is no batch normalisation.
        CheckpointError: there is nothing to resume, it is damaged or of another run, or cannot be written; or `start`
            is another network.
        NonFiniteLossError: a loss is NaN or infinite.

    Example:
        ``train("sorn_lite", load_dataset("market1501", "market/", masks="masks/"), "runs/sorn")``, then
        ``load_model("runs/sorn/model")``.
    """
    if start is not None and pretrained:
        raise TrainingError(
            f"training is to start from the model '{start}' and from weights of the backbone (pretrained="
            f"{pretrained!r}). Give one of the two."
        )
    settings = recipe.recipe if isinstance(recipe, ReIDModel) else find_recipe(recipe)
    second = settings.optim.continues is not None
    if second and start is None and not (resume or isinstance(recipe, ReIDModel)):
        raise missing_first_stage(settings)
    if second and not resume and isinstance(start, str | Path):
        origin: ReIDModel | str | Path | None = load_first_stage(start, data)
    else:
        origin = load_model(start) if isinstance(start, str | Path) and not resume else start
    processes = Processes(make_accelerator(settings.optim.precision))
    require_teacher(settings.data.teacher, [loss.type for loss in settings.model.losses.values()])
    # Before the model: what is wrong with the data should be said before weights are fetched.
    loader = make_loader(
        data,
        settings,
        seed=seed,
        workers=workers,
        rank=processes.index,
        world_size=processes.count,
        teacher=teacher_of(settings.data.teacher, as_path(output, TrainingError)),
    )
    if isinstance(recipe, ReIDModel):
        model = recipe
    else:
        _require_trained_parser(settings)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the same first weights in every process and every run
            model = build_model(
                recipe,
                num_classes=len(data.train_classes()),
                pretrained=False if resume or start is not None else pretrained,
                heads=heads,
            )
    _check_masks(model)
    if isinstance(origin, ReIDModel) and not resume:
        told = go_on(model, origin, data) if second else start_from(model, origin)
        if processes.is_main and show:
            _LOG.warning("%s", told)
    model.trained_on = TrainedOn.of(data, model.trained_on)
    if model.preprocess.crops:
        # Until now only the data were checked: what an image shows of a person is for the model's parser to say.
        loader.images.crop(model.preprocess.to(processes.device).boxes)
    trainer = Trainer(
        model,
        loader,
        output,
        processes=processes,
        seed=seed,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        best_by=best_by,
        tensorboard=tensorboard,
        checkpoint_every=checkpoint_every,
        checkpoint_steps=checkpoint_steps,
        show=show,
        on_epoch=on_epoch,
    )
    return trainer.fit(resume=resume)


def _require_trained_parser(recipe: Recipe) -> None:
    """A parser is not trained with the model: one with random weights would stay so, and nobody would notice."""
    parser = recipe.model.parser
    kind = None if parser is None else PARSERS.get(parser.type)
    if parser is not None and parser.weights is None and isinstance(kind, type) and issubclass(kind, ParsingNetwork):
        training = "small_parser" if parser.type == "small" else "sgam_parser"
        raise RecipeError(
            f"'{recipe.name}' asks the parser '{parser.type}' what is seen of a person; model.parser.weights names no "
            f"weights. Train one first: occluded-reid train-parser {training} --data IMAGES --masks MASKS --output "
            "PARSER; then give its folder: --set model.parser.weights=PARSER/model."
        )


def _check_masks(model: ReIDModel) -> None:
    """The classes of the masks and of a segmentation map must be the same numbers."""
    masks = model.recipe.data.masks
    for name, head in model.heads.items():
        info: HeadInfo = head.info  # type: ignore[assignment]
        segmentation = info.maps.get("segmentation")
        if segmentation is not None and masks and segmentation.channels != masks:
            raise RecipeError(
                f"data.masks is {masks}, but head '{name}' predicts {segmentation.channels} classes. "
                "Give both the same: 8, 5 or 2."
            )
