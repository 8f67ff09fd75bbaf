"""Weights files: by names, by order, and why they do not fit."""

from __future__ import annotations

import argparse
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from occluded_reid.backbones import TimmBackbone, create_backbone
from occluded_reid.backbones.weights import load_into, read_weights, transfer_by_name
from occluded_reid.errors import WeightsError

NAME = "test_efficientnet"
# torch says what it thinks of a file's protocol before it refuses it.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    """A timm model with weights that the tests write to files."""
    torch.manual_seed(7)
    model = timm.create_model(NAME, pretrained=False, num_classes=10)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(key))).abs() + 0.1)
    return model


def backbone() -> TimmBackbone:
    torch.manual_seed(0)
    made = create_backbone(NAME, (96, 32), {"last_stride": 1})
    assert isinstance(made, TimmBackbone)
    return made


def loaded(source: Path, match: str = "names") -> dict[str, Tensor]:
    made = backbone()
    made.load_pretrained(str(source), match)
    return made.network.state_dict()


def assert_arrived(got: dict[str, Tensor], whole: nn.Module) -> None:
    """Every tensor of the pyramid is the whole model's: a wrong one would differ, for all are different."""
    state = {key.replace(".", "_", 1): value for key, value in whole.state_dict().items()} | dict(whole.state_dict())
    assert got
    for key, value in got.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, state[key]), key


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "plain.pth": torch.save,
    "plain.safetensors": lambda state, path: save_file({k: v.contiguous() for k, v in state.items()}, path),
    "wrapped.pt": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "parallel.bin": lambda state, path: torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, path),
    "old.pth": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_names_are_matched_in_every_format(name: str, whole: nn.Module, tmp_path: Path) -> None:
    WRITERS[name](whole.state_dict(), tmp_path / name)
    assert_arrived(loaded(tmp_path / name), whole)


def test_the_classifier_may_be_absent_or_another(whole: nn.Module, tmp_path: Path) -> None:
    state = {k: v for k, v in whole.state_dict().items() if not k.startswith("classifier")}
    torch.save(state, tmp_path / "bare.pth")
    assert_arrived(loaded(tmp_path / "bare.pth"), whole)
    torch.save({**state, "classifier.weight": torch.zeros(751, 3), "extra": torch.zeros(1)}, tmp_path / "other.pth")
    assert_arrived(loaded(tmp_path / "other.pth"), whole)


def test_order_is_matched_under_other_names(whole: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(5)
    usual = timm.create_model(NAME, pretrained=False)  # by order the classifier counts, and must be as wide
    renamed = {f"tensor_{i:03}": v for i, v in enumerate(usual.state_dict().values())}
    torch.save(renamed, tmp_path / "renamed.pth")
    assert_arrived(loaded(tmp_path / "renamed.pth", "order"), usual)
    with pytest.raises(WeightsError, match="weights_match: order if only the names differ"):
        loaded(tmp_path / "renamed.pth")
    swapped = list(renamed.items())
    swapped[0], swapped[1] = swapped[1], swapped[0]
    torch.save(dict(swapped), tmp_path / "swapped.pth")
    with pytest.raises(WeightsError, match="do not match in order and shape"):
        loaded(tmp_path / "swapped.pth", "order")
    torch.save(dict(list(renamed.items())[:-1]), tmp_path / "short.pth")
    with pytest.raises(WeightsError, match="do not match in order and shape"):
        loaded(tmp_path / "short.pth", "order")


def test_a_misfit_shows_both_layouts_and_loads_nothing(whole: nn.Module, tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(4, 3, 3, 3), "features.0.bias": torch.zeros(4)}, tmp_path / "vgg.pth")
    made = backbone()
    before = {key: value.clone() for key, value in made.network.state_dict().items()}
    with pytest.raises(WeightsError) as raised:
        made.load_pretrained(str(tmp_path / "vgg.pth"))
    message = str(raised.value)
    assert "vgg.pth' miss" in message
    assert "the file has 2 tensors:\n    features.0.weight (4, 3, 3, 3)\n    features.0.bias (4,)" in message
    first, tensor = next(iter(whole.state_dict().items()))
    assert f"the network wants {len(whole.state_dict())} tensors:\n    {first} {tuple(tensor.shape)}" in message
    assert all(torch.equal(value, before[key]) for key, value in made.network.state_dict().items())


def test_a_tensor_of_another_shape_is_missing(whole: nn.Module, tmp_path: Path) -> None:
    state = dict(whole.state_dict())
    state["conv_stem.weight"] = state["conv_stem.weight"][:, :1]
    torch.save(state, tmp_path / "grey.pth")
    with pytest.raises(WeightsError, match=r"have 1 tensors of another shape: 'conv_stem\.weight' \(24, 1, 3, 3\)"):
        loaded(tmp_path / "grey.pth")


class Trap:
    """An object whose unpickling would run something."""

    ran = False

    @staticmethod
    def spring() -> Trap:
        Trap.ran = True
        return Trap()

    def __reduce__(self) -> tuple[Callable[[], Trap], tuple[()]]:
        return Trap.spring, ()


def test_pickled_objects_are_refused_and_never_run(whole: nn.Module, tmp_path: Path) -> None:
    torch.save({"state_dict": whole.state_dict(), "args": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match=r"trap\.pth' could not be read as a file of tensors") as raised:
        read_weights(tmp_path / "trap.pth")
    assert "other objects than tensors" in str(raised.value)
    assert "False" not in str(raised.value), "nobody is advised to load it without care"
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError, match="could not be read as a file of tensors"):
        read_weights(tmp_path / "bare.pth")
    assert not Trap.ran


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "could not be read as a file of tensors"),
        ("none.safetensors", None, "could not be read as safetensors"),
        ("empty.pth", b"", "could not be read as a file of tensors"),
        ("text.pth", b"these are no weights", "could not be read as a file of tensors"),
        ("text.safetensors", b"these are no weights", "could not be read as safetensors"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name}' {message}"):
        read_weights(tmp_path / name)


def test_files_that_hold_something_else_are_named(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds list; wanted a mapping of names to tensors"):
        read_weights(tmp_path / "list.pth")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "numbers.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_weights(tmp_path / "numbers.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_any_damage_is_a_weights_error(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": torch.arange(6.0)}, tmp_path / "good.pth", _use_new_zipfile_serialization=zipped)
    good = (tmp_path / "good.pth").read_bytes()
    random = np.random.default_rng(0)
    broken = 0
    for _ in range(80):
        content = bytearray(good[: int(random.integers(1, len(good) + 1))])
        for position in random.integers(0, len(content), 4):
            content[position] = int(random.integers(0, 256))
        (tmp_path / "bad.pth").write_bytes(content)
        try:
            read_weights(tmp_path / "bad.pth")
        except WeightsError:
            broken += 1
    assert broken > 40


def test_a_pyramid_that_needs_more_than_there_is() -> None:
    whole, features = timm.create_model("test_resnet"), create_backbone(NAME, (96, 32))
    with pytest.raises(WeightsError, match=r"the weights of 'test_resnet' miss"):
        transfer_by_name(whole, features, "test_resnet")


def test_load_into_leaves_the_classifier_alone(whole: nn.Module, tmp_path: Path) -> None:
    torch.save({k: v for k, v in whole.state_dict().items() if "classifier" not in k}, tmp_path / "bare.pth")
    fresh = timm.create_model(NAME, num_classes=4)
    before = fresh.classifier.weight.clone()
    load_into(fresh, tmp_path / "bare.pth")
    assert torch.equal(fresh.classifier.weight, before)
    assert torch.equal(fresh.conv_stem.weight, whole.conv_stem.weight)


@pytest.mark.parametrize(
    "keys",
    [("teacher",), ("model_ema",), ("model_state_dict",), ("model", "state_dict"), ("ema", "module"), ("weights",)],
)
def test_weights_are_found_under_the_keys_that_are_in_use(
    keys: tuple[str, ...], whole: nn.Module, tmp_path: Path
) -> None:
    content: dict[str, object] = dict(whole.state_dict())
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "wrapped.pth")
    assert_arrived(loaded(tmp_path / "wrapped.pth"), whole)


def test_of_two_networks_in_a_file_the_one_taken_is_named(
    whole: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zeros = {key: torch.zeros_like(value) for key, value in whole.state_dict().items()}
    torch.save({"student": zeros, "teacher": whole.state_dict()}, tmp_path / "two.pth")
    with caplog.at_level(logging.WARNING, "occluded_reid"):
        assert_arrived(loaded(tmp_path / "two.pth"), whole)
    assert "under teacher, student; those under 'teacher' are taken" in caplog.text


def test_numbers_and_settings_beside_the_weights_are_left_out(whole: nn.Module, tmp_path: Path) -> None:
    beside = {
        "rank1": np.float64(0.9),
        "seen": np.int32(3),
        "curve": np.arange(3.0),
        "args": argparse.Namespace(lr=0.1, size=(256, 128)),
    }
    torch.save({"state_dict": whole.state_dict(), **beside}, tmp_path / "usual.pth")
    assert_arrived(loaded(tmp_path / "usual.pth"), whole)


def test_other_objects_beside_the_weights_are_named_and_never_made(whole: nn.Module, tmp_path: Path) -> None:
    torch.save({"state_dict": whole.state_dict(), "where": Path("x"), "trap": Trap()}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"holds other objects than tensors: '(pathlib\.PosixPath|.*spring)'"):
        read_weights(tmp_path / "odd.pth")
    assert not Trap.ran


def test_a_key_that_nobody_uses_is_named(whole: nn.Module, tmp_path: Path) -> None:
    torch.save({"our_net": whole.state_dict(), "epoch": 3}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"no tensors at its top level, but mappings under 'our_net'\."):
        read_weights(tmp_path / "own.pth")


@pytest.mark.parametrize("prefix", ["backbone.", "base.", "module.base.", "_orig_mod."])
def test_a_prefix_that_is_in_use_is_taken_away(prefix: str, whole: nn.Module, tmp_path: Path) -> None:
    state = {f"{prefix}{k}": v for k, v in whole.state_dict().items()}
    torch.save({**state, "bottleneck.weight": torch.zeros(3)}, tmp_path / "reid.pth")
    assert_arrived(loaded(tmp_path / "reid.pth"), whole)
