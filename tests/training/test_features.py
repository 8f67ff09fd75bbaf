"""Heads on a frozen backbone: its features of augmented views are computed once, whatever happens to the run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid.config import Recipe, load_recipe
from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import TrainingError
from occluded_reid.files import read_safetensors
from occluded_reid.training import train
from occluded_reid.training.batches import make_loader
from occluded_reid.training.features import FeatureCache, feature_cache

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SPEC = importlib.util.spec_from_file_location("networks", Path(__file__).parents[1] / "backbones/networks.py")
assert SPEC is not None
assert SPEC.loader is not None
networks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(networks)

DRAW = np.random.default_rng(0)
IMAGES = DRAW.standard_normal((6, 3, 4, 2)).astype(np.float32)


class Network:
    """Two tensors of an image; counts what it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        self.asked += len(images)
        return [images.mean((2, 3)), 3 * images[:, :, ::2]]


def rounded(images: np.ndarray) -> list[np.ndarray]:
    return [tensor.astype(np.float16).astype(np.float32) for tensor in Network()(images)]


def assert_right(given: list[np.ndarray], images: np.ndarray) -> None:
    for tensor, wanted in zip(given, rounded(images), strict=True):
        assert tensor.dtype == np.float32
        assert np.array_equal(tensor, wanted)


def test_a_view_is_computed_once_and_known_to_the_next_run(tmp_path: Path) -> None:
    network, cache = Network(), FeatureCache(tmp_path)
    assert_right(cache(IMAGES[:4], network), IMAGES[:4])
    assert network.asked == 4
    mixed = IMAGES[[3, 4, 0, 4, 5]]
    assert_right(cache(mixed, network), mixed)
    assert network.asked == 7  # 4 stands twice among what was not known
    again = FeatureCache(tmp_path)
    assert_right(again(IMAGES, network), IMAGES)
    assert (network.asked, again.computed) == (7, 0)


@pytest.mark.parametrize("file", ["tensor_0.f16", "tensor_1.f16", "views.bin", "tensors.json"])
@pytest.mark.parametrize("length", [0, 1, 50])
def test_what_a_killed_run_has_left_is_used_as_far_as_it_is_whole(tmp_path: Path, file: str, length: int) -> None:
    network = Network()
    FeatureCache(tmp_path)(IMAGES, network)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:length])
    again = FeatureCache(tmp_path)
    for _ in range(2):
        assert_right(again(IMAGES[::-1], network), IMAGES[::-1])
    assert_right(FeatureCache(tmp_path)(IMAGES, network), IMAGES)
    assert 6 <= network.asked <= 12


def test_a_damaged_row_is_computed_again(tmp_path: Path) -> None:
    network = Network()
    FeatureCache(tmp_path)(IMAGES, network)
    file = tmp_path / "tensor_1.f16"
    content = bytearray(file.read_bytes())
    content[2 * 12 + 3] ^= 1  # of the third image
    file.write_bytes(content)
    again = FeatureCache(tmp_path)
    assert_right(again(IMAGES, network), IMAGES)
    assert again.computed == 1


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    for value in (1e6, float("nan")):
        with pytest.raises(TrainingError, match=r"float16 does not hold.*distinct_views"):
            FeatureCache(tmp_path)(np.full((1, 3, 4, 2), value, np.float32), Network())


def test_room_is_asked_for_beforehand(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"views take .* GB, .*data\.distinct_views"):
        FeatureCache(tmp_path, rows=10**15)(IMAGES, Network())
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"data\.feature_cache"):
        FeatureCache(tmp_path / "file")


def recipe(folder: Path, **more: Any) -> Recipe:
    file = folder / "frozen.onnx"
    if not file.exists():
        networks.write_onnx(file)
    content = {
        "name": "stripes",
        "model": {
            "input": {"height": 32, "width": 16},
            "backbone": {"type": "onnx", "weights": str(file)},
            "heads": {"local": {"type": "local", "options": {"num_parts": 2, "reduction": 4}}},
            "losses": {"local": {"type": "identity", "on": "local"}},
        },
        "data": {"batch": 8, "augment": ["flip", "color_jitter"], "distinct_views": 2},
        "optim": {"epochs": 6, "lr": 1e-2},
    }
    return load_recipe(content, more)


@pytest.fixture(scope="module")
def data(tiny: ModuleType, data_folder: Path) -> ReIDData:
    made: ReIDData = tiny.make_data(data_folder)
    return made


def test_views_repeat_in_an_order_of_their_own(tmp_path: Path, data: ReIDData) -> None:
    loader = make_loader(data, recipe(tmp_path))

    def epoch(number: int) -> tuple[list[str], dict[str, torch.Tensor]]:
        names, images = [], {}
        for batch in loader.batches(number):
            names += batch.targets.path
            images |= dict(zip(batch.targets.path, batch.images, strict=True))
        return names, images

    (first, one), (_, two), (third, three) = epoch(1), epoch(2), epoch(3)
    assert first != third
    assert all(torch.equal(one[name], three[name]) for name in one)
    assert not all(torch.equal(one[name], two[name]) for name in one)


def test_heads_are_trained_on_kept_features(tmp_path: Path, data: ReIDData, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    compute = FeatureCache.__call__

    def counted(self: FeatureCache, images: np.ndarray, network: Any) -> list[np.ndarray]:
        before = self.computed
        given = compute(self, images, network)
        asked.append(self.computed - before)
        return given

    monkeypatch.setattr(FeatureCache, "__call__", counted)
    folder = tmp_path / "kept"
    chosen = recipe(tmp_path, **{"data.feature_cache": str(folder)})
    result = train(chosen, data, tmp_path / "run", show=False)
    assert sum(asked) == 2 * len(data.train)
    assert sum(asked[:8]) == sum(asked)  # all of them in the first two of six epochs
    assert result.history[-1].losses["total"] < result.history[0].losses["total"]
    asked.clear()
    again = train(chosen, data, tmp_path / "again", show=False)  # other heads would find them as well
    assert sum(asked) == 0
    first, second = (read_safetensors(r.model / "model.safetensors")[0] for r in (result, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    # Without the cache the features are not rounded; what is learnt is nearly the same.
    plain = train(recipe(tmp_path, **{"data.distinct_views": None}), data, tmp_path / "plain", show=False)
    assert plain.history[0].losses["total"] == pytest.approx(result.history[0].losses["total"], abs=1e-2)


def test_without_a_folder_features_go_with_the_run(tmp_path: Path, data: ReIDData) -> None:
    result = train(recipe(tmp_path, **{"optim.epochs": 1}), data, tmp_path / "run", show=False)
    assert not (result.output / "features").exists()


def test_a_trained_backbone_is_refused(tmp_path: Path, tiny: ModuleType) -> None:
    model = tiny.make_model(tiny.tiny_recipe(**{"data.distinct_views": 3}))
    with pytest.raises(TrainingError, match=r"distinct_views=3 .*'test_efficientnet' is trained"):
        feature_cache(model, tmp_path, 8)
