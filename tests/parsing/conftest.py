"""Small parsing networks, the same weights each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from occluded_reid import PARSERS
from occluded_reid.parsing.network import ParsingNetwork

SIZES: dict[str, dict[str, Any]] = {
    "small": {"backbone": "test_efficientnet", "height": 64, "width": 32, "widths": [8, 8]},
    "deeplabv3": {"backbone": "mobilenet_v3_large", "label_set": "sorn8", "height": 48, "width": 32},
}


@pytest.fixture
def network() -> Callable[..., ParsingNetwork]:
    """Make a network of a kind, with some options changed."""

    def make(kind: str = "small", **options: Any) -> ParsingNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = PARSERS.create(kind, **{**SIZES[kind], **options})
        for name, buffer in made.named_buffers():
            if name.endswith("running_var"):
                buffer.mul_(0.9)  # unlike their first values, so that a mode that is wrong shows
        return made

    return make
