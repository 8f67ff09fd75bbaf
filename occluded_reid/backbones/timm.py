"""Any timm model as a pyramid of feature maps, with the last stage at stride 1 where a system asks for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Literal, Self

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from occluded_reid.backbones.base import Backbone
from occluded_reid.backbones.hub import no_weights, quick_hub
from occluded_reid.backbones.layouts import Imported
from occluded_reid.backbones.timm_options import FEATURE_OPTIONS, require_timm_name, require_timm_options
from occluded_reid.backbones.weights import load_into, transfer_by_name
from occluded_reid.contracts import FeatureMaps, StageInfo
from occluded_reid.errors import BuildError, WeightsError
from occluded_reid.registry import BACKBONES

__all__ = ["TimmBackbone"]

_LOG = logging.getLogger(__name__)


@BACKBONES.register("timm")
class TimmBackbone(Backbone):
    """A timm model's feature maps, named ``stage0 …`` from fine to coarse; ResNet's layer4 is ``stage4``.

    A transformer with a class token gives it too, `FeatureMaps.class_token`; its stages are the patch tokens after the
    last blocks (timm takes three; ``{"out_indices": 1}`` takes the last one), and all have been through the network's
    final norm. Its position embedding is resized to the grid of the images when weights are loaded.

    Args:
        input_size: (height, width) of the images in pixels.
        name: timm's name of the model, with or without a weights tag: ``"resnet50.tv_in1k"``.
        last_stride: stride of the last stage, 1 or 2. 1 changes the stride without dilation and doubles the last map
            (Sun et al., Beyond Part Models, 2018); timm's own output_stride dilates, which is another network. Of a
            network whose last stage has no stride, such as a transformer, it is ignored with a notice.
        options: further keywords of timm.create_model that shape the network (`SHAPING_OPTIONS`, `FEATURE_OPTIONS`),
            such as ``{"drop_path_rate": 0.1}``, which rises linearly from 0 over the blocks.
        stem: what the first layers of a ResNet compute. "usual": normalisation, ReLU, a 3×3 max pool with padding.
            "linear": no ReLU, as reid-strong-baseline's. "unpadded": a pool that has no padding and rounds up, as
            fast-reid's.
        positions: how a position embedding is resized: "bicubic" with antialiasing, timm's way, or "bilinear" without,
            TransReID's and FED's.
        frozen_stages: how many stages, from the finest on, stay as they are loaded, statistics of batch normalisation
            included: a third less work in training where the two finest of a small network are frozen.

    Raises:
        UnknownNameError: timm has no model of that name.
        UnknownOptionError: an option does not shape the network: it names a file, an address, code, or nothing known.
        BuildError: timm gives no feature maps for this model, or its last stage cannot run at stride 1.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        name: str,
        *,
        last_stride: int = 2,
        options: dict[str, Any] | None = None,
        positions: Literal["bicubic", "bilinear"] = "bicubic",
        stem: Literal["usual", "linear", "unpadded"] = "usual",
        frozen_stages: int = 0,
    ) -> None:
        super().__init__(input_size)
        self.name, self.positions, self.stem = name, positions, stem
        self.options = dict(options or {})
        require_timm_name(name)
        require_timm_options(self.options)
        try:
            self.network = self._make_network()
        except (RuntimeError, TypeError, AttributeError, AssertionError, LookupError, ValueError) as error:
            raise BuildError(
                f"timm cannot give feature maps of '{name}' with {self.options}: {error}. Choose a model of "
                "timm.list_models() that supports features_only."
            ) from error
        if last_stride not in (1, 2):
            raise BuildError(f"last_stride must be 1 or 2; got {last_stride}.")
        if stem != "usual":
            self._change_stem(stem)
        sizes = self._map_sizes()
        if last_stride == 1:
            self._unstride_last_stage(sizes)
            sizes = self._map_sizes()
        given = self.network.feature_info
        channels = given if isinstance(given, list) else given.channels()
        self.feature_info = {
            f"stage{i}": StageInfo(c, max(1, round(input_size[0] / size[0])))
            for i, (c, size) in enumerate(zip(channels, sizes, strict=True))
        }
        self._frozen = self._freeze(frozen_stages) if frozen_stages else ()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return every stage as (N, C, h, w), and the class token (N, C) of a transformer that has one."""
        if self.class_token is not None:
            grids, class_token = self.network.tokens(images)
            return FeatureMaps(dict(zip(self.feature_info, grids, strict=True)), images, class_token)
        maps = [m.permute(0, 3, 1, 2) if self._channels_come_last else m for m in self.network(images)]
        return FeatureMaps(dict(zip(self.feature_info, maps, strict=True)), images)

    def load_pretrained(self, source: str, match: str = "auto") -> Imported | None:
        """Load ImageNet weights from timm's hub ("hub"), or from a local .safetensors or .pth file.

        Args:
            source: "hub" or a path.
            match: "timm" wants timm's key names; "order" wants the tensors of timm's whole model in the same order and
                shapes under other names; a project's name (`backbones.layouts.LAYOUTS`) its names; "auto" finds out.

        Returns:
            What a file of another project held besides the backbone; None for any other.

        Raises:
            WeightsError: the hub cannot be reached, or the file's key layout does not fit; the message shows both.
            UnknownNameError: there is no layout of that name.

        Positions of another grid, as after training at another image size, are resized to that of the images.
        """
        imported = None
        if source == "hub":
            sized = not self._has_positions
            with quick_hub() as why:
                try:
                    whole = timm.create_model(self.name, pretrained=True, **self._keywords(sized=sized))
                except (OSError, RuntimeError, ValueError) as error:
                    raise WeightsError(no_weights(self.name, "timm's hub", why or error)) from error
        else:
            whole = timm.create_model(self.name, pretrained=False, **self._keywords())
            resize = {"pos_embed": self._resizer(whole)} if self._has_positions else None
            imported = load_into(whole, source, match, resize, self.stem)
        if self._has_positions:
            self._resize_positions(whole)
        transfer_by_name(whole, self.network, self.name)
        return imported

    def _make_network(self) -> Any:
        """The features_only form; of a transformer with a class token one that keeps it, and the final norm."""
        if self._fixed_grid:
            whole = timm.create_model(self.name, pretrained=False, **self._keywords())
            if isinstance(getattr(whole, "cls_token", None), Tensor) and hasattr(whole, "forward_intermediates"):
                self.class_token = int(whole.num_features)
                return _TokenNet(whole, self.options.get("out_indices", 3))
        return timm.create_model(
            self.name, pretrained=False, features_only=True, **self._keywords(), **self._feature_keywords()
        )

    def _keywords(self, sized: bool = True) -> dict[str, Any]:
        """timm's keywords; transformers with a fixed position grid must know the image size."""
        size = {"img_size": self.input_size} if sized and self._fixed_grid else {}
        return {**size, **{key: value for key, value in self.options.items() if key not in FEATURE_OPTIONS}}

    def _feature_keywords(self) -> dict[str, Any]:
        return {key: value for key, value in self.options.items() if key in FEATURE_OPTIONS}

    @property
    def _fixed_grid(self) -> bool:
        return any(word in self.name for word in ("vit", "deit", "beit", "eva", "swin"))

    @property
    def _has_positions(self) -> bool:
        """Whether the network learns an embedding for each position of one grid."""
        positions = getattr(getattr(self.network, "model", None), "pos_embed", None)
        return isinstance(positions, Tensor) and positions.ndim == 3

    def _resize_positions(self, whole: Any) -> None:
        """Bring the positions of a model at the hub's image size to the grid of the images."""
        grid = tuple(whole.patch_embed.grid_size)
        if grid != tuple(self.network.model.patch_embed.grid_size):
            whole.pos_embed = nn.Parameter(self._resampled(whole, whole.pos_embed, grid))

    def _resizer(self, whole: Any) -> Callable[[Tensor], Tensor]:
        """What brings the positions of a file, whatever image size it was trained at, to the grid of the images."""

        def resize(positions: Tensor) -> Tensor:
            own = whole.pos_embed
            rows, columns = whole.patch_embed.grid_size
            cells = positions.shape[1] - (own.shape[1] - rows * columns) if positions.ndim == 3 else 0
            if cells < 1 or positions.shape[2] != own.shape[2]:
                return positions  # the message on shapes shows it
            usual = tuple(
                side // patch
                for side, patch in zip(
                    whole.pretrained_cfg["input_size"][1:], whole.patch_embed.patch_size, strict=True
                )
            )
            grid = usual if cells == math.prod(usual) else (rows, columns)
            grid = grid if cells == math.prod(grid) else _likely_grid(cells, rows / columns)
            return positions if grid == (rows, columns) else self._resampled(whole, positions, grid)

        return resize

    def _resampled(self, whole: Any, positions: Tensor, grid: tuple[int, ...]) -> Tensor:
        own: list[int] = list(self.network.model.patch_embed.grid_size)
        _LOG.info("the position embedding of '%s' is resized from %s to %s", self.name, grid, own)
        resized: Tensor = resample_abs_pos_embed(
            positions,
            new_size=own,
            old_size=list(grid),
            num_prefix_tokens=0 if getattr(whole, "no_embed_class", False) else whole.num_prefix_tokens,
            interpolation=self.positions,
            antialias=self.positions == "bicubic",
        )
        return resized

    @property
    def _channels_come_last(self) -> bool:
        return getattr(self.network, "output_fmt", None) is not None and str(self.network.output_fmt).endswith("NHWC")

    @torch.no_grad()
    def _map_sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of each stage for this input size, from one empty image."""
        was_training = self.network.training
        self.network.eval()
        maps = self.network(torch.zeros(1, 3, *self.input_size))
        self.network.train(was_training)
        return [(m.shape[1], m.shape[2]) if self._channels_come_last else (m.shape[2], m.shape[3]) for m in maps]

    def _freeze(self, stages: int) -> tuple[nn.Module, ...]:
        """Freeze what the finest stages are computed with; return the layers that keep statistics of it."""
        if not 0 <= stages <= len(self.feature_info):
            raise BuildError(
                f"frozen_stages is {stages}; '{self.name}' has the stages {', '.join(self.feature_info)}. "
                f"Give 0 to {len(self.feature_info)}."
            )
        was_training = self.network.training
        self.network.eval()  # one image; and no statistics are to move
        with torch.enable_grad():
            maps = self.network(torch.zeros(1, 3, *self.input_size))
            parameters = list(self.network.parameters())
            reached = torch.autograd.grad(maps[stages - 1].sum(), parameters, allow_unused=True)
        self.network.train(was_training)
        frozen = {id(p) for p, gradient in zip(parameters, reached, strict=True) if gradient is not None}
        for parameter in parameters:
            parameter.requires_grad_(id(parameter) not in frozen)
        return tuple(
            module
            for module in self.network.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase)
            and any(id(parameter) in frozen for parameter in module.parameters(recurse=False))
        )

    def _change_stem(self, stem: str) -> None:
        """Leave out the first ReLU, or the padding of the first pool."""
        parts = dict(self.network.named_children())
        pool = parts.get("maxpool")
        if stem not in ("linear", "unpadded") or not isinstance(parts.get("act1"), nn.ReLU):
            raise BuildError(
                f"stem is '{stem}' for '{self.name}'; wanted 'usual', or for a ResNet 'linear' or 'unpadded'."
            )
        if stem == "linear":
            self.network.set_submodule("act1", nn.Identity())
        elif isinstance(pool, nn.MaxPool2d):
            self.network.set_submodule("maxpool", nn.MaxPool2d(3, stride=2, ceil_mode=True))
        else:
            raise BuildError(f"stem is 'unpadded', and '{self.name}' does not begin with a max pool. Leave stem out.")

    def _unstride_last_stage(self, sizes: list[tuple[int, int]]) -> None:
        """Set to stride 1 every layer that halves the second-last map to the last one's size."""
        if len(sizes) < 2 or sizes[-1] == sizes[-2]:
            _LOG.warning(
                "the last stage of '%s' does not reduce its map (%s): there is no stride to change, and last_stride: 1 "
                "changes nothing",
                self.name,
                ", ".join(f"{rows}×{columns}" for rows, columns in sizes),
            )
            return
        found: list[tuple[str, nn.Module]] = []

        def watch(name: str) -> Any:
            def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
                if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor) and output.ndim == 4:
                    before, after = tuple(inputs[0].shape[2:]), tuple(output.shape[2:])
                    if before == sizes[-2] and after == sizes[-1]:
                        found.append((name, module))

            return hook

        handles = [
            module.register_forward_hook(watch(name))
            for name, module in self.network.named_modules()
            if hasattr(module, "stride") and not list(module.children())
        ]
        self._map_sizes()
        for handle in handles:
            handle.remove()
        for name, module in found:
            self._unstride(name, module)
        if not found or self._map_sizes()[-1] != sizes[-2]:
            raise BuildError(
                f"the last stage of '{self.name}' cannot run at stride 1: its down-sampling layers "
                f"({', '.join(n for n, _ in found) or 'none found'}) do not allow it. Leave last_stride at 2."
            )

    def _unstride(self, name: str, module: Any) -> None:
        if isinstance(module, nn.AvgPool2d):
            # The pool of a "d" shortcut exists to halve the map; at stride 1 there is nothing left for it to do.
            self.network.set_submodule(name, nn.Identity())
            return
        if type(module) is nn.Conv2d and any(k % 2 == 0 for k in module.kernel_size):
            self.network.set_submodule(name, _EvenConv2d(module))
            return
        module.stride = (1, 1)


def _likely_grid(cells: int, proportion: float) -> tuple[int, int]:
    """Rows and columns of that many positions: a square, as pretraining has, or else what is nearest to a proportion.

    A file says how many positions it has, and not how they lay.

    Example:
        >>> _likely_grid(196, 2.0), _likely_grid(128, 2.0), _likely_grid(210, 2.0)
        ((14, 14), (16, 8), (21, 10))
    """
    side = math.isqrt(cells)
    if side * side == cells:
        return side, side
    fitting = [(rows, cells // rows) for rows in range(1, cells + 1) if cells % rows == 0]
    return min(fitting, key=lambda grid: abs(math.log(grid[0] / grid[1] / proportion)))


class _TokenNet(nn.Module):
    """A transformer's patch tokens as maps, beside its class token, all after its final norm.

    timm's own features_only form drops both the class token and the norm.
    """

    def __init__(self, model: Any, out_indices: Any) -> None:
        super().__init__()
        self.indices = model.prune_intermediate_layers(out_indices, prune_norm=False)
        self.model = model
        self.feature_info = [int(model.num_features)] * len(self.indices)

    def tokens(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return a map (N, C, h, w) for each block that is taken, and the class token (N, C) after the last."""
        taken = self.model.forward_intermediates(
            images, indices=self.indices, return_prefix_tokens=True, norm=True, intermediates_only=True
        )
        return [grid for grid, _ in taken], taken[-1][1][:, 0]

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.tokens(images)[0]


class _EvenConv2d(nn.Conv2d):
    """A convolution at stride 1 whose kernel has an even side: one row more of zeros below and to the right.

    torch's own padding="same" does this too, and warns that it copies its input.
    """

    def __init__(self, strided: nn.Conv2d) -> None:
        rows, columns = strided.kernel_size
        super().__init__(
            strided.in_channels,
            strided.out_channels,
            (rows, columns),
            groups=strided.groups,
            bias=strided.bias is not None,
            device="meta",
        )
        self.weight, self.bias = strided.weight, strided.bias
        self.margins = ((columns - 1) // 2, columns // 2, (rows - 1) // 2, rows // 2)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(input, self.margins))
