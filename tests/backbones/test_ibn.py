"""ResNet-50 IBN-a: what it normalises, and IBN-Net's weights files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from occluded_reid.backbones import ResNet50IBNa, create_backbone
from occluded_reid.backbones.ibn import InstanceBatchNorm2d
from occluded_reid.contracts import StageInfo
from occluded_reid.errors import BuildError, UnknownOptionError, WeightsError

SIZE = (64, 32)
BLOCKS = {"layer1": (3, 64, 256), "layer2": (4, 128, 512), "layer3": (6, 256, 1024), "layer4": (3, 512, 2048)}


def make(**options) -> ResNet50IBNa:
    torch.manual_seed(0)
    backbone = create_backbone("resnet50_ibn_a", SIZE, options)
    assert isinstance(backbone, ResNet50IBNa)
    return backbone.eval()


def published() -> dict[str, torch.Tensor]:
    """The layout of IBN-Net's file, key by key, with random tensors, written down without the code under test."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 0.1 + 0.01

    state: dict[str, torch.Tensor] = {}

    def batch_norm(name: str, channels: int) -> None:
        for field in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{field}"] = draw(channels)

    state["conv1.weight"] = draw(64, 3, 7, 7)
    batch_norm("bn1", 64)
    channels = 64
    for layer, (count, planes, width) in BLOCKS.items():
        for b in range(count):
            block = f"{layer}.{b}"
            state[f"{block}.conv1.weight"] = draw(planes, channels, 1, 1)
            if layer == "layer4":
                batch_norm(f"{block}.bn1", planes)
            else:
                state[f"{block}.bn1.IN.weight"], state[f"{block}.bn1.IN.bias"] = draw(planes // 2), draw(planes // 2)
                batch_norm(f"{block}.bn1.BN", planes // 2)
            state[f"{block}.conv2.weight"] = draw(planes, planes, 3, 3)
            batch_norm(f"{block}.bn2", planes)
            state[f"{block}.conv3.weight"] = draw(width, planes, 1, 1)
            batch_norm(f"{block}.bn3", width)
            if b == 0:
                state[f"{block}.downsample.0.weight"] = draw(width, channels, 1, 1)
                batch_norm(f"{block}.downsample.1", width)
            channels = width
    state["fc.weight"], state["fc.bias"] = draw(1000, 2048), draw(1000)
    return state


@pytest.fixture(scope="module")
def file() -> dict[str, torch.Tensor]:
    """Tensors as IBN-Net publishes them."""
    return published()


def test_the_norm_is_half_instance_and_half_batch() -> None:
    norm = InstanceBatchNorm2d(5).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for _, value in [*norm.named_parameters(), *norm.BN.named_buffers()]:
        if value.is_floating_point():
            value.data = torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5
    grid = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    got = norm(grid)
    for i in range(2):
        for c in range(5):
            cells = [float(grid[i, c, y, x]) for y in range(3) for x in range(4)]
            if c < 2:  # the first half: mean and variance of this image and channel
                mean = sum(cells) / 12
                variance = sum((v - mean) ** 2 for v in cells) / 12
                scale, shift = float(norm.IN.weight[c]), float(norm.IN.bias[c])
            else:
                mean, variance = float(norm.BN.running_mean[c - 2]), float(norm.BN.running_var[c - 2])
                scale, shift = float(norm.BN.weight[c - 2]), float(norm.BN.bias[c - 2])
            expected = [(v - mean) / (variance + 1e-5) ** 0.5 * scale + shift for v in cells]
            assert got[i, c].flatten().tolist() == pytest.approx(expected, rel=1e-9)


def test_which_layers_are_instance_and_batch() -> None:
    backbone = make()
    found = {name for name, module in backbone.network.named_modules() if isinstance(module, InstanceBatchNorm2d)}
    assert found == {f"{layer}.{b}.bn1" for layer, (n, _, _) in BLOCKS.items() if layer != "layer4" for b in range(n)}
    assert isinstance(backbone.network.get_submodule("bn1"), nn.BatchNorm2d), "the stem keeps batch normalisation"
    # An instance normalisation has scale and bias like the batch normalisation it replaces.
    plain = create_backbone("resnet50", SIZE)
    assert sum(p.numel() for p in backbone.parameters()) == sum(p.numel() for p in plain.parameters()) == 23_508_032


@pytest.mark.parametrize("last_stride", [1, 2])
def test_what_is_promised_is_what_comes(last_stride: int) -> None:
    backbone = make(last_stride=last_stride)
    assert backbone.feature_info == {
        "stage0": StageInfo(64, 2),
        "stage1": StageInfo(256, 4),
        "stage2": StageInfo(512, 8),
        "stage3": StageInfo(1024, 16),
        "stage4": StageInfo(2048, 16 * last_stride),
    }
    with torch.inference_mode():
        maps = backbone(torch.zeros(1, 3, *SIZE))
    for name, stage in backbone.feature_info.items():
        assert maps[name].shape == (1, stage.channels, SIZE[0] // stage.stride, SIZE[1] // stage.stride)


@pytest.mark.parametrize("name", ["plain.safetensors", "parallel.pth"])
def test_ibn_nets_file_is_loaded_key_by_key(name: str, file, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(file, path)
    else:
        torch.save({f"module.{key}": value for key, value in file.items()}, path)
    backbone = make(last_stride=1)
    backbone.load_pretrained(str(path))
    state = {k: v for k, v in backbone.network.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert set(state) == {key for key in file if not key.startswith("fc.")}
    for key, value in state.items():
        assert torch.equal(value, file[key]), key


def test_a_file_of_plain_resnet_shows_both_layouts(file, tmp_path: Path) -> None:
    plain = {}
    for key, value in file.items():
        if ".IN." in key:
            plain[key.replace(".IN", "")] = torch.cat([value, value])
        elif ".BN." not in key:
            plain[key] = value
        elif "running" in key:
            plain[key.replace(".BN", "")] = torch.cat([value, value])
    torch.save(plain, tmp_path / "resnet50.pth")
    backbone = make()
    before = {key: value.clone() for key, value in backbone.network.state_dict().items()}
    with pytest.raises(WeightsError) as raised:
        backbone.load_pretrained(str(tmp_path / "resnet50.pth"))
    message = str(raised.value)
    assert "miss 78 tensors, such as 'layer1.0.bn1.BN.bias'" in message  # six for each of 13 blocks
    assert f"the file has {len(plain)} tensors:\n    conv1.weight (64, 3, 7, 7)" in message
    assert "the network wants" in message
    assert all(torch.equal(value, before[key]) for key, value in backbone.network.state_dict().items())


def test_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "path": tmp_path}, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match=r"more\.pth' could not be read as a file of tensors"):
        make().load_pretrained(str(tmp_path / "more.pth"))


def test_there_is_no_hub_for_it() -> None:
    with pytest.raises(WeightsError, match=r"no weights for 'resnet50_ibn_a'.*as a path"):
        make().load_pretrained("hub")


def test_contrast_of_an_image_reaches_half_of_a_block_only() -> None:
    norm = InstanceBatchNorm2d(8).eval()
    grid = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(2))
    bright = norm(3 * grid + 5)
    torch.testing.assert_close(bright[:, :4], norm(grid)[:, :4], atol=1e-4, rtol=1e-4)
    assert (bright[:, 4:] - norm(grid)[:, 4:]).abs().max() > 1


def test_what_does_not_fit() -> None:
    with pytest.raises(BuildError, match="images of 16×16 leave one cell in layer3"):
        ResNet50IBNa((16, 16))
    with pytest.raises(UnknownOptionError, match=r"takes no 'last_strid'.*Did you mean 'last_stride'"):
        make(last_strid=1)
    with pytest.raises(BuildError, match="last_stride must be 1 or 2"):
        make(last_stride=3)
