"""Saving and loading: alone from the folder, and refusing what does not belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from occluded_reid import Head, HeadInfo, HeadOutput, build_model, load_model
from occluded_reid.errors import CheckpointError


class Middle(Head):
    def __init__(self, info):
        super().__init__(info)
        self.info = HeadInfo(slots={"middle": 64}, inference_slots=("middle",))
        self.scale = torch.nn.Parameter(torch.ones(64))

    def forward(self, features, context, targets=None):
        return HeadOutput(embeddings={"middle": features["stage4"][:, :, 3, 1] * self.scale})


def test_classifiers_come_back_only_when_asked_for(tiny, tmp_path):
    model = tiny(4)
    model.save(tmp_path)
    trained = load_model(tmp_path, num_classes=4)
    assert torch.equal(trained.heads["global"].classifier.weight, model.heads["global"].classifier.weight)
    assert load_model(tmp_path).num_classes is None
    assert load_model(tmp_path).fingerprint == model.fingerprint, "classifiers do not change an embedding"
    with pytest.raises(CheckpointError, match="trained on 4 classes; num_classes=5 does not fit"):
        load_model(tmp_path, num_classes=5)


def test_the_fingerprint_knows_weights_and_configuration(tiny):
    model = tiny(None)
    first = model.fingerprint
    assert first.startswith("sorn_lite@")
    other = tiny(None, **{"model.heads.semantic.options.threshold": 0.5})
    assert other.fingerprint != first
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert model.fingerprint != first


def test_a_head_given_as_an_object_is_asked_for_again(tiny, tmp_path):
    model = build_model(tiny(None).recipe, heads={"mid": Middle})
    model.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"built with a head given as an object: mid"):
        load_model(tmp_path)
    images = torch.randn(2, 3, 96, 32)
    assert torch.equal(
        load_model(tmp_path, heads={"mid": Middle}).embed(images).slot("middle"), model.embed(images).slot("middle")
    )


def test_a_model_a_folder_away_is_named(tiny, tmp_path):
    tiny(None).save(tmp_path / "run" / "model")
    with pytest.raises(CheckpointError, match=r"run' holds no model\.json; .*Did you mean '.*run/model'"):
        load_model(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"model\.json' is a file; .*Did you mean '.*run/model'"):
        load_model(tmp_path / "run" / "model" / "model.json")
    with pytest.raises(CheckpointError, match=r"nowhere' does not exist; .*OUTPUT/model"):
        load_model(tmp_path / "nowhere")


def test_damage_is_named(tiny, tmp_path):
    tiny(None).save(tmp_path / "a")
    other = tiny(None)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save(tmp_path / "b")
    with pytest.raises(CheckpointError, match="wanted the folder of a saved model"):
        load_model(tmp_path / "missing")
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_model(tmp_path / "a")
    whole = (tmp_path / "b" / "model.safetensors").read_bytes()
    (tmp_path / "b" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="could not be read as safetensors"):
        load_model(tmp_path / "b")
    content = json.loads((tmp_path / "a" / "model.json").read_text())
    (tmp_path / "a" / "model.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        load_model(tmp_path / "a")


def test_a_full_disk_leaves_nothing_half_written(tiny, tmp_path, monkeypatch):
    model = tiny(None)

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*nothing half-written"):
        model.save(tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be written"):
        tiny(None).save(tmp_path / "file" / "model")
