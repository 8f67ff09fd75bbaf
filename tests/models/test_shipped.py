"""The weights that this checkout ships, if it ships some: small, described, and those of the recipe."""

from __future__ import annotations

import pytest

from occluded_reid import build_model, load_model, load_recipe
from occluded_reid.config import PACKAGED
from occluded_reid.evaluation.same import calibration_of
from occluded_reid.models.packaged import WEIGHTS

SHIPPED = [name for name in PACKAGED if (WEIGHTS / name / "model.json").is_file()]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped(name: str) -> None:
    folder = WEIGHTS / name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12_000_000
    model = load_model(name)
    assert (model.name, model.cautions) == (name, ())
    left_out = {"losses": True, "matcher": True, "backbone": {"weights", "weights_match"}}  # which make no network
    assert model.recipe.model.model_dump(exclude=left_out) == load_recipe(name).model.model_dump(exclude=left_out)
    assert build_model(name, pretrained=True).fingerprint == model.fingerprint
    known = calibration_of(model)
    assert known is not None
    known.require(matcher=model.matcher, slots=model.slots, fingerprint=model.fingerprint)
    assert model.trained_on is not None
    assert model.trained_on.among(known.data, known.people) == [], "calibrated on people that it was not trained on"
    card = (folder / "README.md").read_text(encoding="utf-8")
    for said in (model.fingerprint, "Research use: trained on", "distilled from", "Protocol:", "resamples", "seeds:"):
        assert said in card


def test_nothing_else_is_shipped() -> None:
    assert [each.name for each in sorted(WEIGHTS.glob("*"))] == SHIPPED
