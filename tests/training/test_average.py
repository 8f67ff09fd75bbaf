"""The moving average of the weights: its formula, what is saved, and a resumed run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from occluded_reid import load_model
from occluded_reid.contracts import Batch
from occluded_reid.errors import CheckpointError
from occluded_reid.training import Trainer
from occluded_reid.training.average import WeightAverage
from occluded_reid.training.batches import make_loader
from occluded_reid.training.checkpoint import read_checkpoint


def test_it_is_the_formula_over_every_step() -> None:
    layer = torch.nn.BatchNorm1d(2)
    average = WeightAverage(layer, 0.5)
    expected, generator = layer.running_mean.clone(), torch.Generator().manual_seed(0)
    for step in range(1, 8):
        layer.running_mean.copy_(torch.randn(2, generator=generator))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.running_mean
    own = layer.running_mean.clone()
    with average.applied():
        assert torch.allclose(layer.running_mean, expected)
    assert torch.equal(layer.running_mean, own), "its own weights are back"
    assert int(layer.num_batches_tracked) == 0, "counters are not averaged"


def test_what_was_saved_goes_on() -> None:
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    one, other = WeightAverage(first, 0.9), WeightAverage(second, 0.9)
    one.update()
    other.load_state(one.state())
    second.load_state_dict(first.state_dict())
    for average, layer in ((one, first), (other, second)):
        with torch.no_grad():
            layer.weight.add_(1.0)
        average.update()
    assert all(torch.equal(value, other.state()[name]) for name, value in one.state().items())
    with pytest.raises(CheckpointError, match="average of 0 tensors"):
        one.load_state({})


class Interrupted:
    """A loader that fails after some batches, as a machine might."""

    def __init__(self, loader: Any, after: int) -> None:
        self.loader, self.after = loader, after
        self.samples, self.steps_per_epoch = loader.samples, loader.steps_per_epoch

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        for batch in self.loader.batches(epoch, skip):
            if not self.after:
                raise KeyboardInterrupt
            self.after -= 1
            yield batch


def test_the_saved_model_is_the_average_and_a_resumed_run_ends_the_same(
    tmp_path: Path, data_folder: Path, tiny: ModuleType
) -> None:
    recipe = tiny.tiny_recipe(**{"optim.average": 0.9, "optim.epochs": 2})
    loader = make_loader(tiny.make_data(data_folder), recipe)

    def trainer(output: Path, batches: Any = loader) -> Trainer:
        return Trainer(tiny.make_model(recipe), batches, output, show=False, checkpoint_steps=1)

    trainer(tmp_path / "whole").fit()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "broken", Interrupted(loader, 6)).fit()
    trainer(tmp_path / "broken").fit(resume=True)
    whole, broken = load_model(tmp_path / "whole/model"), load_model(tmp_path / "broken/model")
    assert whole.fingerprint == broken.fingerprint
    checkpoint = read_checkpoint(tmp_path / "whole/last")
    name = next(key for key in checkpoint.average if key.endswith("weight"))
    assert torch.equal(whole.state_dict()[name], checkpoint.average[name])
    assert not torch.equal(checkpoint.model[name], checkpoint.average[name])
