"""The training loop on Accelerate: one code path for a CPU, a GPU, and several processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from occluded_reid.arguments import checked
from occluded_reid.config import OptimConfig
from occluded_reid.contracts import Batch
from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import CheckpointError, OccludedReIDError, TrainingError
from occluded_reid.files import absolute
from occluded_reid.forked import require_threads
from occluded_reid.models import ReIDModel
from occluded_reid.models.provenance import Origin, TrainedOn
from occluded_reid.training.alone import Alone
from occluded_reid.training.average import WeightAverage
from occluded_reid.training.batches import Batches, make_loader
from occluded_reid.training.checkpoint import (
    Checkpoint,
    checkpoint_exists,
    read_checkpoint,
    replace_folder,
    write_checkpoint,
)
from occluded_reid.training.features import FEATURES, feature_cache, kept_features
from occluded_reid.training.first_stage import require_first_stage
from occluded_reid.training.interrupt import StopSignals
from occluded_reid.training.log import Journal, TrainingDisplay
from occluded_reid.training.optim import load_optimizer_state, make_optimizer, optimizer_state, rate_factor, set_rate
from occluded_reid.training.processes import Processes, make_accelerator
from occluded_reid.training.scoring import Scoring
from occluded_reid.training.state import EpochRecord, Place, TrainResult, describe_run, differences
from occluded_reid.training.step import Stepper
from occluded_reid.training.teacher import teacher_of

__all__ = ["Trainer"]


class Trainer:
    """Trains a model and keeps checkpoints; a run that was stopped or killed goes on to the same weights.

    The folder `output` gets ``last/`` (a checkpoint), ``best/`` (the model with the best score, for `load_model`),
    ``log.jsonl`` and, at the end, ``model/``. On a CPU a resumed run ends with the weights of an unbroken one bit for
    bit, given the same number of threads; on a GPU as far as torch's kernels are deterministic.

    With several processes (torchrun) each takes its share of every batch and gradients are averaged. As losses are
    means over the batch, that equals one process with the whole batch, except for batch normalisation, which sees the
    share; its running statistics are averaged. Other buffers are their head's own affair: process 0's are saved.

    A head may define ``prepare_training(model, loader)``: it is called once before epoch 1, and not on resume.

    Args:
        model: built for training; its recipe says how.
        data: a data set, whose training identities are the model's classes, or a loader of batches.
        output: folder of the run.
        processes: that train together, where the caller has made them for the recipe's precision; None makes them.
        seed: of order, augmentation and of what is random in a forward pass.
        workers: processes that prepare batches, where `data` is a data set.
        checkpoint_every: seconds between checkpoints within an epoch; every epoch ends with one.
        checkpoint_steps: a checkpoint after every so many steps of an epoch too.
        evaluate: returns scores of the model, higher is better.
        evaluate_every: epochs between evaluations; 0 for never. The last epoch is always evaluated if it is not 0.
        best_by: the score that decides the best model; None takes "mAP", or the first one where there is no "mAP".
        tensorboard: write TensorBoard logs to ``tensorboard/`` too.
        show: draw a progress bar and print a line an epoch, on stderr.
        on_epoch: called with the record of each epoch when it is done.

    Raises:
        BuildError: the model was built for inference.
        DataError: the training split is empty, has one identity, or does not fill a batch.
        MaskError: the recipe needs part masks and some are missing.
        TrainingError: the data set has another number of identities than the model has classes, or the batch of a
            process is one image, of which there is no batch normalisation.
        RecipeError: what is to learn alone at first is no parameter of the model.
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    @checked(TrainingError, but=("data", "model"))
    def __init__(
        self,
        model: ReIDModel,
        data: ReIDData | Batches,
        output: str | Path,
        *,
        processes: Processes | None = None,
        seed: int = 0,
        workers: int = 0,
        checkpoint_every: float = 600.0,
        checkpoint_steps: int | None = None,
        evaluate: Callable[[ReIDModel], dict[str, float]] | None = None,
        evaluate_every: int = 0,
        best_by: str | None = None,
        tensorboard: bool = False,
        show: bool = True,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        _ = model.criterion  # a model built for inference says so here
        self.model, self.output, self.seed = model, absolute(output, TrainingError), seed
        self.optim: OptimConfig = model.recipe.optim
        self.processes = processes or Processes(make_accelerator(self.optim.precision))
        if isinstance(data, ReIDData):
            if len(data.train_classes()) not in (0, model.num_classes):  # 0: the loader says what is wrong
                raise TrainingError(
                    f"'{data.name}' has {len(data.train_classes())} training identities; the model classifies "
                    f"{model.num_classes}. Build it with num_classes={len(data.train_classes())}."
                )
            model.trained_on = TrainedOn.of(data, model.trained_on)
            data = make_loader(
                data,
                model.recipe,
                model.preprocess.to(self.processes.device),
                seed=seed,
                workers=workers,
                rank=self.processes.index,
                world_size=self.processes.count,
                teacher=teacher_of(model.recipe.data.teacher, self.output),
            )
        self.loader: Batches = data
        _require_company(model, self.processes.count)
        self.checkpoint_every, self.checkpoint_steps = checkpoint_every, checkpoint_steps
        self.scoring = Scoring(evaluate, evaluate_every, self.optim.epochs, best_by, self.processes)
        self.on_epoch = on_epoch
        self.average: WeightAverage | None = None
        self.alone = None if self.optim.alone is None else Alone(model, self.optim.alone)
        self.history: list[EpochRecord] = []
        self.best: EpochRecord | None = None
        self._show = show and self.processes.is_main
        self._journal = Journal(self.output, tensorboard=tensorboard) if self.processes.is_main else None
        self._description = describe_run(model, self.loader, seed, self.processes.count)

    @checked(TrainingError)
    def fit(self, *, resume: bool = False) -> TrainResult:
        """Train to the last epoch of the recipe.

        On Ctrl-C the step in hand is finished, a checkpoint is saved, and KeyboardInterrupt raised; on a request to
        terminate (SIGTERM) the same, and the process exits with code 143. A second Ctrl-C stops at once.

        Args:
            resume: go on from the checkpoint in `output`.

        Raises:
            TrainingError: the folder cannot be written, holds a run and `resume` is off, or nothing can be learnt.
            CheckpointError: there is nothing to resume, it is damaged, of another run, or cannot be written.
            NonFiniteLossError: a loss is NaN or infinite; the weights are as before that batch.
        """
        require_threads("train", self.processes.device.type)
        self.model.to(self.processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model, self.optim)
        if self.optim.average is not None:
            self.average = WeightAverage(self.model, self.optim.average)
        place = self._together(self._restore if resume else self._begin)
        display = TrainingDisplay(self.optim.epochs, self.loader.steps_per_epoch, enabled=self._show)
        stepper = Stepper(self.model, self.optimizer, self.processes, self.optim, self.seed, display.note)
        samples = len(getattr(self.loader, "samples", ()))
        cache = feature_cache(self.model, self.output, samples, self.processes.index)
        try:
            with display, StopSignals() as stop:
                if self._journal is not None:
                    self._journal.open(self.history)
                if isinstance(self.model, ReIDModel):
                    for name in self.model.criterion.never(self.optim.epochs):
                        display.note(
                            f"loss '{name}' begins after the last epoch: it is computed and logged, and moves nothing"
                        )
                if not resume:
                    self._save(place)
                while place.epoch <= self.optim.epochs:
                    with kept_features(self.model, cache):
                        self._run_epoch(place, stepper, display, stop)
                    place = self._finish_epoch(place, display)
        except OccludedReIDError:
            if not resume and (place.epoch, place.step) == (1, 0) and self.processes.is_main:
                # What is wrong was found before anything was learnt: the folder is free for the next try.
                shutil.rmtree(self.output / "last", ignore_errors=True)
            raise
        finally:
            if self._journal is not None:
                self._journal.close()
            # As `load_model` gives it: another memory layout takes other kernels, which differ in the last bits.
            self.model.to(memory_format=torch.contiguous_format)
        self.model.eval()
        if self.average is not None:
            self.average.take_over()
        if self.processes.is_main:
            replace_folder(self.output / "model", self.model.save)
        self.processes.wait()
        if self.processes.is_main:  # nothing reads them any more
            shutil.rmtree(self.output / FEATURES, ignore_errors=True)
        return TrainResult(self.output, tuple(self.history), self.best, self.scoring.best_by)

    def _together(self, start: Callable[[], Place]) -> Place:
        """Start in every process, or in none: one that fails must not leave the others waiting for it."""
        failed: OccludedReIDError | None = None
        place = Place()
        try:
            place = start()
        except OccludedReIDError as error:
            failed = error
        (any_failed,), _ = self.processes.share([failed is not None])
        if failed is not None:
            raise failed
        if any_failed:
            raise TrainingError("another process could not start; its message says why.")
        return place

    def _begin(self) -> Place:
        require_first_stage(self.model)
        if self.processes.is_main:
            if checkpoint_exists(self.output / "last"):
                raise TrainingError(
                    f"'{self.output}' holds a run already. Go on with it (resume=True, --resume), or choose another "
                    "folder."
                )
            try:
                self.output.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TrainingError(
                    f"'{self.output}' cannot be made: {error.strerror}. Choose an output folder that may be written to."
                ) from error
        for head in self.model.heads.values():
            prepare = getattr(head, "prepare_training", None)
            if prepare is not None:
                prepare(self.model, self.loader)
        return Place()

    def _restore(self) -> Place:
        saved = read_checkpoint(self.output / "last")
        if found := differences(saved.progress["run"], self._description):
            raise CheckpointError(
                f"'{self.output}' is another run than the one asked for:\n  " + "\n  ".join(found) + "\n"
                "Resume with what it was started with, or choose another output folder."
            )
        try:
            self.model.load_state_dict(dict(saved.model))
        except RuntimeError as error:
            raise CheckpointError(
                f"'{self.output}' does not fit this model: {error}. Resume with the model that the run began with."
            ) from error
        load_optimizer_state(self.model, self.optimizer, saved.optimizer)
        if self.average is not None:
            self.average.load_state(saved.average)
        if self.processes.accelerator.scaler is not None and saved.progress["scaler"]:
            self.processes.accelerator.scaler.load_state_dict(saved.progress["scaler"])
        self.history = [EpochRecord(**record) for record in saved.progress["history"]]
        self.best = EpochRecord(**saved.progress["best"]) if saved.progress["best"] else None
        self.scoring.best_by = saved.progress["best_by"] or self.scoring.best_by
        if isinstance(self.model, ReIDModel) and "origin" in saved.progress:
            self.model.origin = Origin.from_dict(saved.progress["origin"])
            known = saved.progress["trained_on"]
            self.model.trained_on = self.model.trained_on if known is None else TrainedOn.from_dict(known)
        return Place(**saved.progress["place"])

    def _run_epoch(self, place: Place, stepper: Stepper, display: TrainingDisplay, stop: StopSignals) -> None:
        """Run the rest of an epoch; the place moves with every step."""
        stepper.network.train()
        stepper.alone = self.alone if self.alone is not None and place.epoch <= self.alone.epochs else None
        if stepper.alone is not None:
            stepper.alone.hold_layers()
        if isinstance(self.model, ReIDModel):
            self.model.criterion.epoch = place.epoch
        factor = rate_factor(self.optim, place.epoch)
        set_rate(self.optimizer, factor)
        display.start_epoch(place.epoch, place.step, self.optim.lr * factor)
        started = saved = time.monotonic()
        before = place.seconds
        with self._workers_alive(), _closing(self.loader.batches(place.epoch, skip=place.step)) as batches:
            batch = self._next(batches, stop)
            while batch is not None:
                values = stepper.backward(batch, place.epoch, place.step)
                upcoming = self._next(batches, stop)  # prepared on the CPU while the device still works
                due = self.processes.is_main and self._checkpoint_due(place.step + 1, time.monotonic() - saved)
                losses, (stopping, saving) = stepper.update(values, batch, [stop.received is not None, due])
                if isinstance(self.model, ReIDModel):
                    self.model.origin = replace(self.model.origin, trained=True, idle=stepper.idle)
                if self.average is not None:
                    self.average.update()
                place.add(losses, len(batch) * self.processes.count)
                place.seconds = before + time.monotonic() - started
                display.advance(place.step, place.images_per_second, place.losses)
                if stopping:
                    self._stop(place, display, stop)
                if saving:
                    self._save(place)
                    saved = time.monotonic()
                batch = upcoming
        if stop.received is not None and self.processes.count == 1:
            self._stop(place, display, stop)
        if not place.step:
            raise TrainingError(f"the loader gave no batch in epoch {place.epoch}. Use a smaller data.batch.")

    def _next(self, batches: Iterator[Batch], stop: StopSignals) -> Batch | None:
        try:
            return next(batches, None)
        except RuntimeError:
            # Ctrl-C reaches the workers too, and while they start, before they leave it to the parent, it ends them.
            if stop.received is not None and self.processes.count == 1:
                return None
            raise

    @contextmanager
    def _workers_alive(self) -> Iterator[None]:
        """Say what it means that a worker has died: PyTorch raises that wherever the main process is."""
        try:
            yield
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                f"a process that prepares batches has ended: {str(error).splitlines()[0].rstrip('. ')}. That is nearly "
                "always memory: the system's, or a container's /dev/shm. Use fewer of them (--workers; 0 prepares "
                "batches in line), a smaller data.batch, or more memory, and go on from the last checkpoint in "
                f"'{self.output}' with resume=True (--resume)."
            ) from error

    def _checkpoint_due(self, step: int, seconds: float) -> bool:
        return seconds > self.checkpoint_every or bool(self.checkpoint_steps and step % self.checkpoint_steps == 0)

    def _finish_epoch(self, place: Place, display: TrainingDisplay) -> Place:
        with self._averaged():
            scores = self.scoring.scores(self.model, place.epoch)
        record = EpochRecord(
            epoch=place.epoch,
            lr=self.optim.lr * rate_factor(self.optim, place.epoch),
            seconds=place.seconds,
            images_per_second=place.images_per_second,
            losses=place.losses,
            scores=scores,
        )
        self.history.append(record)
        if self.scoring.is_better(record, self.best):
            self.best = record
            if self.processes.is_main:
                with self._averaged():
                    replace_folder(self.output / "best", self.model.save)
        following = Place(place.epoch + 1)
        self._save(following)
        if self._journal is not None:
            self._journal.add(self.history)
        display.end_epoch(record)
        if self.on_epoch is not None:
            self.on_epoch(record)
        return following

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.applied()

    def _stop(self, place: Place, display: TrainingDisplay, stop: StopSignals) -> None:
        self._save(place)
        display.note(
            f"stopped after step {place.step} of epoch {place.epoch}; saved in {self.output / 'last'}. "
            "Go on with resume=True (--resume)."
        )
        stop.leave()

    def _save(self, place: Place) -> None:
        if self.processes.is_main:
            scaler = self.processes.accelerator.scaler
            trained_on: TrainedOn | None = getattr(self.model, "trained_on", None)
            progress = {
                "place": vars(place),
                "history": [record.to_dict() for record in self.history],
                "best": None if self.best is None else self.best.to_dict(),
                "best_by": self.scoring.best_by,
                "origin": self.model.origin.to_dict() if isinstance(self.model, ReIDModel) else None,
                "trained_on": None if trained_on is None else trained_on.to_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "run": self._description,
            }
            average = {} if self.average is None else self.average.state()
            state = Checkpoint(self.model.state_dict(), optimizer_state(self.model, self.optimizer), progress, average)
            write_checkpoint(self.output / "last", state)
        self.processes.wait()


def _require_company(model: ReIDModel, processes: int) -> None:
    """Refuse batches of one row where a layer normalises over the rows, before anything is computed."""
    data = model.recipe.data
    rows = data.batch // processes * (1 if getattr(data, "views", "single") == "single" else 2)
    alone = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm1d)]
    if rows == 1 and alone:
        share = "" if processes == 1 else f" for each of {processes} processes"
        raise TrainingError(
            f"data.batch={data.batch} leaves one image{share}, and batch normalisation ('{alone[0]}') compares images. "
            f"Use data.batch={2 * processes} or more."
        )


@contextmanager
def _closing(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """End the workers behind an iterator when the loop leaves it, not when the last traceback is forgotten."""
    try:
        yield batches
    finally:
        if isinstance(batches, Generator):
            batches.close()
