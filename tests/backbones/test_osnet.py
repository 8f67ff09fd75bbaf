"""OSNet against a naive forward pass from its paper's equations, its size, and the authors' names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from occluded_reid import build_model
from occluded_reid.backbones import OSNet, create_backbone
from occluded_reid.errors import OccludedReIDError, WeightsError

STRIDES = {"stage0": 2, "stage1": 4, "stage2": 8, "stage3": 16}


def make(**options: str) -> OSNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_backbone("osnet", (64, 32), options)
    for module in network.modules():  # as if trained: means that are not 0 and variances that are not 1
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    assert isinstance(network, OSNet)
    return network.double().eval()


class ByHand:
    """The plain network from its state dict, in functions."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        scale = self.state[f"{name}.weight"] / (var + 1e-5).sqrt()
        shape = (1, -1, 1, 1) if x.ndim == 4 else (1, -1)
        return (x - mean.view(shape)) * scale.view(shape) + self.state[f"{name}.bias"].view(shape)

    def conv(self, x: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def light(self, x: Tensor, name: str) -> Tensor:
        x = self.conv(x, f"{name}.conv1")
        x = self.conv(x, f"{name}.conv2", padding=1, groups=x.shape[1])
        return self.norm(x, f"{name}.bn").clamp(min=0)

    def block(self, x: Tensor, name: str) -> Tensor:
        """Eq. 1 to 3: x + Σ_{t=1}^{4} G(F^t(x)) ⊙ F^t(x)."""
        low = self.norm(self.conv(x, f"{name}.conv1.conv"), f"{name}.conv1.bn").clamp(min=0)
        total = torch.zeros_like(low)
        for t, letter in enumerate("abcd", start=1):
            stream = low
            for number in range(t):
                stream = self.light(stream, f"{name}.conv2{letter}" + ("" if t == 1 else f".{number}"))
            gate = self.conv(stream.mean((2, 3), keepdim=True), f"{name}.gate.fc1").clamp(min=0)
            total = total + stream * torch.sigmoid(self.conv(gate, f"{name}.gate.fc2"))
        out = self.norm(self.conv(total, f"{name}.conv3.conv"), f"{name}.conv3.bn")
        if f"{name}.downsample.conv.weight" in self.state:
            x = self.norm(self.conv(x, f"{name}.downsample.conv"), f"{name}.downsample.bn")
        return (out + x).clamp(min=0)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x, "conv1.conv", stride=2, padding=3), "conv1.bn").clamp(min=0)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in (2, 3, 4):
            x = self.block(self.block(x, f"conv{stage}.0"), f"conv{stage}.1")
            name = f"conv{stage}.2.0" if stage < 4 else "conv5"
            x = self.norm(self.conv(x, f"{name}.conv"), f"{name}.bn").clamp(min=0)
            if stage < 4:
                x = F.avg_pool2d(x, 2)
        vector = x.mean((2, 3)) @ self.state["fc.0.weight"].T + self.state["fc.0.bias"]
        return self.norm(vector, "fc.1").clamp(min=0)


@pytest.mark.parametrize("width", ["x0_25", "x0_5"])
def test_it_is_the_papers_network(width: str) -> None:
    network = make(width=width)
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    features = network(images)
    assert torch.allclose(features.vectors["embedding"], ByHand(network.state_dict())(images), atol=1e-9)
    for name, info in network.feature_info.items():
        assert info.stride == STRIDES[name]
        assert features[name].shape == (2, info.channels, 64 // info.stride, 32 // info.stride)


@pytest.mark.parametrize(("width", "millions"), [("x1_0", 2.2), ("x0_75", 1.3), ("x0_5", 0.6), ("x0_25", 0.2)])
def test_its_size_is_the_published_one(width: str, millions: float) -> None:
    """Parameters in millions, as Table 7 of the paper rounds them."""
    count = sum(p.numel() for p in create_backbone("osnet", (64, 32), {"width": width}).parameters())
    assert round(count / 1e6, 1) == millions


def test_ain_normalises_where_its_search_has_put_it() -> None:
    network = make(variant="ain")
    kinds = {n for n, m in network.named_modules() if isinstance(m, torch.nn.InstanceNorm2d)}
    assert kinds == {"conv1.bn", "conv2.0.IN", "conv2.1.IN", "conv3.1.IN", "conv4.0.IN"}
    assert {"conv2.0.conv2.3.layers.3.conv2.weight", "pool2.0.conv.weight", "conv5.conv.weight"} <= set(
        network.state_dict()
    )
    assert not any(name.startswith("conv2.0.conv3.bn") for name in network.state_dict())
    images = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    together, alone = network(images).vectors["embedding"], network(images[:1]).vectors["embedding"]
    assert torch.allclose(together[:1], alone, atol=1e-9)


@pytest.mark.parametrize("variant", ["plain", "ain"])
def test_the_authors_files_load_as_they_are(variant: str, tmp_path: Path) -> None:
    """As torchreid saves them: under state_dict, from several GPUs, with a classifier of other people."""
    source = make(variant=variant, width="x0_25").float()
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    state["module.classifier.weight"] = torch.zeros(7, 512)
    torch.save({"state_dict": state, "epoch": 60}, tmp_path / "osnet.pth.tar")
    recipe = {
        "name": "osnet",
        "model": {
            "input": {"height": 64, "width": 32},
            "backbone": {
                "type": "osnet",
                "weights": str(tmp_path / "osnet.pth.tar"),
                "options": {"width": "x0_25", "variant": variant},
            },
            "heads": {"global": "embedding"},
        },
    }
    model = build_model(recipe, pretrained=True).eval()
    images = torch.randn(1, 3, 64, 32)
    assert torch.equal(model.embed(images).embeddings[0], source(images).vectors["embedding"])
    wrong = {**recipe, "model": {**recipe["model"], "backbone": {**recipe["model"]["backbone"], "options": {}}}}  # type: ignore[dict-item]
    with pytest.raises(WeightsError, match="the file has"):
        build_model(wrong, pretrained=True)


def test_what_it_does_not_have_is_said() -> None:
    with pytest.raises(OccludedReIDError, match="x2_0"):
        create_backbone("osnet", (64, 32), {"width": "x2_0"})
    with pytest.raises(WeightsError, match="on no hub"):
        create_backbone("osnet", (64, 32)).load_pretrained("hub")
