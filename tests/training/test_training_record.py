"""Training writes down whom the model was trained on, whoever starts it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from occluded_reid.models import load_model
from occluded_reid.models.provenance import TrainedOn
from occluded_reid.training import Trainer, train


def test_the_trainer_writes_it_down(tiny, tmp_path: Path) -> None:
    data = tiny.make_data(tmp_path)
    model = tiny.make_model(tiny.tiny_recipe())
    assert model.trained_on is None
    Trainer(model, data, tmp_path / "run", show=False)
    assert model.trained_on == TrainedOn.of(data)


def test_batches_of_unknown_origin_are_not_known(tiny, tmp_path: Path) -> None:
    data = tiny.make_data(tmp_path)
    loader = Trainer(tiny.make_model(tiny.tiny_recipe()), data, tmp_path / "run", show=False).loader
    model = tiny.make_model(tiny.tiny_recipe())
    Trainer(model, loader, tmp_path / "other", show=False)
    assert model.trained_on is None


def test_a_model_that_goes_on_elsewhere_keeps_what_it_saw(tiny, tmp_path: Path) -> None:
    first = tiny.make_data(tmp_path)
    result = train(tiny.tiny_recipe(**{"optim.epochs": 1, "optim.warmup_epochs": 0}), first, tmp_path / "a", show=False)
    model = load_model(result.model, num_classes=4)
    assert model.trained_on == TrainedOn.of(first)
    second = replace(first, name="second")
    again = train(model, second, tmp_path / "b", show=False)
    assert load_model(again.model).trained_on == TrainedOn.of(second, TrainedOn.of(first))
    assert load_model(again.model).trained_on.among("tiny", first.identities("train")) == first.identities("train")
