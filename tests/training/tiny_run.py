"""A training run small enough for tests; as a script it is the run that gets killed, interrupted or distributed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from occluded_reid.config import Recipe, load_recipe
from occluded_reid.contracts import Batch
from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.models import ReIDModel, build_model
from occluded_reid.training import Trainer
from occluded_reid.training.batches import make_loader
from occluded_reid.training.processes import Processes, make_accelerator


def tiny_recipe(**overrides: Any) -> Recipe:
    content = {
        "name": "tiny",
        "model": {
            "input": {"height": 64, "width": 32},
            "backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
            "heads": {
                "global": {"type": "global", "options": {"num_sets": 2, "set_width": 8}},
                "local": {"type": "local", "options": {"num_parts": 2}},
                "semantic": {"type": "semantic", "options": {"classes": 8, "widths": [8, 8]}},
            },
            "losses": {
                "local": {"type": "identity", "on": "local"},
                "global": {"type": "identity", "on": "global", "weight": 0.75},
                "spc": {"type": "spc", "on": "global", "weight": 0.5},
                "segmentation": {"type": "segmentation", "on": "semantic", "weight": 1.5},
            },
        },
        "data": {"batch": 8, "masks": 8, "augment": ["flip"]},
        "optim": {"epochs": 3, "lr": 1e-3, "warmup_epochs": 2, "clip_norm": 50.0},
    }
    return load_recipe(content, overrides)


def make_data(folder: Path, identities: int = 4, images: int = 8) -> ReIDData:
    """Coloured noise with part masks, an identity a colour."""
    generator = np.random.default_rng(0)
    samples = []
    for identity in range(identities):
        colour = generator.integers(40, 215, 3)
        for number in range(images):
            name = f"{identity:04d}_{number}.png"
            path, mask = folder / "images" / name, folder / "masks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                noise = generator.integers(-40, 40, (64, 32, 3))
                Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path)
                Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8), 8)[:, None].repeat(32, 1)).save(mask)
            samples.append(Sample(name, path, f"{identity:04d}", number % 2, mask=mask))
    return ReIDData("tiny", folder, train=tuple(samples))


def make_model(recipe: Recipe, num_classes: int = 4, seed: int = 0, dropout: float = 0.0) -> ReIDModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(recipe, num_classes=num_classes)
    if dropout:
        model.heads["global"].project.append(torch.nn.Dropout(dropout))  # type: ignore[union-attr, operator]
    return model


def keep_statistics(model: torch.nn.Module) -> None:
    """Hold batch normalisation in evaluation mode whatever mode the model is put in."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]


class Stopping:
    """A loader that sends a signal to its own process before it gives a batch."""

    def __init__(self, loader: Any, epoch: int, step: int, number: int) -> None:
        self.loader, self.at, self.number = loader, (epoch, step), number
        self.samples, self.steps_per_epoch = loader.samples, loader.steps_per_epoch

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(self.loader.batches(epoch, skip), start=skip):
            if (epoch, step) == self.at:
                os.kill(os.getpid(), self.number)
            yield batch


def main(options: dict[str, Any]) -> None:
    recipe = tiny_recipe(**options.get("overrides", {}))
    processes = Processes(make_accelerator("no"))
    torch.set_num_threads(1)
    data = make_data(Path(options["data"]))
    place = {"rank": processes.index, "world_size": processes.count}
    loader: Any = make_loader(data, recipe, workers=options.get("workers", 0), **place)
    if "stop" in options:
        epoch, step, name = options["stop"]
        loader = Stopping(loader, epoch, step, getattr(signal, name))
    model = make_model(recipe, dropout=options.get("dropout", 0.0))
    if options.get("frozen_statistics"):
        keep_statistics(model)
    Trainer(model, loader, options["output"], **options.get("trainer", {})).fit(resume=options.get("resume", False))


if __name__ == "__main__":
    for run in json.loads(sys.argv[1]):
        main(run)
