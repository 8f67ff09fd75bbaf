"""Transformers: the class token and the maps after the final norm, and positions resized when weights are loaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from occluded_reid.backbones import TimmBackbone, create_backbone
from occluded_reid.contracts import StageInfo
from occluded_reid.errors import WeightsError

NAME, SIZE, GRID = "test_vit", (64, 32), (4, 2)


def make(name: str = NAME, **options: Any) -> TimmBackbone:
    torch.manual_seed(0)
    backbone = create_backbone(name, SIZE, options)
    assert isinstance(backbone, TimmBackbone)
    return backbone.eval()


def lively(model: nn.Module, seed: int) -> nn.Module:
    """Give every parameter values of its own: zeros and ones would hide what is left out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return model


def tokens_by_hand(vit: Any, images: Tensor, blocks: int) -> Tensor:
    """A vision transformer from its weights: (N, 1 + h·w, C) after the first blocks and the final norm."""

    def norm(layer: Any, x: Tensor) -> Tensor:
        spread = (x.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt()
        return (x - x.mean(-1, keepdim=True)) / spread * layer.weight + layer.bias

    def linear(layer: Any, x: Tensor) -> Tensor:
        return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)

    kernel = vit.patch_embed.proj.weight
    side = kernel.shape[-1]
    patches = []
    for y in range(images.shape[2] // side):
        for x in range(images.shape[3] // side):
            patch = images[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side]
            patches.append(torch.einsum("nchw,dchw->nd", patch, kernel) + vit.patch_embed.proj.bias)
    x = torch.stack(patches, 1)
    x = torch.cat([vit.cls_token.expand(len(images), -1, -1), x], 1) + vit.pos_embed
    for block in list(vit.blocks)[:blocks]:
        heads = block.attn.num_heads
        parts = linear(block.attn.qkv, norm(block.norm1, x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
        attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + linear(block.attn.proj, attention.transpose(1, 2).flatten(2))
        x = x + linear(block.mlp.fc2, gelu(linear(block.mlp.fc1, norm(block.norm2, x))))
    return norm(vit.norm, x)


def test_the_token_and_the_maps_are_the_transformers_own() -> None:
    backbone = lively(make().double(), 1)
    assert isinstance(backbone, TimmBackbone)
    assert backbone.class_token == 64
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        features = backbone(images)
        depth = len(backbone.network.model.blocks)
        assert list(features) == ["stage0", "stage1", "stage2"]
        for number, grid in enumerate(features.values()):
            expected = tokens_by_hand(backbone.network.model, images, depth - 2 + number)
            torch.testing.assert_close(grid.flatten(2).transpose(1, 2), expected[:, 1:])
            assert grid.shape == (2, 64, *GRID)
    assert features.class_token is not None
    torch.testing.assert_close(features.class_token, expected[:, 0])
    assert float(features.class_token.detach().mean(1).abs().max()) < 1, "after the norm"
    assert backbone.feature_info == dict.fromkeys(features, StageInfo(64, 16))


def test_every_parameter_is_used_in_training() -> None:
    backbone = make(options={"out_indices": 1}).train()
    features = backbone(torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(2)))
    assert list(features) == ["stage0"]
    assert features.class_token is not None
    (features["stage0"].square().sum() + features.class_token.sum()).backward()
    assert not [name for name, parameter in backbone.named_parameters() if parameter.grad is None]


def test_stochastic_depth_rises_linearly() -> None:
    blocks = make(options={"drop_path_rate": 0.1}).network.model.blocks
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.1 * b / (len(blocks) - 1) for b in range(len(blocks))])


def test_a_distilled_transformer_gives_its_first_token() -> None:
    """DeiT has a second token, for distillation, between the class token and the patches."""
    backbone = make("deit_tiny_distilled_patch16_224", options={"depth": 3, "embed_dim": 48, "num_heads": 3})
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, *SIZE))
        (_, prefix) = backbone.network.model.forward_intermediates(
            torch.zeros(1, 3, *SIZE), indices=1, norm=True, return_prefix_tokens=True, intermediates_only=True
        )[0]
    assert prefix.shape == (1, 2, 48)
    assert features.class_token is not None
    assert torch.equal(features.class_token, prefix[:, 0])
    assert features["stage0"].shape == (1, 48, *GRID)


@pytest.mark.parametrize("name", ["test_efficientnet", "vit_tiny_patch16_224"])
def test_networks_without_class_token_say_so(name: str) -> None:
    options = {} if name == "test_efficientnet" else {"class_token": False, "global_pool": "avg", "depth": 3}
    backbone = make(name, options=options)
    assert backbone.class_token is None
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, *SIZE)).class_token is None


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A transformer of square images, as they are pretrained, and its file."""
    torch.manual_seed(5)
    model: Any = lively(timm.create_model(NAME, pretrained=False), 6)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return model, path


@pytest.mark.parametrize("positions", ["bicubic", "bilinear"])
@pytest.mark.parametrize("source", ["file", "hub"])
def test_positions_are_resized_to_the_grid_of_the_images(
    pretrained: tuple[Any, Path], positions: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = pretrained
    backbone = make(positions=positions)
    if source == "hub":
        monkeypatch.setattr("occluded_reid.backbones.hub.unreachable", lambda _: None)
        monkeypatch.setattr("timm.create_model", lambda name, *, pretrained: copy.deepcopy(model))  # takes no size
    backbone.load_pretrained("hub" if source == "hub" else str(path))
    state = model.state_dict()
    for key, value in backbone.network.state_dict().items():
        if not key.endswith("pos_embed"):
            assert torch.equal(value, state[key.removeprefix("model.")]), key
    given = backbone.network.model.pos_embed.detach()
    side = round((model.pos_embed.shape[1] - 1) ** 0.5)
    square = model.pos_embed.detach()[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    resized = interpolate(square, GRID, mode=positions, antialias=positions == "bicubic", align_corners=False)
    assert given.shape == (1, 9, 64)
    assert torch.equal(given[:, 0], model.pos_embed[:, 0]), "the class token's own position is kept"
    torch.testing.assert_close(given[:, 1:], resized.flatten(2).transpose(1, 2))


def test_a_grid_of_as_many_patches_is_resized_too(pretrained: tuple[Any, Path]) -> None:
    """A square of 10×10 patches has as many as a strip of 50×2, and other places."""
    model, path = pretrained
    assert model.patch_embed.grid_size == (10, 10)
    backbone = create_backbone(NAME, (800, 32))
    backbone.load_pretrained(str(path))
    given: Tensor = backbone.network.model.pos_embed  # type: ignore[union-attr, assignment]
    assert given.shape == model.pos_embed.shape
    assert not torch.allclose(given, model.pos_embed)


def test_positions_that_fit_are_taken_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(8)
    model: Any = lively(timm.create_model(NAME, pretrained=False, img_size=SIZE), 9)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "own.safetensors")
    backbone = make()
    backbone.load_pretrained(str(tmp_path / "own.safetensors"))
    assert torch.equal(backbone.network.model.pos_embed, model.pos_embed)


def test_order_is_matched_at_the_size_of_the_file(pretrained: tuple[Any, Path], tmp_path: Path) -> None:
    model, path = pretrained
    torch.save({f"t{i:03}": value for i, value in enumerate(model.state_dict().values())}, tmp_path / "renamed.pth")
    by_order, by_name = make(), make()
    by_order.load_pretrained(str(tmp_path / "renamed.pth"), "order")
    by_name.load_pretrained(str(path))
    first, second = by_order.state_dict(), by_name.state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_the_grid_of_the_paper() -> None:
    """ViT-B/16 of 256×128 has 16×8 patches; a single block and a narrow width do for its shapes."""
    options = {"depth": 1, "embed_dim": 48, "num_heads": 3, "out_indices": 1, "drop_path_rate": 0.1}
    backbone = create_backbone("vit_base_patch16_224", (256, 128), {"options": options}).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 256, 128))
    assert features["stage0"].shape == (1, 48, 16, 8)
    assert features.class_token is not None
    assert features.class_token.shape == (1, 48)


@pytest.mark.parametrize(("rows", "columns"), [(256, 128), (96, 96), (112, 48)])
@pytest.mark.parametrize("match", ["names", "order"])
def test_positions_of_any_image_size_are_resized(tmp_path: Path, rows: int, columns: int, match: str) -> None:
    """A file that was trained at another image size says how many positions it has, and not how they lay."""
    torch.manual_seed(5)
    given: Any = lively(timm.create_model(NAME, img_size=(rows, columns)), 6)
    torch.save(given.state_dict(), tmp_path / "reid.pth")
    backbone = make()
    backbone.load_pretrained(str(tmp_path / "reid.pth"), match)
    own: Any = backbone.network.model
    grid = given.pos_embed[:, 1:].unflatten(1, (rows // 16, columns // 16)).permute(0, 3, 1, 2)
    expected = interpolate(grid, GRID, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(own.pos_embed[:, 1:], expected)
    torch.testing.assert_close(own.pos_embed[:, :1], given.pos_embed[:, :1])
    assert torch.equal(own.blocks[0].attn.qkv.weight, given.blocks[0].attn.qkv.weight)


def test_a_transformer_of_another_width_is_refused_for_its_shapes_and_not_its_names(tmp_path: Path) -> None:
    torch.save(timm.create_model("vit_tiny_patch16_224", depth=3).state_dict(), tmp_path / "tiny.pth")
    backbone = create_backbone("vit_small_patch16_224", SIZE, {"options": {"depth": 3}})
    with pytest.raises(WeightsError, match=r"(?s)of another shape: .*The names fit") as told:
        backbone.load_pretrained(str(tmp_path / "tiny.pth"))
    assert "Convert the names" not in str(told.value)
