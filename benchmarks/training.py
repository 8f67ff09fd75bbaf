"""Where a training step goes: the arithmetic alone, in turns with `train` as it is, with and without workers.

    python benchmarks/training.py                                # sorn_lite, with part masks, on drawn people
    python benchmarks/training.py --model bot_lite --threads 2 --workers 0 1 2

*The arithmetic* is what anybody's loop must do for these batches: forward pass, losses, backward pass, the optimiser's
step, on batches that lie ready in memory. Everything else is this library's: drawing and decoding, checks, the norm of
the gradients, means of the losses, the progress line. Each is one epoch, after one that is not measured; medians of the
turns. The goal is 0.9 of the arithmetic, and that the network never waits for data.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from occluded_reid import ReIDModel, build_model, load_dataset
from occluded_reid.contracts import Batch
from occluded_reid.data.loader import TrainLoader
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.training import Trainer
from occluded_reid.training.batches import make_loader
from occluded_reid.training.optim import make_optimizer
from occluded_reid.training.step import TrainingStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sorn_lite", help="name of a recipe")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--people", type=int, default=40, help="drawn people, of twelve images each")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        drawn = generate(
            Path(folder) / "people", SyntheticOptions(train_identities=arguments.people, test_identities=2)
        )
        data = load_dataset("synthetic", drawn)
        model = build_model(arguments.model, num_classes=len(data.train_classes()), pretrained=False)
        loaders = {n: make_loader(data, model.recipe, model.preprocess, workers=n) for n in arguments.workers}
        turns: list[dict[str, dict[str, float]]] = []
        for turn in range(arguments.turns + 1):
            found = {"the arithmetic": arithmetic(model, list(loaders[arguments.workers[0]].batches(1)))}
            for workers, loader in loaders.items():
                found[f"train, {workers} workers"] = training(model, loader, Path(folder) / f"run-{turn}-{workers}")
            if turn:
                turns.append(found)
    figures = {
        name: {key: statistics.median(turn[name][key] for turn in turns) for key in turns[0][name]} for name in turns[0]
    }
    print(table(figures, f"{arguments.model}, {model.recipe.data.batch} images a batch, {arguments.threads} thread(s)"))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def arithmetic(model: ReIDModel, batches: list[Batch]) -> dict[str, float]:
    """One epoch of a bare loop, in the memory layout that training has."""
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer, step = make_optimizer(model, model.recipe.optim), TrainingStep(model)
    started = time.perf_counter()
    for batch in batches:
        values = step(batch.images, batch.targets)
        values.total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    return {
        "images a second": sum(len(batch) for batch in batches) / seconds,
        "ms a step": 1000 * seconds / len(batches),
    }


class Watched:
    """A loader that notes how long the loop waits for each of its batches."""

    def __init__(self, loader: TrainLoader) -> None:
        self.loader, self.samples, self.steps_per_epoch = loader, loader.samples, loader.steps_per_epoch
        self.first, self.waited = 0.0, 0.0

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The loader's own batches."""
        batches, self.waited = self.loader.batches(epoch, skip), 0.0
        for step in range(self.steps_per_epoch):
            started = time.perf_counter()
            batch = next(batches)
            taken = time.perf_counter() - started
            if step:
                self.waited += taken
            else:
                self.first = taken  # with the start of the workers
            yield batch
        next(batches, None)


def training(model: ReIDModel, loader: TrainLoader, output: Path) -> dict[str, float]:
    """One epoch as `train` does it; what it writes at the ends of epochs is not part of a step."""
    recipe = model.recipe.override({"optim.epochs": 1})
    model.recipe, before = recipe, model.recipe
    watched = Watched(loader)
    with contextlib.redirect_stderr(io.StringIO()):
        record = Trainer(model, watched, output, checkpoint_every=1e9).fit().history[-1]  # type: ignore[arg-type]
    model.recipe = before
    steps: float = watched.steps_per_epoch
    return {
        "images a second": record.images_per_second,
        "ms a step": 1000 * record.seconds / steps,
        "ms waiting for data": 1000 * watched.waited / (steps - 1),
        "ms until the first batch": 1000 * watched.first,
    }


def table(figures: dict[str, dict[str, Any]], title: str) -> str:
    """Markdown, each line as a share of the arithmetic."""
    whole = figures["the arithmetic"]["images a second"]
    lines = [
        f"| {title} | images a second | of the arithmetic | ms a step | of it for data | ms until the first batch |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in figures.items():
        waiting, first = (found.get(key) for key in ("ms waiting for data", "ms until the first batch"))
        cells = [
            f"{found['images a second']:.1f}",
            f"{found['images a second'] / whole:.2f}",
            f"{found['ms a step']:.0f}",
        ]
        cells += ["" if value is None else f"{value:.0f}" for value in (waiting, first)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
