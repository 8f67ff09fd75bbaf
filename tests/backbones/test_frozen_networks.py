"""Networks from files: what they give, how heads stand on them, and what cannot be taken."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch

from occluded_reid import build_model, load_model
from occluded_reid.backbones import OnnxBackbone
from occluded_reid.errors import BuildError, MissingExtraError, RecipeError, WeightsError
from occluded_reid.models.embedder import PRESETS, Preset, load_embedder


def _helpers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("networks", Path(__file__).with_name("networks.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


networks = _helpers()
KINDS = ["onnx", "openvino"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network in both formats."""
    openvino = pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("networks")
    onnx = networks.write_onnx(folder / "small.onnx", batch=1)
    openvino.save_model(openvino.convert_model(onnx), folder / "small.xml", compress_to_fp16=False)
    return {"onnx": onnx, "openvino": folder / "small.xml"}


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (32, 16, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_is_the_networks_own(files: dict[str, Path], kind: str) -> None:
    model = load_embedder(files[kind], preset="half")
    images = pictures(3)
    wanted = networks.by_hand((np.stack(images).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    got = model.embed(model.preprocess(images))
    assert got.names == ("global",)
    assert np.allclose(got.embeddings[0].numpy(), wanted, atol=1e-5)
    assert torch.equal(got.visibility, torch.ones(3, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_colours_in_the_order_that_the_network_wants(files: dict[str, Path], kind: str) -> None:
    images = pictures(2)
    bgr = load_embedder(files[kind], preset=Preset((0.5,) * 3, (0.5,) * 3, channels="bgr"))
    rgb = load_embedder(files[kind], preset="half")
    swapped = rgb.embed(rgb.preprocess([image[:, :, ::-1].copy() for image in images]))
    got = bgr.embed(bgr.preprocess(images))
    assert torch.allclose(got.embeddings[0], swapped.embeddings[0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_changes_nothing(files: dict[str, Path], kind: str) -> None:
    model = load_embedder(files[kind], preset="half")
    images = model.preprocess(pictures(7))
    together = model.embed(images).embeddings[0]
    alone = torch.cat([model.embed(images[n : n + 1]).embeddings[0] for n in range(7)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_needs_the_file_no_more(files: dict[str, Path], kind: str, tmp_path: Path) -> None:
    model = load_embedder(files[kind], preset="half")
    model.save(tmp_path / "model")
    assert str(files[kind]) not in (tmp_path / "model/model.json").read_text()
    again = load_model(tmp_path / "model")
    assert again.fingerprint == model.fingerprint
    images = model.preprocess(pictures(2))
    assert torch.equal(again.embed(images).embeddings[0], model.embed(images).embeddings[0])


@pytest.mark.parametrize("kind", KINDS)
def test_heads_are_trained_on_its_maps(files: dict[str, Path], kind: str) -> None:
    model = build_model(
        {
            "name": "stripes",
            "model": {
                "input": {"height": 32, "width": 16},
                "backbone": {"type": kind, "weights": str(files[kind])},
                "heads": {"global": "embedding", "local": {"type": "local", "options": {"num_parts": 2}}},
                "losses": {"local": {"type": "identity", "on": "local"}},
            },
        },
        num_classes=3,
    )
    assert {name: (s.channels, s.stride) for name, s in model.backbone.feature_info.items()} == {
        "stage0": (4, 2),
        "stage1": (6, 4),
    }
    assert model.slots == {"global": 5, "part_1": 6, "part_2": 6}
    assert all(name.startswith("heads.local.") for name, _ in model.named_parameters())
    output = model(torch.zeros(2, 3, 32, 16))
    assert output.features["stage1"].shape == (2, 6, 8, 4)
    assert not model.train().backbone.training


def test_tensors_are_chosen_by_name(files: dict[str, Path]) -> None:
    network = OnnxBackbone((32, 16), weights=files["onnx"], outputs=("embedding", "fine"))
    assert [s.channels for s in network.feature_info.values()] == [4]
    assert (network(torch.randn(1, 3, 32, 16))["stage0"] < 0).any(), "before its ReLU"
    with pytest.raises(BuildError, match=r"no tensor 'fin'.*Did you mean 'fine'"):
        OnnxBackbone((32, 16), weights=files["onnx"], outputs=("fin",))
    both = OnnxBackbone((32, 16), weights=files["onnx"], outputs=("flat", "embedding"))
    assert both.vectors == {"flat": 6, "embedding": 5}
    assert not both.feature_info


def test_a_network_for_one_image_at_a_time_takes_many(tmp_path: Path) -> None:
    file = networks.write_onnx(tmp_path / "one.onnx", batch=1, extra="reshape")
    model = load_embedder(file, preset="half")
    images = pictures(3)
    wanted = networks.by_hand((np.stack(images).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    assert np.allclose(model.embed(model.preprocess(images)).embeddings[0].numpy(), wanted, atol=1e-5)


def test_of_two_vectors_the_last_is_taken_unless_one_is_named(tmp_path: Path) -> None:
    file = networks.write_onnx(tmp_path / "two.onnx", extra="two")
    last, named = load_embedder(file, preset="half"), load_embedder(file, preset="half", outputs=("embedding",))
    images = last.preprocess(pictures(2))
    assert torch.equal(last.embed(images).embeddings[0], named.embed(images).embeddings[0].relu())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra": "if"}, "without control flow"),
        ({"height": "rows"}, "fixed height"),
        ({"opset": 99}, "opset"),
    ],
)
def test_networks_that_cannot_be_taken(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_embedder(networks.write_onnx(tmp_path / "odd.onnx", **options))


def test_damaged_and_missing_files(files: dict[str, Path], tmp_path: Path) -> None:
    content = files["onnx"].read_bytes()
    for count in (0, 10, len(content) // 2, len(content) - 40):
        (tmp_path / "cut.onnx").write_bytes(content[:count])
        with pytest.raises(WeightsError, match=r"cut\.onnx|onnxruntime cannot run"):
            load_embedder(tmp_path / "cut.onnx")
    (tmp_path / "cut.xml").write_bytes(files["openvino"].read_bytes()[:-200])
    with pytest.raises(WeightsError, match="side by side"):
        load_embedder(tmp_path / "cut.xml")
    (tmp_path / "cut.bin").write_bytes(files["openvino"].with_suffix(".bin").read_bytes())
    with pytest.raises(WeightsError, match="OpenVINO's format"):
        load_embedder(tmp_path / "cut.xml")
    (tmp_path / "short.xml").write_bytes(files["openvino"].read_bytes())
    (tmp_path / "short.bin").write_bytes(b"\0" * 8)
    with pytest.raises(WeightsError, match="OpenVINO's format"):
        load_embedder(tmp_path / "short.xml")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_embedder(tmp_path / "none.onnx")
    with pytest.raises(WeightsError, match="wanted"):
        load_embedder(tmp_path / "weights.pth")


def test_misfits_are_said(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match=r"model\.input\.height=32"):
        build_model("bot_lite", backbone={"type": "onnx", "weights": str(files["onnx"])})
    with pytest.raises(BuildError, match=r"model\.backbone\.weights"):
        build_model("bot_lite", backbone={"type": "onnx"})
    with pytest.raises(BuildError, match="Did you mean 'imagenet'"):
        load_embedder(files["onnx"], preset="imagnet")
    with pytest.raises(BuildError, match="gives none"):
        build_model("bot_lite", heads={"own": "embedding"})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[onnx\]"):
        load_embedder(files["onnx"])


def test_a_strangers_description_cannot_name_a_file(files: dict[str, Path], tmp_path: Path) -> None:
    """A checkpoint holds its network; what its JSON says of files elsewhere is not opened."""
    model = load_embedder(files["onnx"], preset="half")
    model.save(tmp_path / "model")
    description = tmp_path / "model/model.json"
    content = json.loads(description.read_text())
    content["format"] = 1  # as from before descriptions had checksums; a stranger could also write those
    del content["sha256"]
    backbone = content["recipe"]["model"]["backbone"]
    backbone["weights"] = str(tmp_path / "elsewhere.onnx")
    description.write_text(json.dumps(content))
    assert load_model(tmp_path / "model").fingerprint == model.fingerprint
    backbone["options"]["weights"] = str(tmp_path / "elsewhere.onnx")
    description.write_text(json.dumps(content))
    with pytest.raises(RecipeError, match=r"model\.backbone\.weights"):
        load_model(tmp_path / "model")
    del backbone["options"]["weights"]
    backbone["options"]["given"]["bytes"] = [1 << 60]
    description.write_text(json.dumps(content))
    with pytest.raises(BuildError, match="at most"):
        load_model(tmp_path / "model")


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    whole = networks.write_onnx(tmp_path / "whole.onnx")
    onnx.save(onnx.load(whole), tmp_path / "apart.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(WeightsError, match="as one file"):
        load_embedder(tmp_path / "apart.onnx")


def test_every_preset_is_a_mean_and_a_deviation_of_three_colours() -> None:
    for preset in PRESETS.values():
        assert len(preset.mean) == len(preset.std) == 3
        assert min(preset.std) > 0


def test_openvino_is_imported_without_its_reporting(files: dict[str, Path]) -> None:
    pytest.importorskip("openvino_telemetry")
    program = (
        "import sys, multiprocessing.process as p\n"
        "p.BaseProcess.start = lambda self: print('started')\n"
        "from occluded_reid.models.embedder import load_embedder\n"
        f"load_embedder({str(files['openvino'])!r})\n"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry')])\n"
        "import openvino_telemetry"  # whoever wants it may have it afterwards
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]"]


def test_a_preset_that_is_guessed_is_said(files: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    load_embedder(files["onnx"])
    assert "ImageNet's mean" in caplog.text
    caplog.clear()
    load_embedder(files["onnx"], preset="imagenet")
    assert not caplog.text
