"""PCB's second stage: the part classifier alone, then everything, from a first stage with the same people."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from occluded_reid import load_model, load_recipe
from occluded_reid.config import Recipe
from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import CheckpointError, RecipeError
from occluded_reid.files import read_safetensors
from occluded_reid.models import build_model
from occluded_reid.training import Trainer, train

SMALL: dict[str, Any] = {
    "model.input.height": 96,
    "model.input.width": 32,
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
    "model.heads.local.options.reduction": 8,
    "data.batch": 8,
}
SECOND = {**SMALL, "optim.alone.epochs": 1, "optim.epochs": 2, "optim.lr": 1e-2}


@pytest.fixture(scope="module")
def data(tiny: ModuleType, data_folder: Path) -> ReIDData:
    made: ReIDData = tiny.make_data(data_folder)
    return made


@pytest.fixture(scope="module")
def first(data: ReIDData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = load_recipe("pcb_lite", {**SMALL, "optim.epochs": 2, "optim.warmup_epochs": 0, "optim.steps": {}})
    torch.set_num_threads(1)
    return train(recipe, data, tmp_path_factory.mktemp("first"), show=False).model


def second(**overrides: Any) -> Recipe:
    return load_recipe("pcb_rpp_lite", {**SECOND, **overrides})


def tensors(folder: Path) -> dict[str, Tensor]:
    return read_safetensors(folder / "model.safetensors")[0]


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("published", ["pcb", "pcb_lite"])
def test_the_two_recipes_are_one_network(published: str) -> None:
    one, two = load_recipe(published), load_recipe(published.replace("pcb", "pcb_rpp"))
    assert two.optim.continues == published
    assert two.optim.lr == pytest.approx(one.optim.lr / 10)
    assert two.optim.alone is not None
    assert two.optim.alone.epochs * 2 == two.optim.epochs
    assert two.data == one.data
    options = dict(two.model.heads["local"].options)
    assert options.pop("partition") == "refined"
    assert options == one.model.heads["local"].options
    assert two.model.losses == one.model.losses


def test_the_part_classifier_learns_alone_and_then_everything(
    data: ReIDData, first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[dict[str, Tensor]] = []
    before = tensors(first)
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        result = train(
            second(**{"optim.epochs": 3, "optim.alone.epochs": 2}),
            data,
            tmp_path / "run",
            start=first,
            on_epoch=lambda _: states.append(tensors(tmp_path / "run" / "last")),
        )
    assert "classifiers included; new: heads.local.part_classifier.weight" in caplog.text
    assert any(key.startswith("heads.local.classifiers.") for key in before)
    for state in states[:2]:  # weights, classifiers, running statistics: all as the first stage left them
        assert moved(before, state) == set()
    assert moved(states[0], states[1]) == {"heads.local.part_classifier.weight"}
    assert states[0]["heads.local.part_classifier.weight"].any()
    learnt = {key for key in moved(before, states[2]) if not key.endswith("num_batches_tracked")}
    statistics = {key for key in before if "running_" in key}
    parameters = {name for name, _ in load_model(first, num_classes=4).named_parameters()}
    assert statistics | parameters <= learnt
    model = load_model(result.model)
    assert model.origin.trained
    assert model.trained_on is not None
    assert model.trained_on.before is None, "the same people once"
    maps = model.infer(model.preprocess([sample.path for sample in data.train[:2]]))["local"].maps["parts"]
    torch.testing.assert_close(maps.sum(1), torch.ones_like(maps[:, 0]))


def test_a_run_that_was_stopped_in_the_first_epochs_goes_on_to_the_same_weights(
    data: ReIDData, first: Path, tmp_path: Path
) -> None:
    whole = train(second(), data, tmp_path / "whole", start=first, show=False)

    def stop(record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(second(), data, tmp_path / "part", start=first, show=False, on_epoch=stop)
    part = train(second(), data, tmp_path / "part", resume=True, show=False)  # without the first stage
    assert moved(tensors(whole.model), tensors(part.model)) == set()


def test_without_a_first_stage_it_says_what_to_do(data: ReIDData, tmp_path: Path) -> None:
    words = r"Train the first one: occluded-reid train pcb_lite --data DATA --output RUN; then.*--from RUN/model"
    with pytest.raises(
        RecipeError, match=rf"is a second stage of training, and no model is given to go on from\. {words}"
    ):
        train(second(), data, tmp_path / "none", show=False)
    untrained = build_model(second(), num_classes=4)
    with pytest.raises(RecipeError, match=rf"the model 'pcb_rpp_lite' was never trained\. {words}"):
        Trainer(untrained, data, tmp_path / "untrained", show=False).fit()
    stranger = build_model(load_recipe("pcb_lite", SMALL), num_classes=4)
    with pytest.raises(RecipeError, match="'pcb_lite' to go on from was never trained"):
        train(second(), data, tmp_path / "stranger", start=stranger, show=False)


def test_other_people_other_networks_and_models_without_classifiers_are_refused(
    data: ReIDData, first: Path, tmp_path: Path
) -> None:
    people = data.identities("train")[:3]
    fewer = replace(data, train=tuple(s for s in data.train if s.identity in people))
    with pytest.raises(CheckpointError, match=r"on 4 people of 'tiny', and is to go on with 3 of 'tiny'"):
        train(second(), fewer, tmp_path / "fewer", start=first, show=False)
    with pytest.raises(CheckpointError, match=r"loaded for inference, without classifiers.*num_classes=4"):
        train(second(), data, tmp_path / "bare", start=load_model(first), show=False)
    other = second(**{"model.heads.local.options.reduction": 16})
    with pytest.raises(CheckpointError, match=r"(?s)another network.*Train its first stage with the recipe 'pcb_lite'"):
        train(other, data, tmp_path / "other", start=first, show=False)
    result = train(second(), data, tmp_path / "loaded", start=load_model(first, num_classes=4), show=False)
    assert result.history[-1].epoch == 2
    with pytest.raises(RecipeError, match="'pcb_rpp_lite' to go on from is a second stage itself"):
        train(second(), data, tmp_path / "twice", start=result.model, show=False)


def test_what_is_to_learn_alone_must_be_there(data: ReIDData, first: Path, tmp_path: Path) -> None:
    wrong = second(**{"optim.alone.parts": ["heads.local.part_clasifier"]})
    with pytest.raises(RecipeError, match=r"begins with 'heads.local.part_clasifier'. Did you mean 'heads.local.part_"):
        Trainer(build_model(wrong, num_classes=4), data, tmp_path, show=False)
    with pytest.raises(RecipeError, match=r"alone.epochs is 5, and there are 2 epochs"):
        second(**{"optim.alone.epochs": 5})
