"""What tests share: small models, few threads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid import Calibration, EmbeddedSet, PartEmbeddings, ReIDModel, build_model
from occluded_reid.contracts import Targets
from occluded_reid.models import packaged as packaging
from occluded_reid.models.provenance import Origin

torch.set_num_threads(1)

TINY = {
    "model.input": {"height": 96, "width": 32},
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
    "model.heads.global.options.total_width": 48,
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


SYSTEM = {
    "model.input.height": 96,
    "model.input.width": 32,
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
}
"""Any lite recipe on that network; what a system needs besides is in MORE."""
MORE: dict[str, dict[str, Any]] = {
    "sorn_lite": TINY,
    "oreid_lite": {"model.heads.semantic.options.widths": [16, 16]},
    "sgam_lite": {
        "model.parser": {
            "type": "small",
            "options": {"backbone": "test_efficientnet", "height": 96, "width": 32, "widths": [16, 16]},
        }
    },
}


@pytest.fixture
def system() -> Callable[..., ReIDModel]:
    """Build a lite recipe on a small network, the same weights each time."""

    def build(recipe: str, num_classes: int | None = 4, **overrides: Any) -> ReIDModel:
        torch.manual_seed(0)
        return build_model(recipe, num_classes=num_classes, **{**SYSTEM, **MORE.get(recipe, {}), **overrides})

    return build


@pytest.fixture
def views() -> Callable[..., tuple[torch.Tensor, Targets]]:
    """Random images, each identity twice, clean and then with its lower part covered: every system trains on them.

    A teacher of 256 numbers says the same of both views.
    """

    def make(people: int = 4) -> tuple[torch.Tensor, Targets]:
        generator = torch.Generator().manual_seed(1)
        clean = torch.randn(2 * people, 3, 96, 32, generator=generator)
        parsing = torch.randint(0, 8, (2 * people, 96, 32), generator=generator)
        occluded, masks = clean.clone(), torch.zeros(4 * people, 96, 32)
        occluded[:, :, 72:] = 0.5
        masks[2 * people :, 72:] = 1
        identity = torch.arange(people).repeat_interleave(2).repeat(2)
        view = torch.arange(2).repeat_interleave(2 * people)
        names = tuple(f"image_{i}" for i in range(4 * people))
        cameras, parsing = torch.zeros(4 * people, dtype=torch.long), parsing.repeat(2, 1, 1)
        taught = torch.randn(2 * people, 256, generator=generator).repeat(2, 1)
        return torch.cat([clean, occluded]), Targets(identity, cameras, names, parsing, masks, view, taught)

    return make


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


def calibrated(model: ReIDModel) -> Calibration:
    """A calibration of a model on random rows: forty people twice, some of their slots hidden."""
    generator = torch.Generator().manual_seed(2)
    people = {name: torch.randn(40, width, generator=generator) for name, width in model.slots.items()}
    sides = []
    for camera in range(2):
        rows = tuple(each + 0.3 * torch.randn(each.shape, generator=generator) for each in people.values())
        seen = (torch.rand(40, len(people), generator=generator) > 0.3).float()
        seen[:, 0] = 1
        cameras = np.full(40, camera)
        sides.append(EmbeddedSet(PartEmbeddings(tuple(people), rows, seen), identity=np.arange(40), camera=cameras))
    return Calibration.fit(
        *sides,
        model.matcher,
        false_match_rate=0.05,
        per="comparison",
        fingerprint=model.fingerprint,
        data="random",
        part="forty people, twice",
        people=[str(n) for n in range(40)],
    )


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `occluded_reid/weights`, with a small oreid_lite of random weights; nobody may change it."""
    folder = tmp_path_factory.mktemp("shelf")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model("oreid_lite", pretrained=False, **SYSTEM, **MORE["oreid_lite"]).eval()
    model.origin = Origin(trained=True)
    packaging.round_to_half(model)
    calibration = json.dumps(calibrated(model).model_dump(mode="json"))
    beside = {"calibration.json": calibration, "README.md": "# oreid_lite, small and at random\n"}
    packaging.write_packaged(model, folder / "oreid_lite", beside)
    return folder


@pytest.fixture
def packaged(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small oreid_lite in the place of the one that comes with the library."""
    monkeypatch.setattr(packaging, "WEIGHTS", shelf)
    return shelf / "oreid_lite"
