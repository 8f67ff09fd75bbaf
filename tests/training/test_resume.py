"""A run that is killed or interrupted goes on to the weights of an unbroken one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from occluded_reid.files import read_safetensors
from occluded_reid.training import Trainer, TrainResult


@pytest.fixture(scope="module")
def unbroken(tiny: ModuleType, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = Trainer(
        tiny.make_model(tiny.tiny_recipe(), dropout=0.3),
        tiny.make_data(data_folder),
        tmp_path_factory.mktemp("whole"),
        show=False,
    )
    result = trainer.fit()
    torch.set_num_threads(threads)
    return result


def assert_same_run(result: TrainResult, unbroken: TrainResult) -> None:
    first, second = (read_safetensors(r.output / "last" / "model.safetensors")[0] for r in (result, unbroken))
    assert first.keys() == second.keys()
    assert not [key for key in first if not torch.equal(first[key], second[key])]
    first, second = (read_safetensors(r.output / "last" / "optimizer.safetensors")[0] for r in (result, unbroken))
    assert not [key for key in first if not torch.equal(first[key], second[key])]
    assert [r.losses for r in result.history] == [r.losses for r in unbroken.history]
    assert (result.output / "log.jsonl").read_text().count("\n") == 3


def place_of(output: Path) -> dict[str, Any]:
    place: dict[str, Any] = json.loads((output / "last" / "checkpoint.json").read_text())["progress"]["place"]
    return place


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_in_the_middle_of_an_epoch(
    tiny: ModuleType, data_folder: Path, tmp_path: Path, run_script: Any, unbroken: TrainResult, workers: int
) -> None:
    """kill -9 before the fourth batch of epoch 2; a checkpoint was made after its second step."""
    options = {
        "data": data_folder,
        "output": tmp_path,
        "workers": workers,
        "dropout": 0.3,
        "stop": [2, 3, "SIGKILL"],
        "trainer": {"checkpoint_steps": 2},
    }
    done = run_script(options)
    assert done.returncode == -signal.SIGKILL, done.stderr
    place = place_of(tmp_path)
    assert (place["epoch"], place["step"]) == (2, 2)
    trainer = Trainer(
        tiny.make_model(tiny.tiny_recipe(), seed=7, dropout=0.3),  # whatever weights it starts with
        tiny.make_data(data_folder),
        tmp_path,
        workers=workers,
        show=False,
    )
    assert_same_run(trainer.fit(resume=True), unbroken)


def test_without_the_seeded_steps_it_would_be_another_run(
    tiny: ModuleType, data_folder: Path, tmp_path: Path, unbroken: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison can fail: dropout drawn from another generator gives other weights."""
    monkeypatch.setattr("occluded_reid.training.step.seeded_step", lambda *_: nullcontext())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer = Trainer(
            tiny.make_model(tiny.tiny_recipe(), dropout=0.3), tiny.make_data(data_folder), tmp_path, show=False
        )
        with pytest.raises(AssertionError):
            assert_same_run(trainer.fit(), unbroken)


@pytest.mark.parametrize("at", [(1, 0), (2, 2), (3, 3)])
def test_ctrl_c_saves_and_stops(
    tiny: ModuleType,
    data_folder: Path,
    tmp_path: Path,
    unbroken: TrainResult,
    capsys: pytest.CaptureFixture[str],
    at: tuple[int, int],
) -> None:
    recipe = tiny.tiny_recipe()
    loader = tiny.make_loader(tiny.make_data(data_folder), recipe)
    stopping = tiny.Stopping(loader, *at, signal.SIGINT)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Trainer(tiny.make_model(recipe, dropout=0.3), stopping, tmp_path).fit()
    assert signal.getsignal(signal.SIGINT) is handler
    place = place_of(tmp_path)
    assert place["epoch"] == at[0]
    assert place["step"] in (at[1], at[1] + 1)  # at most the batch that was being prepared is trained on
    assert f"saved in {tmp_path / 'last'}" in capsys.readouterr().err
    result = Trainer(tiny.make_model(recipe, seed=3, dropout=0.3), loader, tmp_path, show=False).fit(resume=True)
    assert_same_run(result, unbroken)


def test_a_second_ctrl_c_stops_at_once(tiny: ModuleType, data_folder: Path, tmp_path: Path) -> None:
    recipe = tiny.tiny_recipe()

    class Impatient(tiny.Stopping):  # type: ignore[misc, name-defined]
        def batches(self, epoch: int, skip: int = 0) -> Any:
            for batch in super().batches(epoch, skip):
                yield batch
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    loader = Impatient(tiny.make_loader(tiny.make_data(data_folder), recipe), 0, 0, 0)
    with pytest.raises(KeyboardInterrupt):
        Trainer(tiny.make_model(recipe, dropout=0.3), loader, tmp_path, show=False).fit()
    assert place_of(tmp_path)["step"] == 0  # the checkpoint made before the first step


def test_terminate_saves_and_exits_with_143(tiny: ModuleType, data_folder: Path, tmp_path: Path) -> None:
    recipe = tiny.tiny_recipe()
    loader = tiny.make_loader(tiny.make_data(data_folder), recipe, workers=1)
    with pytest.raises(SystemExit) as stopped:
        Trainer(
            tiny.make_model(recipe, dropout=0.3), tiny.Stopping(loader, 1, 2, signal.SIGTERM), tmp_path, show=False
        ).fit()
    assert stopped.value.code == 143
    assert place_of(tmp_path)["step"] in (2, 3)
