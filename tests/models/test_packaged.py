"""Models that come with the library: by name, from the package alone, whole or refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from occluded_reid import ReIDModel, build_model, load_model, load_recipe
from occluded_reid.config import PACKAGED, is_packaged
from occluded_reid.errors import CheckpointError
from occluded_reid.files import read_safetensors
from occluded_reid.models import packaged as packaging
from occluded_reid.models.checkpoint import require_model
from occluded_reid.models.packaged import round_to_half, write_packaged


def test_it_loads_by_its_name_and_has_the_fingerprint_that_it_was_packaged_with(packaged: Path) -> None:
    model = load_model("oreid_lite")
    assert model.fingerprint == json.loads((packaged / "model.json").read_text())["fingerprint"]
    assert (model.source, model.num_classes, model.training) == ("oreid_lite", None, False)
    assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {torch.float32}
    stored, _ = read_safetensors(packaged / "model.safetensors", CheckpointError)
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
    for name, value in model.inference_state().items():
        assert torch.equal(value, stored[name].to(value.dtype)), name
    require_model("oreid_lite")


def test_it_is_what_it_was_before_it_was_packaged(system: Any, views: Any, tmp_path: Path) -> None:
    model = system("oreid_lite").train()
    images, targets = views()
    model(images, targets)  # statistics that are not those of a fresh network
    model.save(tmp_path / "run")
    rounded = round_to_half(load_model(tmp_path / "run"))
    write_packaged(rounded, tmp_path / "packaged", {})
    again = load_model(tmp_path / "packaged")
    assert again.fingerprint == rounded.fingerprint != model.fingerprint
    before, here, there = model.embed(images), rounded.embed(images), again.embed(images)
    for exact, a, b in zip(before.embeddings, here.embeddings, there.embeddings, strict=True):
        assert torch.equal(a, b)
        assert float(torch.cosine_similarity(exact, a).min()) > 0.9999


@pytest.mark.parametrize("num_classes", [None, 3])
def test_build_model_takes_its_weights(packaged: Path, views: Any, num_classes: int | None) -> None:
    loaded, built = load_model("oreid_lite"), build_model("oreid_lite", num_classes=num_classes, pretrained=True)
    assert built.fingerprint == loaded.fingerprint
    assert (built.num_classes, built.origin, built.source) == (num_classes, loaded.origin, "oreid_lite")
    assert not built.cautions
    images, targets = views()
    for a, b in zip(built.embed(images).embeddings, loaded.embed(images).embeddings, strict=True):
        assert torch.equal(a, b)
    if num_classes is not None:
        classes = targets.identity % num_classes
        assert built.criterion(built.train()(images, targets), _with_identity(targets, classes)).total.isfinite()


def _with_identity(targets: Any, identity: torch.Tensor) -> Any:
    from dataclasses import replace

    return replace(targets, identity=identity)


def test_what_changes_the_network_is_refused_and_what_does_not_is_taken(packaged: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot take the weights of 'oreid_lite'.*another network(.|\n)*'hub'"):
        build_model("oreid_lite", pretrained=True, **{"model.heads.local.options.num_parts": 2})
    with pytest.raises(CheckpointError, match="cannot take the weights of 'oreid_lite'"):
        build_model("oreid_lite", pretrained=True, heads={"local": None, "semantic": None})
    other = build_model("oreid_lite", pretrained=True, **{"model.heads.semantic.options.threshold": 0.5})
    assert other.source is None
    assert other.fingerprint != load_model("oreid_lite").fingerprint
    assert build_model("oreid_lite", pretrained=False, **SMALL).origin.trained is False


SMALL = {"model.input.height": 96, "model.input.width": 32, "model.backbone.type": "test_efficientnet"}


def test_an_installation_without_weights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "WEIGHTS", tmp_path)
    for door in (load_model, require_model, lambda name: build_model(name, pretrained=True)):
        with pytest.raises(CheckpointError, match=r"no weights of it.*pip install --force-reinstall.*--model"):
            door("oreid_lite")
    assert "oreid_lite" in PACKAGED
    load_recipe("oreid_lite")  # it can be trained all the same


@pytest.mark.parametrize("file", ["model.safetensors", "model.json", "calibration.json", "README.md"])
def test_an_altered_file_is_refused(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    shutil.copytree(packaged, tmp_path / "oreid_lite")
    monkeypatch.setattr(packaging, "WEIGHTS", tmp_path)
    altered = tmp_path / "oreid_lite" / file
    content = bytearray(altered.read_bytes())
    content[len(content) // 2] ^= 1
    altered.write_bytes(content)
    message = r"'oreid_lite' in this installation are not those that were shipped.*Install the package again"
    for door in (load_model, lambda name: build_model(name, pretrained=True)):
        with pytest.raises(CheckpointError, match=message):
            door("oreid_lite")
    altered.unlink()
    with pytest.raises(CheckpointError, match="Install the package again"):
        load_model("oreid_lite")


def test_nothing_beside_the_model_is_read_from_elsewhere(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_sealed = packaging.read_sealed

    def misled(*arguments: Any) -> Any:
        return {**read_sealed(*arguments), "beside": {"../secret": "0" * 64}}

    monkeypatch.setattr(packaging, "read_sealed", misled)
    with pytest.raises(CheckpointError, match=r"secret' is not the file"):
        load_model("oreid_lite")


def test_a_name_is_a_text_and_a_path_is_a_path(
    packaged: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    own: ReIDModel = tiny(None)
    own.save("oreid_lite")
    assert load_model(Path("oreid_lite")).fingerprint == own.fingerprint
    assert load_model("./oreid_lite").fingerprint == own.fingerprint
    assert load_model("./oreid_lite").source == str(tmp_path / "oreid_lite")
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        assert load_model("oreid_lite").fingerprint != own.fingerprint
    assert "'./oreid_lite'" in caplog.text
    assert not is_packaged(Path("oreid_lite"))
    with pytest.raises(CheckpointError, match="name one that comes with the library: oreid_lite"):
        load_model("oreid_light")


def test_what_is_not_fit_for_a_package_is_refused(tiny: Any, system: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="still classifies"):
        write_packaged(round_to_half(tiny(3)), tmp_path / "a", {})
    with pytest.raises(CheckpointError, match="Round the model first"):
        write_packaged(tiny(None), tmp_path / "a", {})
    model = tiny(None)
    with torch.no_grad():
        next(model.parameters()).fill_(1e6)
    with pytest.raises(CheckpointError, match="beyond"):
        round_to_half(model)
    model = round_to_half(tiny(None))
    for text in ("see /home/anna/data", "cache: ~/x", r"C:\\Users\\anna", '{"file": "/mnt/w.pth"}', r"\\server\x"):
        with pytest.raises(CheckpointError, match=r"'card\.md' names a place on this machine"):
            write_packaged(model, tmp_path / "a", {"card.md": text})
    assert not (tmp_path / "a").exists()
    for text in ("Rank-1/mAP 55.0/52.4", "https://example.org/a/b", "images/s, 1/2, and/or", "runs/oreid/model"):
        write_packaged(model, tmp_path / "b", {"card.md": text})


def test_where_the_recipe_found_files_is_forgotten(system: Any, tmp_path: Path) -> None:
    backbone = {"type": "test_efficientnet", "options": {"last_stride": 1, "frozen_stages": 5}}
    made = system("oreid_lite", None, **{"model.backbone": backbone})
    places = {
        "model.backbone.weights": "/mnt/weights/lite0.safetensors",
        "data.teacher": {"model": "/mnt/teacher.xml", "cache": "/mnt/cache"},
    }
    made.recipe = made.recipe.override(places)
    mark = round_to_half(made).fingerprint
    write_packaged(made, tmp_path / "packaged", {})
    text = (tmp_path / "packaged" / "model.json").read_text()
    assert "/mnt" not in text
    again = load_model(tmp_path / "packaged")
    assert again.fingerprint == mark
    assert again.recipe.data.teacher is None
    assert again.recipe.model.backbone.options == {"last_stride": 1}
    learner = build_model(again.recipe, num_classes=3, pretrained=False)
    assert all(parameter.requires_grad for parameter in learner.parameters())
