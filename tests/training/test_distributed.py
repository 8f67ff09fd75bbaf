"""Two processes on gloo against one process."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from occluded_reid.files import read_safetensors
from occluded_reid.training import Trainer
from occluded_reid.training.optim import make_optimizer
from occluded_reid.training.processes import Processes

# SGD moves in proportion to the gradient. Adam divides by its size, so where the true gradient is 0 it turns the last
# bits of a sum, which depend on the order of addition, into whole steps; no tolerance on weights would mean anything.
SGD = {"optim.type": "sgd", "optim.lr": 0.05, "optim.epochs": 2}


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_safetensors(folder / "last" / "model.safetensors")[0]


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], start: Any) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.allclose(value, second[key], rtol=1e-5, atol=1e-5), (key, (value - second[key]).abs().max())
    moved = [float((v - start.state_dict()[k]).abs().max()) for k, v in first.items() if v.is_floating_point()]
    assert max(moved) > 1e-2  # far more than the tolerance


@pytest.fixture(scope="module")
def two_processes(data_folder: Path, tmp_path_factory: pytest.TempPathFactory, run_script: Any) -> Path:
    """All runs with two processes, in one launch: starting is what takes time."""
    folder = tmp_path_factory.mktemp("two")

    def run(name: str, **options: Any) -> dict[str, Any]:
        return {"data": data_folder, "output": folder / name, "overrides": SGD, **options}

    one_epoch = {"overrides": {**SGD, "optim.epochs": 1}}
    idle = {"overrides": {**SGD, "model.losses.segmentation": None}}
    done = run_script(
        run("frozen", frozen_statistics=True),
        run("training"),
        run("resumed", **one_epoch),
        run("resumed", resume=True),
        run("idle", **idle),
        processes=2,
    )
    (folder / "stderr").write_text(done.stderr)
    assert (folder / "idle").exists(), done.stderr
    return folder


def test_frozen_statistics_equal_one_process(
    tiny: ModuleType, data_folder: Path, tmp_path: Path, two_processes: Path
) -> None:
    recipe = tiny.tiny_recipe(**SGD)
    model = tiny.make_model(recipe)
    tiny.keep_statistics(model)
    result = Trainer(model, tiny.make_data(data_folder), tmp_path, show=False).fit()
    assert_close(state_of(two_processes / "frozen"), state_of(tmp_path), tiny.make_model(recipe))
    history = (two_processes / "frozen" / "log.jsonl").read_text()
    totals = [json.loads(line)["losses"]["total"] for line in history.splitlines()]
    assert totals == pytest.approx([record.losses["total"] for record in result.history], rel=1e-5)


def test_training_statistics_equal_the_half_batches_apart(
    tiny: ModuleType, data_folder: Path, two_processes: Path
) -> None:
    """One process that runs the two halves from the same weights, averages gradients, and averages statistics."""
    recipe = tiny.tiny_recipe(**SGD)
    model = tiny.make_model(recipe).train()
    optimizer = make_optimizer(model, recipe.optim)
    data = tiny.make_data(data_folder)
    loaders = [tiny.make_loader(data, recipe, rank=rank, world_size=2) for rank in (0, 1)]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for epoch in (1, 2):
        for group in optimizer.param_groups:
            group["lr"] = recipe.optim.lr * (0.1 if epoch == 1 else 1.0)
        for halves in zip(*(loader.batches(epoch) for loader in loaders), strict=True):
            assert len(halves[0]) == 4
            gradients, statistics = [], []
            before = [(m.running_mean.clone(), m.running_var.clone(), m.num_batches_tracked.clone()) for m in norms]
            for half in halves:
                for module, (mean, variance, count) in zip(norms, before, strict=True):
                    module.running_mean.copy_(mean)
                    module.running_var.copy_(variance)
                    module.num_batches_tracked.copy_(count)
                total = model.criterion(model(half.images, half.targets), half.targets).total
                gradients.append(torch.autograd.grad(total, list(model.parameters())))
                statistics.append([(m.running_mean.clone(), m.running_var.clone()) for m in norms])
            for parameter, one, two in zip(model.parameters(), *gradients, strict=True):
                parameter.grad = (one + two) / 2
            for module, one, two in zip(norms, *statistics, strict=True):
                module.running_mean.copy_((one[0] + two[0]) / 2)
                module.running_var.copy_((one[1] + two[1]) / 2)
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip_norm)
            optimizer.step()
    assert_close(state_of(two_processes / "training"), dict(model.state_dict()), tiny.make_model(recipe))


def test_resumed_by_two_processes(two_processes: Path) -> None:
    first, second = state_of(two_processes / "resumed"), state_of(two_processes / "training")
    assert not [key for key in first if not torch.equal(first[key], second[key])]


def test_idle_parameters_stop_several_processes(two_processes: Path) -> None:
    message = (two_processes / "stderr").read_text()
    assert "no loss reaches" in message
    assert "With several processes every trained parameter needs a gradient" in message
    assert not (two_processes / "idle" / "model").exists()


def test_one_process_agrees_with_itself() -> None:
    class One:
        num_processes, process_index, device = 1, 0, torch.device("cpu")

    processes = Processes(One())
    assert processes.share([True, False], [1.5]) == ([True, False], [1.5])
    assert processes.tell("text") == "text"
    assert processes.is_main
