"""Weights of other projects in whole models: the normalisation after the pool goes to the head that has one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from occluded_reid import build_model, load_model
from occluded_reid.errors import RecipeError
from occluded_reid.models import ReIDModel

FAST_REID = {"type": "resnet18", "options": {"last_stride": 1, "stem": "unpadded"}}


def tiny(backbone: dict[str, Any], head: Any, **more: Any) -> ReIDModel:
    torch.manual_seed(0)
    model = {"input": {"height": 64, "width": 32}, "backbone": backbone, "heads": {"global": head}}
    return build_model({"name": "tiny", "model": model}, **more)


def normalisation(prefix: str, width: int) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {
        f"{prefix}weight": torch.rand(width) + 0.5,
        f"{prefix}bias": torch.zeros(width),
        f"{prefix}running_mean": torch.randn(width),
        f"{prefix}running_var": torch.rand(width) + 0.5,
        f"{prefix}num_batches_tracked": torch.tensor(7),
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fast-reid file of a ResNet-18."""
    state = tiny(FAST_REID, "global").backbone.state_dict()
    content = {f"backbone.{key.removeprefix('network.')}": value for key, value in state.items()}
    content |= {**normalisation("heads.bottleneck.0.", 512), "heads.weight": torch.zeros(9, 512)}
    path = tmp_path_factory.mktemp("files") / "market_bot.pth"
    torch.save({"model": content, "iteration": 3}, path)
    return path


@pytest.mark.parametrize("how", ["mapping", "recipe", "path"])
def test_the_matched_feature_is_the_authors(how: str, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = {"file": file, "layout": "fast-reid"}
    backbone = {**FAST_REID, "weights": weights} if how == "recipe" else FAST_REID
    more = {"mapping": {"pretrained": weights}, "path": {"pretrained": file}, "recipe": {}}[how]
    with caplog.at_level(logging.INFO, "occluded_reid"):
        model = tiny(backbone, {"type": "global", "options": {"neck": "bnneck"}}, **more).eval()
    assert "(layout fast-reid) goes to the neck of: global" in caplog.text
    images = torch.randn(3, 3, 64, 32)
    with torch.no_grad():
        pooled = model.backbone(images)["stage4"].mean((2, 3))
        given = normalisation("", 512)
        wanted = F.batch_norm(pooled, *(given[key] for key in ("running_mean", "running_var", "weight", "bias")))
        assert torch.allclose(model.embed(images).slot("global"), wanted, atol=1e-6)
    assert model.origin.weights == "market_bot.pth"
    assert model.origin.trained is None, "its authors have trained it on people"


@pytest.mark.parametrize(
    "options", [{"neck": "none"}, {"pooling": "max"}, {"set_width": 512}, {"on": "stage3", "set_width": 512}]
)
def test_a_head_of_another_feature_does_not_take_it(
    options: dict[str, Any], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny(FAST_REID, {"type": "global", "options": options}, pretrained=file)
    assert "is left out: no head normalises that feature" in caplog.text
    neck = model.heads["global"].neck
    assert not list(neck.buffers()) or not neck.running_mean.any()
    assert model.origin.trained is (None if options == {"neck": "none"} else False)


def test_a_model_that_is_to_be_trained_is_not_taken_for_a_trained_one(file: Path) -> None:
    assert tiny(FAST_REID, "global", pretrained=file, num_classes=4).origin.trained is False


def test_a_transformers_normalisation_goes_to_its_class_token(tmp_path: Path) -> None:
    backbone, head = {"type": "test_vit"}, {"type": "class_token", "options": {"neck": "bnneck", "match": "after"}}
    state = tiny(backbone, head).backbone.state_dict()
    content = {f"base.{key.removeprefix('network.model.')}": value for key, value in state.items()}
    torch.save(
        {**content, **normalisation("bottleneck.", 64), **normalisation("bottleneck_1.", 64)}, tmp_path / "t.pth"
    )
    model = tiny(backbone, head, pretrained=tmp_path / "t.pth")
    assert torch.equal(model.heads["global"].neck.running_mean, normalisation("", 64)["running_mean"])


def test_the_stem_is_saved_with_the_model(file: Path, tmp_path: Path) -> None:
    model = tiny(FAST_REID, "global", pretrained=file).eval()
    model.save(tmp_path / "model")
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(
            load_model(tmp_path / "model").embed(images).slot("global"), model.embed(images).slot("global")
        )


def test_a_network_in_a_file_has_no_layout() -> None:
    with pytest.raises(RecipeError, match="a network in a file, not a file of tensors"):
        tiny({"type": "onnx", "weights": {"file": "x.onnx", "layout": "torchreid"}}, "embedding")
