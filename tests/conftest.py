"""What tests share: small models, few threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from occluded_reid import ReIDModel, build_model
from occluded_reid.contracts import Targets

torch.set_num_threads(1)

TINY = {
    "model.input": {"height": 96, "width": 32},
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
    "model.heads.global.options.set_width": 16,
    "model.heads.semantic.options.widths": [16, 16],
}
"""SORN on a network of 20,000 parameters: a 6×2 map for images of 96×32."""


@pytest.fixture
def tiny() -> Callable[..., ReIDModel]:
    """Build a small SORN, the same weights each time."""

    def build(num_classes: int | None = 4, **overrides: Any) -> ReIDModel:
        torch.manual_seed(0)
        return build_model("sorn_lite", num_classes=num_classes, **{**TINY, **overrides})

    return build


@pytest.fixture
def batch() -> Callable[..., tuple[torch.Tensor, Targets]]:
    """Random images with targets, the same each time."""

    def make(count: int = 8, classes: int = 4, parts: int = 8) -> tuple[torch.Tensor, Targets]:
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(count, 3, 96, 32, generator=generator)
        parsing = torch.randint(0, parts, (count, 96, 32), generator=generator)
        identity = torch.arange(count) % classes
        names = tuple(f"image_{i}" for i in range(count))
        return images, Targets(identity, torch.zeros(count, dtype=torch.long), names, parsing)

    return make
