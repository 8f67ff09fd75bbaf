"""Exported models: every slot and visibility, any batch, back as a model, and what cannot be exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from occluded_reid import ReIDModel, build_model, load_model
from occluded_reid.config import list_recipes
from occluded_reid.errors import BuildError, CheckpointError, MissingExtraError
from occluded_reid.models import onnx_export

SMALL = {"model.input.height": 96, "model.input.width": 32}
CPU_SIZED = [name for name in list_recipes() if name.endswith("_lite")]


def make(name: str) -> ReIDModel:
    """A recipe at a small size, as if trained: statistics of its normalisations are not 0 and 1."""
    overrides = dict(SMALL)
    if name.startswith("sgam"):
        overrides["model.input.crop.rule"] = "none"  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(name, **overrides).eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.add_(0.1 * torch.randn(module.running_mean.shape, generator=generator))
    return model


@pytest.mark.parametrize("name", CPU_SIZED)
def test_every_recipe_gives_the_same_through_onnx_runtime_and_comes_back(name: str, tmp_path: Path) -> None:
    model = make(name)
    file = model.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(file)
    assert [output.name for output in session.get_outputs()] == [*model.slots, "visibility"]
    again = load_model(file)
    assert again.slots == model.slots
    assert again.judged == model.judged
    assert again.matcher.config == model.matcher.config
    assert again.preprocess.config == model.preprocess.config
    draw = np.random.default_rng(0)
    for count in (1, 2, 7):
        pictures = [draw.integers(0, 256, (128, 48, 3), dtype=np.uint8) for _ in range(count)]
        images = model.preprocess(pictures)
        wanted, got = model.embed(images), again.embed(again.preprocess(pictures))
        raw = session.run(None, {"images": images.numpy()})
        for slot, rows in enumerate(wanted.embeddings):
            scale = max(1.0, float(rows.abs().max()))
            assert np.abs(raw[slot] - rows.numpy()).max() <= 1e-4 * scale
            assert torch.allclose(got.embeddings[slot], rows, atol=1e-4 * scale)
        assert np.abs(raw[-1] - wanted.visibility.numpy()).max() <= 1e-4
        assert torch.allclose(got.visibility, wanted.visibility, atol=1e-4)


def test_torchs_own_program(tmp_path: Path) -> None:
    model = make("pcb_lite")
    program = torch.export.load(model.export(tmp_path / "model.pt2"))
    images = torch.randn(5, 3, 96, 32, generator=torch.Generator().manual_seed(0))
    *slots, visibility = program.module()(images)
    wanted = model.embed(images)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(slots, wanted.embeddings, strict=True))
    assert torch.equal(visibility, wanted.visibility)


def test_what_cannot_be_exported_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("pcb_lite")
    with pytest.raises(BuildError, match=r"\.onnx, or \.pt2"):
        model.export(tmp_path / "model.tflite")
    with pytest.raises(BuildError, match="crops each image"):
        build_model("sgam_lite", **SMALL).export(tmp_path / "model.onnx")
    exported = load_model(model.export(tmp_path / "model.onnx"))
    with pytest.raises(BuildError, match="take that file itself"):
        exported.export(tmp_path / "again.onnx")
    with pytest.raises(BuildError, match="leave preset and outputs out"):
        load_model(tmp_path / "model.onnx", preset="imagenet")
    monkeypatch.setattr(onnx_export, "_CLOSE", -1.0)
    with pytest.raises(CheckpointError, match="Nothing was written"):
        model.export(tmp_path / "far.onnx")
    assert not (tmp_path / "far.onnx").exists()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"onnxscript: pip install .*\[onnx\]"):
        model.export(tmp_path / "none.onnx")


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    file = make("bot_lite").export(tmp_path / "model.onnx")
    graph = onnx.load(file)
    described = json.loads(graph.metadata_props[0].value)
    for broken in ("{", json.dumps({**described, "format": 99}), json.dumps({**described, "slots": {}})):
        graph.metadata_props[0].value = broken
        onnx.save(graph, file)
        with pytest.raises(CheckpointError, match="damaged, or of a newer version"):
            load_model(file)
    graph.metadata_props[0].value = json.dumps({**described, "slots": {"elsewhere": 3}})
    onnx.save(graph, file)
    with pytest.raises(BuildError, match="no tensor 'elsewhere'"):
        load_model(file)
