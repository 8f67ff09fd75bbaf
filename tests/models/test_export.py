"""Saving and loading: alone from the folder, and refusing what does not belong together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from occluded_reid import Head, HeadInfo, HeadOutput, build_model, load_model
from occluded_reid.errors import CheckpointError, OccludedReIDError
from occluded_reid.sealed import file_sha256


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
    with pytest.raises(CheckpointError, match=r"is damaged, or does not belong to 'model\.json'"):
        load_model(tmp_path / "a")
    whole = (tmp_path / "b" / "model.safetensors").read_bytes()
    (tmp_path / "b" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"b/model\.safetensors' is damaged"):
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


def unsealed(folder):
    """The folder as it was written before there were checksums."""
    content = json.loads((folder / "model.json").read_text())
    del content["sha256"]
    (folder / "model.json").write_text(json.dumps({**content, "format": 1}))
    return folder


def flip(path, place, bit=0x40):
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


@pytest.mark.parametrize("old", [False, True])
def test_a_flipped_bit_of_the_weights_is_found(tiny, tmp_path, old):
    tiny(None).save(tmp_path)
    if old:
        unsealed(tmp_path)
    assert load_model(tmp_path).slots
    path = tmp_path / "model.safetensors"
    flip(path, len(path.read_bytes()) // 2 // 4 * 4 + 3)
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(tmp_path)


def test_no_byte_of_a_model_changes_without_an_error_or_without_harm(tiny, tmp_path):
    model = tiny(None)
    model.save(tmp_path)
    found = set()
    for name in ("model.json", "model.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for number, place in enumerate(torch.linspace(0, len(whole) - 1, 24).long().tolist()):
            flip(tmp_path / name, place, 1 << number % 8)
            try:
                loaded = load_model(tmp_path)
            except OccludedReIDError as error:
                found.add((type(error), str(tmp_path) in str(error)))
            else:  # white space, for one, says nothing
                assert loaded.fingerprint == model.fingerprint
                assert loaded.matcher.config == model.matcher.config
            (tmp_path / name).write_bytes(whole)
    assert found == {(CheckpointError, True)}, "the error is the library's own, and names the file"


def test_a_model_from_before_there_were_checksums_is_read(tiny, tmp_path):
    model = tiny(4)
    model.save(tmp_path)
    assert load_model(unsealed(tmp_path), num_classes=4).fingerprint == model.fingerprint


def test_a_description_names_the_checksum_of_its_weights(tiny, tmp_path):
    tiny(None).save(tmp_path)
    sums = json.loads((tmp_path / "model.json").read_text())["sha256"]
    assert sums["weights"] == file_sha256(tmp_path / "model.safetensors", CheckpointError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": None}, "names no fingerprint"),
        ({"num_classes": "many"}, "num_classes is 'many'"),
        ({"num_classes": ...}, "num_classes is 'nothing'"),
        ({"recipe": None}, "recipe is a NoneType"),
        ({"recipe": {}}, "holds no recipe of this version"),
        ({"recipe": {"name": "x", "model": {"backbone": "resnet18", "heads": []}}}, "holds no recipe of this version"),
        ({"format": None}, "has format None"),
    ],
)
def test_a_description_that_lacks_something_is_refused(tiny, tmp_path, change, message):
    tiny(None).save(tmp_path)
    content = {**json.loads((unsealed(tmp_path) / "model.json").read_text()), **change}
    (tmp_path / "model.json").write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": 1, "x": ' + "[" * 500 + "]" * 500 + "}", "\udcff", "9" * 9_999]
)
def test_a_description_that_is_something_else_is_refused(tiny, tmp_path, text):
    tiny(None).save(tmp_path)
    (tmp_path / "model.json").write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load_model(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_folder_that_may_not_be_entered_is_named(tiny, tmp_path, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(CheckpointError, match="Permission denied"):
        load_model(tmp_path / "private" / "model")
