"""What was named as weights is used or said, and random values are never taken for a trained model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from occluded_reid import Gallery, ReIDModel, build_model, load_model
from occluded_reid.backbones import TimmBackbone
from occluded_reid.config import load_recipe
from occluded_reid.errors import CheckpointError, WeightsError
from occluded_reid.models.provenance import Origin

Build = Callable[..., ReIDModel]
NAME = "test_efficientnet"


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A file of weights, and one of its tensors."""
    torch.manual_seed(3)
    whole: Any = timm.create_model(NAME)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth", whole.conv_stem.weight


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What backbones were asked to load, instead of loading it."""
    asked: list[str] = []
    monkeypatch.setattr(TimmBackbone, "load_pretrained", lambda self, source, match="names": asked.append(source))
    return asked


def stem(model: ReIDModel) -> torch.Tensor:
    return model.backbone.network.conv_stem.weight  # type: ignore[union-attr, return-value]


def test_weights_that_an_override_names_are_loaded(tiny: Build, weights: tuple[Path, torch.Tensor]) -> None:
    model = tiny(None, **{"model.backbone.weights": str(weights[0])})
    assert torch.equal(stem(model), weights[1])
    assert model.origin == Origin("weights.pth", trained=False)


def test_weights_that_a_recipe_names_are_loaded(weights: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "name": "mine",
        "model": {
            "input": {"height": 96, "width": 32},
            "backbone": {"type": NAME, "weights": str(weights[0])},
            "heads": {"global": "global"},
        },
    }
    (tmp_path / "mine.yaml").write_text(str(content))
    for recipe in (content, load_recipe(content), tmp_path / "mine.yaml"):
        assert torch.equal(stem(build_model(recipe)), weights[1])
        assert not torch.equal(stem(build_model(recipe, pretrained=False)), weights[1]), "asked for random values"


def test_weights_that_are_named_and_missing_are_an_error(tiny: Build, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        tiny(None, **{"model.backbone.weights": str(tmp_path / "absent.pth")})


def test_the_hub_is_asked_where_somebody_has_named_it(
    fetched: list[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    small = {"model.backbone.type": NAME, "model.input.height": 96, "model.input.width": 32}
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        build_model("bot_lite", **small)
    assert fetched == []
    assert "are not fetched unasked: the backbone begins with random values" in caplog.text
    caplog.clear()
    build_model("bot_lite", **small, **{"model.backbone.weights": "hub"})
    build_model("bot_lite", **small, pretrained=True)
    content = load_recipe("bot_lite", small).model_dump(mode="json")
    build_model(content)
    assert fetched == ["hub"] * 3
    build_model("bot_lite", **small, pretrained=False)
    build_model("bot_lite", **small, **{"model.backbone.weights": None})
    assert len(fetched) == 3
    assert caplog.text == "", "nothing was named, or what is wanted was said"


@pytest.mark.parametrize("recipe", ["ocnet_ibn", "bot_ibn"])
def test_a_network_without_a_hub_does_not_begin_with_random_values_in_silence(
    recipe: str, caplog: pytest.LogCaptureFixture
) -> None:
    small = {"model.input.height": 64, "model.input.width": 32}
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        build_model(recipe, pretrained=False, **small)
        assert caplog.text == ""
        build_model(recipe, **small)
    assert "no hub has weights of 'resnet50_ibn_a'" in caplog.text
    assert "resnet50_ibn_a-….pth" in caplog.text
    with pytest.raises(WeightsError, match=r"no weights for 'resnet50_ibn_a'.*--weights FILE.*--weights none"):
        build_model(recipe, pretrained=True, **small)  # what `occluded-reid train` does


def test_a_gallery_says_once_that_its_model_was_never_trained(
    tiny: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny(None)
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        Gallery.create(tmp_path / "a", model=model).close()
        Gallery.open(tmp_path / "a", model=model).close()
    assert caplog.text.count("'sorn_lite' was never trained: all its weights are random values") == 1
    model.save(tmp_path / "model")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        loaded = load_model(tmp_path / "model")
        Gallery.open(tmp_path / "a", model=loaded).close()
    assert caplog.text.count("was never trained") == 1
    caplog.clear()
    model.origin = Origin(trained=True)
    model.save(tmp_path / "own")
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        assert load_model(tmp_path / "own").origin == Origin(trained=True)
    assert caplog.text == ""


def test_an_imagenet_backbone_is_no_trained_model(tiny: Build) -> None:
    model = tiny(None)
    model.origin = replace(model.origin, weights="hub")
    assert "its heads are random values and its backbone, from 'hub', has learnt no people" in model.cautions[0]


def test_where_it_comes_from_changes_nothing_of_what_a_model_is(tiny: Build) -> None:
    model = tiny(None)
    before = model.fingerprint
    model.origin = Origin("x.pth", trained=True, idle=("semantic",))
    assert model.fingerprint == before


@pytest.mark.parametrize("damage", [3, [], {"weights": 1, "trained": None, "idle": []}, {"idle": "x"}, {"idle": [1]}])
def test_a_damaged_record_is_refused(damage: Any) -> None:
    assert Origin.from_dict(None) == Origin()
    with pytest.raises(CheckpointError, match="where the model's weights come from"):
        Origin.from_dict(damage)
