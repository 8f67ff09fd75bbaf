"""A head of your own inside SORN: registered by name, used from the builder, matched like any other slot.

python examples/own_head.py
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from occluded_reid import HEADS, BuildInfo, FeatureMaps, Head, HeadInfo, HeadOutput, Targets, build_model


@HEADS.register("waist")
class WaistHead(Head):
    """The middle rows of a map, pooled: where belts, bags and hems are.

    Args:
        info: what the builder knows.
        on: stage of the backbone.
        rows: how many rows around the middle.
    """

    def __init__(self, info: BuildInfo, *, on: str | int = "last", rows: int = 2) -> None:
        super().__init__(info)
        self.stage, self.rows = info.stage_name(on), rows
        width = info.stages[self.stage].channels
        self.info = HeadInfo(slots={"waist": width}, inference_slots=("waist",))

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the slot ``waist``."""
        grid = features[self.stage]
        start = (grid.shape[2] - self.rows) // 2
        return HeadOutput(embeddings={"waist": grid[:, :, start : start + self.rows].mean((2, 3))})


def main() -> None:
    """Build the model, embed two images, compare them."""
    model = build_model("sorn_lite", heads={"waist": {"type": "waist", "options": {"rows": 4}}})
    images = torch.rand(2, 3, model.preprocess.height, model.preprocess.width)
    rows = model.embed(images)
    print(rows)
    print("distance of the two images:", float(model.matcher.distance(rows[:1], rows[1:])))


if __name__ == "__main__":
    main()
