"""Going on from a trained model, batches of one, and workers that die."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import CheckpointError, TrainingError
from occluded_reid.models import build_model, load_model
from occluded_reid.models.start import start_from
from occluded_reid.training import Trainer, train


@pytest.fixture
def data(tiny: ModuleType, data_folder: Path) -> ReIDData:
    made: ReIDData = tiny.make_data(data_folder)
    return made


@pytest.fixture
def before(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> Path:
    """A model trained on four people."""
    return train(tiny.tiny_recipe(**{"optim.epochs": 1}), data, tmp_path / "before", show=False).model


def others(data: ReIDData, people: int = 3) -> ReIDData:
    known = data.identities("train")[:people]
    train = tuple(s for s in data.train if s.identity in known)
    return replace(data, name="others", train=train)


def test_a_run_starts_from_a_trained_model_with_other_people(
    tiny: ModuleType, data: ReIDData, before: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny.tiny_recipe(**{"optim.epochs": 1, "optim.lr": 1e-12, "optim.weight_decay": 0.0})
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        result = train(recipe, others(data), tmp_path / "after", start=before)
    assert "made anew: the classifiers, for other people" in caplog.text
    first, second = load_model(before), load_model(result.model, num_classes=3)
    for key, value in first.named_parameters():
        torch.testing.assert_close(dict(second.named_parameters())[key], value, atol=1e-6, rtol=0, msg=key)
    assert second.heads["global"].classifier.weight.shape[0] == 3  # type: ignore[union-attr, index]
    assert second.trained_on is not None
    assert second.trained_on.names == ("others", data.name)
    assert second.trained_on.among(data.name, data.identities("train")) == data.identities("train")


def test_it_is_resumed_without_the_model_it_started_from(
    tiny: ModuleType, data: ReIDData, before: Path, tmp_path: Path
) -> None:
    recipe, fewer = tiny.tiny_recipe(**{"optim.epochs": 2}), others(data)
    whole = train(recipe, fewer, tmp_path / "whole", start=before, show=False)

    def stop(record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, fewer, tmp_path / "part", start=before, show=False, on_epoch=stop)
    part = train(recipe, fewer, tmp_path / "part", resume=True, show=False)
    assert load_model(part.model).fingerprint == load_model(whole.model).fingerprint
    resumed = load_model(part.model).trained_on
    assert resumed is not None
    assert resumed.names == ("others", data.name)


def test_another_network_is_refused_with_both_shapes(tiny: ModuleType, before: Path) -> None:
    recipe = tiny.tiny_recipe(**{"model.heads.global.options.set_width": 16})
    with pytest.raises(CheckpointError, match=r"'heads\.global.*' is \(16.*\) there, \(32.*\) here"):
        start_from(build_model(recipe, num_classes=3), load_model(before))
    fewer = build_model(
        tiny.tiny_recipe(**{"model.heads.semantic": None, "model.losses.segmentation": None}), num_classes=3
    )
    with pytest.raises(CheckpointError, match=r"'heads\.semantic.*' is \(.*\) there, nothing here"):
        start_from(fewer, load_model(before))


def test_a_model_and_weights_of_the_backbone_are_one_too_many(
    tiny: ModuleType, data: ReIDData, before: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="Give one of the two"):
        train(tiny.tiny_recipe(), data, tmp_path / "x", start=before, pretrained=True)


def test_a_batch_of_one_image_is_refused_before_anything_is_computed(
    tiny: ModuleType, data: ReIDData, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"data\.batch=1 leaves one image, and batch normalisation \('heads\..*'\)"):
        train(tiny.tiny_recipe(**{"data.batch": 1}), data, tmp_path / "run", show=False)
    assert not (tmp_path / "run" / "last").exists()


def test_a_last_batch_of_one_image_is_named(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    recipe = tiny.tiny_recipe()
    loader = tiny.make_loader(data, recipe)

    class Uneven:
        steps_per_epoch = 1

        def batches(self, epoch: int, skip: int = 0) -> Any:
            batch = next(loader.batches(epoch))
            rows = torch.tensor([0])
            targets = replace(
                batch.targets,
                **{
                    key: None if value is None else (value[:1] if isinstance(value, tuple) else value[rows])
                    for key, value in vars(batch.targets).items()
                },
            )
            yield type(batch)(batch.images[rows], targets)

    with pytest.raises(TrainingError, match=r"a batch of 1 rows \(.*png\) is too small for batch normalisation"):
        Trainer(tiny.make_model(recipe), Uneven(), tmp_path / "run", show=False).fit()


WORKER_DIES = """
import os, signal, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import tiny_run as tiny

recipe = tiny.tiny_recipe()
loader = tiny.make_loader(tiny.make_data(Path(sys.argv[2])), recipe, workers=1)

class Dies(type(loader._views)):
    def __getitem__(self, part):
        os.kill(os.getpid(), signal.SIGKILL)

loader._views.__class__ = Dies
tiny.Trainer(tiny.make_model(recipe), loader, sys.argv[3], show=False).fit()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_a_worker_that_is_killed_is_explained(data_folder: Path, tmp_path: Path) -> None:
    """In a process of its own: torch watches for dead workers by a handler of signals, which outlives a test."""
    command = [sys.executable, "-c", WORKER_DIES, str(Path(__file__).parent), str(data_folder), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert re.search(r"TrainingError: .*prepares batches has ended: DataLoader worker .*Use fewer", done.stderr)


WORKER_DIES_IN_A_STEP = """
import multiprocessing, os, signal, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import tiny_run as tiny

recipe = tiny.tiny_recipe()
loader = tiny.make_loader(tiny.make_data(Path(sys.argv[2])), recipe, workers=1)
model = tiny.make_model(recipe)

def backbone(*_):
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, getattr(signal, sys.argv[4]))
    time.sleep(0.5)

model.backbone.register_forward_hook(backbone)
tiny.Trainer(model, loader, sys.argv[3], show=False).fit()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_a_worker_that_is_killed_in_the_middle_of_a_step(data_folder: Path, tmp_path: Path) -> None:
    """PyTorch raises in the main process wherever that is."""
    where = [str(Path(__file__).parent), str(data_folder), str(tmp_path / "run")]
    command = [sys.executable, "-c", WORKER_DIES_IN_A_STEP, *where]
    done = subprocess.run([*command, "SIGKILL"], capture_output=True, text=True, timeout=120, check=False)
    assert re.search(r"TrainingError: .*prepares batches has ended: DataLoader worker .*Use fewer", done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_workers_leave_stopping_to_the_parent(data_folder: Path, tmp_path: Path, name: str) -> None:
    """As when a service manager terminates every process of a job: no batch is lost by it."""
    where = [str(Path(__file__).parent), str(data_folder), str(tmp_path / "run")]
    command = [sys.executable, "-c", WORKER_DIES_IN_A_STEP, *where, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_head_that_no_loss_reaches_is_remembered_and_its_visibility_called_untrained(
    tiny: ModuleType, data: ReIDData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny.tiny_recipe(**{"data.masks": 0, "model.losses.segmentation": None, "optim.epochs": 1})
    result = train(recipe, data, tmp_path / "run", show=False)
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        model = load_model(result.model)
    assert model.origin.trained
    assert model.origin.idle == ("semantic",)
    (told,) = model.cautions
    assert told.startswith("visibility of part_1, part_2: not trained.")
    assert "occluded-reid parse" in told
    assert told in caplog.text
    whole = train(tiny.tiny_recipe(**{"optim.epochs": 1}), data, tmp_path / "whole", show=False)
    assert load_model(whole.model).cautions == ()
    assert json.loads((whole.model / "model.json").read_text())["origin"]["trained"] is True
