"""The center-focus module: a map whose middle columns count for more (OCNet §2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.errors import BuildError, ShapeError
from occluded_reid.functional import center_attention, center_focus, center_gate, center_window
from occluded_reid.heads.base import Head
from occluded_reid.registry import HEADS

__all__ = ["CenterFocusHead"]


@HEADS.register("center_focus")
class CenterFocusHead(Head):
    """Maps ``focused`` (N, C, h, w), F_c for a converter head to read, and ``attention`` (N, 1, h, w).

    The paper: crop the centre of F_BB in space, softmax to a probability map, multiply and add with F_BB. What the map
    is made from and its scale are unsaid.

    Args:
        info: what the builder knows.
        on: stage of the backbone, F_BB.
        width: W, the centre's width in cells of the map. As many columns have to be left over on both sides, so W is
            even for maps of an even width and odd for others.
        crop: "columns" takes W columns over the full height, "square" W × W cells.
        score: what the softmax is taken of: the "mean" or the "max" over the channels, or a learnt "conv1x1".
        scale: "n" multiplies the probabilities by the number of central cells, so that their mean is 1; 1 leaves them
            as they are, which changes next to nothing ("spatial" only).
        residual: add F_BB itself; without it only the centre is left.
        reading: "spatial" as above, or "channel": the probabilities pool the centre to a vector, whose sigmoid gates
            the channels.

    Raises:
        BuildError: no W columns lie in the middle of this map.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str | int = "last",
        width: Annotated[int, Field(ge=1)] = 2,
        crop: Literal["columns", "square"] = "columns",
        score: Literal["mean", "max", "conv1x1"] = "mean",
        scale: Literal["n", 1] = "n",
        residual: bool = True,
        reading: Literal["spatial", "channel"] = "spatial",
    ) -> None:
        super().__init__(info)
        self.stage = info.stage_name(on)
        stage = info.stages[self.stage]
        try:
            center_window(*info.map_size(self.stage), width, crop)
        except ShapeError as error:
            raise BuildError(
                f"head '{info.name}' on {self.stage}, for images of {info.input_size[0]}×{info.input_size[1]}: {error}"
            ) from error
        self.width, self.crop, self.score = width, crop, score
        self.scale, self.residual, self.reading = scale, residual, reading
        # No bias: the softmax over positions does not see it.
        self.scoring = nn.Conv2d(stage.channels, 1, 1, bias=False) if score == "conv1x1" else None
        self.info = HeadInfo(
            maps={"focused": MapInfo(stage.channels, stage.stride), "attention": MapInfo(1, stage.stride)}
        )

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return F_c and the probability map."""
        grid = features[self.stage]
        attention = center_attention(self._scores(grid), self.width, self.crop)
        if self.reading == "channel":
            focused = center_gate(grid, attention, self.residual)
        else:
            focused = center_focus(grid, attention, self._gain(grid), self.residual)
        return HeadOutput(maps={"focused": focused, "attention": attention[:, None]})

    def _scores(self, grid: Tensor) -> Tensor:
        if self.scoring is not None:
            scores: Tensor = self.scoring(grid)[:, 0]
            return scores
        return grid.mean(1) if self.score == "mean" else grid.amax(1)

    def _gain(self, grid: Tensor) -> float:
        """s: the number n_c of central cells, or 1."""
        return (
            float(self.width * (self.width if self.crop == "square" else grid.shape[2])) if self.scale == "n" else 1.0
        )
