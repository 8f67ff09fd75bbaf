"""OSNet: features of several scales at once, weighed by one gate (Zhou et al., Omni-Scale Feature Learning, ICCV 2019).

Parts carry the names of the authors' published weights, so that these load as they are.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from occluded_reid.backbones.base import Backbone
from occluded_reid.backbones.layouts import Imported
from occluded_reid.backbones.weights import load_into
from occluded_reid.contracts import FeatureMaps, StageInfo
from occluded_reid.errors import BuildError, WeightsError
from occluded_reid.registry import BACKBONES

__all__ = ["OSNet"]

_CHANNELS = (64, 256, 384, 512)
_WIDTHS = {"x1_0": 1.0, "x0_75": 0.75, "x0_5": 0.5, "x0_25": 0.25}
_SCALES = 4  # T of the paper: a stream of t light convolutions for each t up to it
_BOTTLENECK = 4
_GATE = 16
# Where OSNet-AIN's search has put instance normalisation (Zhou et al., Learning Generalisable Omni-Scale
# Representations, TPAMI 2021, Fig. 5): two blocks in each of the three stages.
_NORMALISED = ((True, True), (False, True), (True, False))


@BACKBONES.register("osnet")
class OSNet(Backbone):
    """OSNet, or OSNet-AIN, whose search has put instance normalisation into some blocks.

    A block reduces its input, runs it through T = 4 streams of 1 to 4 light 3×3 convolutions (point-wise, then
    depth-wise), adds them up weighed by one gate that all streams share, and adds the input (§3.2). Stages: after the
    first convolution (stride 2), and after each pair of blocks (4, 8, 16, the last through conv5). The embedding is
    what the authors match: the pooled map through a linear layer, batch normalisation and ReLU.

    Args:
        input_size: (height, width) of the images in pixels.
        width: "x1_0", "x0_75", "x0_5" or "x0_25".
        variant: "plain" or "ain".
        feature: width of the embedding.

    Raises:
        BuildError: there is no such width.
    """

    file: ClassVar[str] = "the authors' (torchreid)"

    def __init__(
        self,
        input_size: tuple[int, int],
        *,
        width: Literal["x1_0", "x0_75", "x0_5", "x0_25"] = "x1_0",
        variant: Literal["plain", "ain"] = "plain",
        feature: int = 512,
    ) -> None:
        super().__init__(input_size)
        if width not in _WIDTHS:
            raise BuildError(f"OSNet has no width '{width}'; there are {', '.join(_WIDTHS)}.")
        channels = [int(count * _WIDTHS[width]) for count in _CHANNELS]
        ain = variant == "ain"
        self.ain, self.variant, self.width = ain, variant, width
        self.conv1 = _Convolution(3, channels[0], 7, stride=2, instance=ain)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for stage, (before, after) in enumerate(itertools.pairwise(channels)):
            blocks = [
                _Block(before if number == 0 else after, after, ain=ain, instance=ain and _NORMALISED[stage][number])
                for number in range(2)
            ]
            last = _Convolution(after, after, 1)
            halved = nn.Sequential(last, nn.AvgPool2d(2, stride=2)) if stage < 2 else last
            if ain:
                # The authors' two networks cut the same chain at different places.
                setattr(self, f"conv{stage + 2}", nn.Sequential(*blocks))
                if stage < 2:
                    setattr(self, f"pool{stage + 2}", halved)
            else:
                setattr(self, f"conv{stage + 2}", nn.Sequential(*blocks, *([halved] if stage < 2 else [])))
        self.conv5 = _Convolution(channels[3], channels[3], 1)
        self.fc = nn.Sequential(nn.Linear(channels[3], feature), nn.BatchNorm1d(feature), nn.ReLU(inplace=True))
        self.vectors = {"embedding": feature}
        self.pretrained_cfg = {"classifier": "classifier"}  # what a weights file may hold beside these parts
        self.feature_info = {f"stage{n}": StageInfo(count, 2 ** (n + 1)) for n, count in enumerate(channels)}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return the four stages, and the embedding (N, feature)."""
        stages = [self.conv1(images)]
        grid = self.maxpool(stages[0])
        for number in (2, 3, 4):
            stage: Any = getattr(self, f"conv{number}")
            blocks = stage if self.ain else stage[:2]
            for block in blocks:
                grid = block(grid)
            if number == 4:
                grid = self.conv5(grid)
            stages.append(grid)
            if number < 4:
                grid = (getattr(self, f"pool{number}") if self.ain else stage[2])(grid)
        vectors = {"embedding": self.fc(grid.mean((2, 3)))}
        return FeatureMaps(dict(zip(self.feature_info, stages, strict=True)), images, vectors=vectors)

    def load_pretrained(self, source: str, match: str = "auto") -> Imported | None:
        """Load a file with the authors' names (torchreid); its classifier is left out.

        Raises:
            WeightsError: the hub is asked, which has none; or the file does not fit.
        """
        if source == "hub":
            raise WeightsError(
                "OSNet's weights are on no hub that this library asks. Give the authors' file: "
                "model.backbone.weights=FILE (--weights FILE)."
            )
        return load_into(self, Path(source), match)


class _Convolution(nn.Module):
    """Convolution, normalisation and, unless it is linear, ReLU."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, instance: bool = False, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn = nn.InstanceNorm2d(after, affine=True) if instance else nn.BatchNorm2d(after)
        self.linear = linear

    def forward(self, grid: Tensor) -> Tensor:
        grid = self.bn(self.conv(grid))
        return grid if self.linear else torch.relu(grid)


class _Light(nn.Module):
    """A 3×3 convolution in two: point-wise, then depth-wise (Fig. 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, grid: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv2(self.conv1(grid))))


class _Stream(nn.Module):
    """As many light convolutions, one after the other, as OSNet-AIN names them."""

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_Light(channels) for _ in range(length)))

    def forward(self, grid: Tensor) -> Tensor:
        streamed: Tensor = self.layers(grid)
        return streamed


class _Gate(nn.Module):
    """G(x) of Eq. 3: a weight for each channel, from the pooled map through two layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _GATE, 1)
        self.fc2 = nn.Conv2d(channels // _GATE, channels, 1)

    def forward(self, grid: Tensor) -> Tensor:
        pooled = grid.mean((2, 3), keepdim=True)
        return grid * torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))


class _Block(nn.Module):
    """x + Σ_t G(x_t) ⊙ x_t, the streams x_t seeing 3, 5, 7 and 9 pixels (Eq. 1 to 3)."""

    def __init__(self, before: int, after: int, *, ain: bool, instance: bool) -> None:
        super().__init__()
        middle = after // _BOTTLENECK
        self.conv1 = _Convolution(before, middle, 1)
        if ain:
            self.conv2 = nn.ModuleList([_Stream(middle, length) for length in range(1, _SCALES + 1)])
        else:
            self.conv2a = _Light(middle)
            for length, name in enumerate("bcd", start=2):
                setattr(self, f"conv2{name}", nn.Sequential(*(_Light(middle) for _ in range(length))))
        self.gate = _Gate(middle)
        self.conv3 = _Linear(middle, after, normalised=not instance)
        self.downsample = _Linear(before, after, normalised=True) if before != after else None
        self.IN = nn.InstanceNorm2d(after, affine=True) if instance else None
        self.ain = ain

    def forward(self, grid: Tensor) -> Tensor:
        reduced = self.conv1(grid)
        streams = self.conv2 if self.ain else [getattr(self, f"conv2{name}") for name in "abcd"]
        summed = torch.stack([self.gate(stream(reduced)) for stream in streams]).sum(0)
        widened = self.conv3(summed)
        identity = grid if self.downsample is None else self.downsample(grid)
        if self.IN is not None:
            widened = self.IN(widened)
        return torch.relu(widened + identity)


class _Linear(nn.Module):
    """A point-wise convolution without activation, batch-normalised or not."""

    def __init__(self, before: int, after: int, *, normalised: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1, bias=False)
        self.bn = nn.BatchNorm2d(after) if normalised else None

    def forward(self, grid: Tensor) -> Tensor:
        grid = self.conv(grid)
        return grid if self.bn is None else self.bn(grid)
