"""Parsing networks: frozen, the same in any batch, regions added up as Eq. 1 says, saved and made again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.errors import BuildError, CheckpointError, UnknownNameError, WeightsError
from occluded_reid.parsing import region_classes
from occluded_reid.parsing.saved import load_parser, load_parser_weights, save_parser

KINDS = ("small", "deeplabv3")


def pictures(count: int = 3, size: tuple[int, int] = (50, 90)) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_regions_are_sums_of_classes_and_the_background_is_dropped(network, kind):
    parser = network(kind)
    images = torch.rand(2, 3, 70, 33, generator=torch.Generator().manual_seed(0))
    regions, classes = parser(images), parser.probabilities(images)
    assert parser.names == ("head", "upper_body", "lower_body", "shoes")
    for row, name in enumerate(parser.names):
        wanted = sum(classes[:, k].double() for k in region_classes("sorn8")[name])
        torch.testing.assert_close(regions[:, row].double(), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(regions.sum(1), 1 - classes[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(classes.sum(1), torch.ones_like(classes[:, 0]))


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_gives_what_it_gives_among_many(network, kind):
    parser = network(kind)
    images = torch.rand(64, 3, *parser.input_size, generator=torch.Generator().manual_seed(1))
    together = parser(images)
    alone = torch.cat([parser(images[i : i + 1]) for i in (0, 17, 63)])
    torch.testing.assert_close(alone, together[[0, 17, 63]], rtol=0, atol=1e-5)
    assert torch.equal(parser(images), together)


@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_frozen_whatever_its_owner_does(network, kind):
    parser = network(kind)
    images = torch.rand(2, 3, *parser.input_size, generator=torch.Generator().manual_seed(1))
    before, state = parser(images), {k: v.clone() for k, v in parser.state_dict().items()}
    owner = torch.nn.Sequential(parser).train()
    assert not any(module.training for module in parser.modules())
    assert not any(parameter.requires_grad for parameter in parser.parameters())
    assert torch.equal(owner(images), before)
    assert not owner(images).requires_grad
    assert all(torch.equal(value, state[key]) for key, value in parser.state_dict().items())
    parser.freeze(False).train()
    assert parser.backbone.training
    assert all(parameter.requires_grad for parameter in parser.parameters())
    assert not parser.freeze().backbone.training


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label_set", ["sgam5", "pascal7"])
def test_parses_at_each_images_own_size(network, kind, label_set):
    parser = network(kind, label_set=label_set)
    images = [*pictures(2), *pictures(1, (31, 47))]
    found = parser.parse(images, ["a", "b", "c"])
    assert [mask.shape for mask in found] == [(90, 50), (90, 50), (47, 31)]
    assert all(mask.dtype == np.uint8 and mask.max() < parser.classes for mask in found)
    assert np.array_equal(found[2], parser.parse(images[2:], ["c"])[0])
    assert parser.names == ("head", "upper_body", "lower_body", "shoes")[: 3 if label_set == "pascal7" else 4]


def test_the_literal_softmax_has_no_background(network):
    parser = network(label_set="sgam5", background=False)
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    assert parser.classes == 4
    torch.testing.assert_close(parser(images).sum(1), torch.ones(2, 16, 8))
    (mask,) = parser.parse(pictures(1), ["a"])
    assert 1 <= mask.min() <= mask.max() <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_made_again_it_is_equal(network, kind, tmp_path: Path):
    parser = network(kind, label_set="lip20")
    parser.reference.copy_(torch.tensor([0.01, 0.2, 0.3, 0.04]))
    save_parser(parser, tmp_path / "parser", {"images": 3})
    again = load_parser(tmp_path / "parser")
    assert (type(again), again.options, again.fingerprint) == (type(parser), parser.options, parser.fingerprint)
    assert torch.equal(again.reference, parser.reference)
    images = torch.rand(2, 3, 60, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(images), parser(images))
    assert again.describe() == parser.describe()
    assert sorted(path.name for path in (tmp_path / "parser").iterdir()) == ["parser.json", "parser.safetensors"]
    assert json.loads((tmp_path / "parser" / "parser.json").read_text())["facts"] == {"images": 3}
    (tmp_path / "run").mkdir()
    (tmp_path / "parser").rename(tmp_path / "run" / "model")
    assert load_parser(tmp_path / "run").fingerprint == parser.fingerprint  # a run's folder will do
    parser.reference[0] = 0.5
    assert again.fingerprint != parser.fingerprint


def test_weights_of_torchvisions_own_network_fit(network, tmp_path: Path):
    parser, other = network("deeplabv3"), network("deeplabv3")
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    tensors = {key.replace("decoder.", "classifier."): value for key, value in parser.state_dict().items()}
    del tensors["reference"]
    torch.save({**tensors, "aux_classifier.0.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    load_parser_weights(other, tmp_path / "weights.pth")
    assert other.fingerprint == parser.fingerprint


def test_weights_that_do_not_fit_are_named(network, tmp_path: Path):
    save_parser(network(), tmp_path / "eight")
    with pytest.raises(WeightsError, match=r"classify\.bias.*5 classes of 'sgam5'"):
        load_parser_weights(network(label_set="sgam5"), tmp_path / "eight")
    with pytest.raises(WeightsError, match=r"misses .* tensors of the parser 'deeplabv3'"):
        load_parser_weights(network("deeplabv3"), tmp_path / "eight")
    with pytest.raises(CheckpointError, match=r"parser\.json"):
        load_parser(tmp_path)
    save_parser(network(label_set="sorn5"), tmp_path / "five")
    (tmp_path / "five" / "parser.safetensors").replace(tmp_path / "eight" / "parser.safetensors")
    with pytest.raises(CheckpointError, match=r"parser\.safetensors' is damaged, or does not belong to 'parser\.json'"):
        load_parser(tmp_path / "eight")


def test_what_does_not_fit_is_said_when_it_is_made(network, monkeypatch):
    with pytest.raises(BuildError, match="finds no body regions"):
        network(label_set="sorn2")
    with pytest.raises(BuildError, match="label_set='sgam5'"):
        network(background=False)
    with pytest.raises(BuildError, match="multiples of 16; got 60×32"):
        network(height=60)
    with pytest.raises(BuildError, match="stride 8, 16 and 16 at the end; 'test_vit'"):
        network(backbone="test_vit")
    fine = SimpleNamespace(feature_info={f"stage{s}": SimpleNamespace(channels=8, stride=s) for s in (4, 8)})
    monkeypatch.setattr("occluded_reid.parsing.small.TimmBackbone", lambda *_, **__: fine)
    with pytest.raises(BuildError, match=r"stride 8, 16 and 16 .*; 'shallow' .* has 4, 8\."):
        network(backbone="shallow")
    with pytest.raises(UnknownNameError, match="Did you mean 'lip20'"):
        network(label_set="lip_20")


def test_a_flipped_bit_of_a_parser_is_found(network, tmp_path: Path):
    save_parser(network(), tmp_path)
    for name in ("parser.safetensors", "parser.json"):
        whole = (tmp_path / name).read_bytes()
        place = len(whole) // 2 if name == "parser.safetensors" else whole.index(b"small")
        (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match=name):
            load_parser(tmp_path)
        (tmp_path / name).write_bytes(whole)
    assert load_parser(tmp_path).kind == "small"
