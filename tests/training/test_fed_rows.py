"""What FED's page calls an option or a row of a table is one override away, and learns."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from occluded_reid import build_model, load_recipe
from occluded_reid.contracts import HeadInfo

SMALL = {
    "model.input.height": 96,
    "model.input.width": 32,
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
    "data.batch": 8,
    "data.instances": 2,
}
START: list[Any] = ["flip", {"type": "pad_crop", "options": {"pad": 5}}]
ROWS: dict[str, dict[str, Any]] = {
    "as the recipe says": {},
    "m from coverage": {"data.augment": [*START, {"type": "npo", "options": {"mask": "coverage"}}]},
    "random erasing in place of patches": {"data.augment": [*START, "erase_occluder"]},
    "views normalised together": {"model.heads.erasing.options.bn_views": "joint"},
    "unguided diffusion": {"model.heads.diffusion.options.scores": "none"},
    "fusion guided by m": {"model.heads.diffusion.options.scores": "mask"},
    "no erasing": {"model.heads.erasing.options.erase": "none"},
    "no diffusion": {
        "model.heads.diffusion": None,
        "model.heads.diffused_memory": None,
        "model.losses.diffused": None,
        "model.losses.diffused_memory": None,
    },
    "no memory": {
        "model.heads.diffusion": None,
        "model.heads.diffused_memory": None,
        "model.heads.memory": None,
        "model.losses.diffused": None,
        "model.losses.diffused_memory": None,
        "model.losses.memory": None,
    },
    "trained on bicubic, used on bilinear images": {"data.resample": "bicubic"},
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_builds_and_every_parameter_learns(tiny: ModuleType, data_folder: Path, row: str) -> None:
    recipe = load_recipe("fed_lite", {**SMALL, **ROWS[row]})
    data = tiny.make_data(data_folder)
    loader = tiny.make_loader(data, recipe)
    torch.manual_seed(0)
    model = build_model(recipe, num_classes=4).train()
    for head in model.heads.values():
        info: HeadInfo = head.info  # type: ignore[assignment]
        if "bank" in info.maps:
            head.prepare_training(model, loader)  # type: ignore[operator]
    batch = next(iter(loader.batches(1)))
    assert batch.targets.occlusion_mask is not None
    assert batch.targets.occlusion_mask[8:].any()
    values = model.criterion(model(batch.images, batch.targets), batch.targets)
    values.total.backward()
    assert torch.isfinite(values.total)
    # With the scores erasing nothing and guiding nothing, their own loss still teaches them.
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_the_paper_and_the_code_agree_on_what_is_no_slip() -> None:
    for name in ("fed", "fed_code_exact"):
        recipe = load_recipe(name)
        assert recipe.model.heads["erasing"].options["bn_views"] == "apart"
        assert recipe.data.augment[3].options["mask"] == "difference"
    assert (load_recipe("fed").model.input.resample, load_recipe("fed").data.resample) == ("bicubic", None)
