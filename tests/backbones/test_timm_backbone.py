"""timm models as pyramids: known before the first forward pass, and the last stage at stride 1 without dilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from occluded_reid import BACKBONES, Backbone, FeatureMaps
from occluded_reid.backbones import TimmBackbone, create_backbone
from occluded_reid.contracts import StageInfo
from occluded_reid.errors import BuildError, UnknownNameError, UnknownOptionError, WeightsError

SIZE = (96, 32)
FAMILIES = ("resnet10t", "resnet18", "test_resnet", "test_efficientnet", "test_convnext", "regnetx_002")


def make(name: str, last_stride: int = 1, **options: Any) -> TimmBackbone:
    backbone = create_backbone(name, SIZE, {"last_stride": last_stride, **options})
    assert isinstance(backbone, TimmBackbone)
    return backbone.eval()


def kind(module: nn.Module) -> type[nn.Module]:
    return nn.Conv2d if isinstance(module, nn.Conv2d) else type(module)


def layers(backbone: TimmBackbone) -> dict[str, tuple[Any, ...]]:
    """What each convolution and pooling looks like, without its stride and padding."""
    return {
        name: (kind(module), module.kernel_size, getattr(module, "dilation", 1), getattr(module, "groups", 1))
        for name, module in backbone.network.named_modules()
        if hasattr(module, "kernel_size") and hasattr(module, "stride")
    }


def strides(backbone: TimmBackbone) -> dict[str, int]:
    pairs = ((n, m.stride) for n, m in backbone.network.named_modules() if hasattr(m, "stride"))
    return {name: stride[0] if isinstance(stride, tuple) else stride for name, stride in pairs}


@pytest.mark.parametrize("name", FAMILIES)
def test_last_stride_1_changes_the_stride_and_nothing_else(name: str) -> None:
    usual, dense = make(name, 2), make(name, 1)
    shapes = [{key: tuple(value.shape) for key, value in b.state_dict().items()} for b in (usual, dense)]
    assert shapes[0] == shapes[1], "every tensor keeps its name and shape, so that pretrained weights still fit"
    before, after = layers(usual), layers(dense)
    gone = set(before) - set(after)
    assert all(before[layer][0] is nn.AvgPool2d for layer in gone), "only the pool of a short cut may go"
    assert {layer: shape for layer, shape in before.items() if layer not in gone} == after
    assert all(shape[2] in (1, (1, 1)) for shape in after.values()), "no dilation"
    changed = {layer for layer, stride in strides(dense).items() if stride != strides(usual)[layer]}
    assert changed | gone
    assert all(strides(dense)[layer] == 1 and strides(usual)[layer] == 2 for layer in changed)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    dense.load_state_dict(usual.state_dict())
    with torch.inference_mode():
        wide, narrow = dense(images), usual(images)
    stages = list(wide)
    for stage in stages[:-1]:
        assert torch.equal(wide[stage], narrow[stage])
    assert narrow[stages[-1]].shape[2:] == (3, 1)
    assert wide[stages[-1]].shape[2:] == wide[stages[-2]].shape[2:] == (6, 2)
    assert wide[stages[-1]].std() > 0


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_promised_is_what_comes(name: str, last_stride: int) -> None:
    backbone = make(name, last_stride)
    images = torch.zeros(1, 3, *SIZE)
    with torch.inference_mode():
        maps = backbone(images)
    assert isinstance(maps, FeatureMaps)
    assert maps.images is images
    assert list(maps) == list(backbone.feature_info) == [f"stage{i}" for i in range(len(maps))]
    for stage, info in backbone.feature_info.items():
        assert maps[stage].shape == (1, info.channels, SIZE[0] // info.stride, SIZE[1] // info.stride)
    assert [info.stride for info in backbone.feature_info.values()][-1] == 16 * last_stride


def test_a_resnet_calls_its_stages_as_its_paper_does() -> None:
    backbone = make("resnet18")
    assert backbone.feature_info["stage4"] == StageInfo(512, 16)
    (first,) = [m for n, m in backbone.network.named_modules() if n == "layer4.0.conv1"]
    assert first.stride == (1, 1)
    assert strides(backbone)["layer4.0.downsample.0"] == 1


def test_a_convolution_at_overlapping_positions_computes_the_same() -> None:
    """In the layer itself stride 1 computes what stride 2 computes at every second position, and what lies between."""
    usual, dense = make("resnet18", 2), make("resnet18", 1)
    dense.load_state_dict(usual.state_dict())
    grid = torch.randn(1, 256, 6, 2, generator=torch.Generator().manual_seed(0))
    for layer in ("layer4.0.conv1", "layer4.0.downsample.0"):
        narrow = usual.network.get_submodule(layer)(grid)
        wide = dense.network.get_submodule(layer)(grid)
        torch.testing.assert_close(wide[:, :, ::2, ::2], narrow)
        assert wide.shape[2:] == (6, 2)


def test_an_even_kernel_computes_the_same_at_overlapping_positions() -> None:
    usual, dense = make("test_convnext", 2), make("test_convnext", 1)
    dense.load_state_dict(usual.state_dict())
    (name,) = [n for n, stride in strides(dense).items() if stride != strides(usual)[n]]
    strided, even = usual.network.get_submodule(name), dense.network.get_submodule(name)
    assert even.kernel_size == (2, 2)
    grid = torch.randn(2, even.in_channels, 6, 4, generator=torch.Generator().manual_seed(0))
    wide = even(grid)
    assert wide.shape[2:] == (6, 4)
    torch.testing.assert_close(wide[:, :, ::2, ::2], strided(grid))
    # One more row and column of zeros at the end, by hand.
    padded = torch.zeros(2, even.in_channels, 7, 5)
    padded[:, :, :6, :4] = grid
    torch.testing.assert_close(wide, nn.functional.conv2d(padded, even.weight, even.bias))
    assert even.weight is dict(dense.named_parameters())[f"network.{name}.weight"]


def test_options_reach_timm() -> None:
    plain, narrow = make("test_resnet"), make("test_resnet", options={"output_stride": 32, "out_indices": (2, 3, 4)})
    assert len(narrow.feature_info) == 3
    assert len(plain.feature_info) == 5


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet10t", {"last_stride": 4}, BuildError, "last_stride must be 1 or 2; got 4"),
        ("resnet10t", {"last_strid": 1}, UnknownOptionError, "Did you mean 'last_stride'"),
        ("resnet10t", {"options": {"depth": 3}}, BuildError, "timm cannot give feature maps of 'resnet10t'"),
        ("resnet10t.no_such_tag", {}, BuildError, "no_such_tag"),
        ("resnet1O", {}, UnknownNameError, "no backbone is named 'resnet1O'. Did you mean 'resnet1"),
        ("tf_eficientnet_lite0", {}, UnknownNameError, "Did you mean 'tf_efficientnet_lite0'.*Registered: .*timm"),
    ],
)
def test_what_cannot_be_built_says_why(name: str, options: dict[str, Any], error, message: str) -> None:
    with pytest.raises(error, match=message):
        create_backbone(name, SIZE, options)


def test_where_there_is_no_stride_to_change_a_notice_says_so(caplog: pytest.LogCaptureFixture) -> None:
    plain = create_backbone("test_vit", (64, 32))
    assert caplog.text == ""
    told = create_backbone("test_vit", (64, 32), {"last_stride": 1})
    assert told.feature_info == plain.feature_info
    assert "last stage of 'test_vit' does not reduce its map" in caplog.text
    assert "last_stride: 1 changes nothing" in caplog.text


def test_a_transformer_is_built_for_the_size_of_the_images() -> None:
    backbone = create_backbone("test_vit", (64, 32)).eval()
    with torch.inference_mode():
        maps = backbone(torch.zeros(1, 3, 64, 32))
    info = list(backbone.feature_info.values())[-1]
    assert maps[list(maps)[-1]].shape == (1, info.channels, 64 // info.stride, 32 // info.stride)


def test_maps_with_channels_last_are_turned() -> None:
    """Some families give (N, h, w, C)."""
    backbone = create_backbone("swin_tiny_patch4_window7_224", (64, 32), {"options": {"depths": (1, 1, 1, 1)}}).eval()
    with torch.inference_mode():
        maps = backbone(torch.zeros(1, 3, 64, 32))
    for stage, info in backbone.feature_info.items():
        assert maps[stage].shape == (1, info.channels, 64 // info.stride, 32 // info.stride)


def test_a_backbone_of_ones_own_has_no_weights_to_fetch() -> None:
    class Pixels(Backbone):
        def __init__(self, input_size: tuple[int, int], *, times: int = 1) -> None:
            super().__init__(input_size)
            self.times = times
            self.feature_info = {"only": StageInfo(3, 1)}

        def forward(self, images: torch.Tensor) -> FeatureMaps:
            return FeatureMaps({"only": images * self.times}, images)

    BACKBONES.register("pixels")(Pixels)
    try:
        backbone = create_backbone("pixels", SIZE, {"times": 2})
        with pytest.raises(UnknownOptionError, match="Did you mean 'times'"):
            create_backbone("pixels", SIZE, {"tims": 2})
    finally:
        BACKBONES.unregister("pixels")
    assert backbone(torch.ones(1, 3, *SIZE))["only"].max() == 2
    with pytest.raises(BuildError, match="Pixels offers no pretrained weights; 'hub'"):
        backbone.load_pretrained("hub")


def test_a_hub_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make("resnet10t")
    asked = []

    def no_network(name: str, *, pretrained: bool, **_: Any) -> nn.Module:
        asked.append((name, pretrained))
        raise ConnectionError("no route to host")

    monkeypatch.setattr("occluded_reid.backbones.hub.unreachable", lambda _: None)
    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(WeightsError, match=r"'resnet10t' could not be fetched.*no route to host.*Give a local file"):
        backbone.load_pretrained("hub")
    assert asked == [("resnet10t", True)]


def test_weights_from_the_hub_arrive_in_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    torch.manual_seed(3)
    whole = timm.create_model("resnet10t", pretrained=False)
    monkeypatch.setattr("occluded_reid.backbones.hub.unreachable", lambda _: None)
    monkeypatch.setattr("timm.create_model", lambda name, **_: whole)
    backbone = create_backbone_without_timm(monkeypatch)
    backbone.load_pretrained("hub")
    state = whole.state_dict()
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, state[key]), key


def create_backbone_without_timm(monkeypatch: pytest.MonkeyPatch) -> TimmBackbone:
    """Build while timm is itself, then let it be whatever the test has put in its place."""
    import timm

    replaced = timm.create_model
    monkeypatch.undo()
    backbone = make("resnet10t")
    monkeypatch.setattr("timm.create_model", replaced)
    return backbone


def test_frozen_stages_stay_as_they_are_loaded() -> None:
    torch.manual_seed(0)
    free = TimmBackbone((64, 32), "test_efficientnet", last_stride=1)
    for stages in (1, 2, len(free.feature_info)):
        torch.manual_seed(0)
        network = TimmBackbone((64, 32), "test_efficientnet", last_stride=1, frozen_stages=stages)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        parameters = [p for p in network.parameters() if p.requires_grad]
        assert bool(parameters) == (stages < len(free.feature_info))
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        for _ in range(2):
            maps = network.train()(torch.randn(4, 3, 64, 32))
            if parameters:
                sum(grid.square().mean() for grid in maps.values()).backward()
                optimizer.step()
        changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
        images = torch.randn(2, 3, 64, 32)
        with torch.no_grad():
            now, then = network.eval()(images), free.eval()(images)
        same = [torch.equal(now[name], then[name]) for name in free.feature_info]
        assert same == [True] * stages + [False] * (len(same) - stages)
        assert all(name in changed for name, p in network.named_parameters() if p.requires_grad)
    with pytest.raises(BuildError, match=r"frozen_stages is 9; 'test_efficientnet' has the stages stage0"):
        TimmBackbone((64, 32), "test_efficientnet", frozen_stages=9)
