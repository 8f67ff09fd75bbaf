"""Is it the same person? The probability is the calibration's, and "not enough is visible" is an answer."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import Calibration, Verdict, load_model, same
from occluded_reid.errors import CalibrationError, ImageError, OccludedReIDError, ShapeError
from occluded_reid.evaluation.same import calibration_of


@pytest.fixture
def crops(tmp_path: Path) -> list[Path]:
    source = np.random.default_rng(3)
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        Image.fromarray(source.integers(0, 255, (12, 4, 3), dtype=np.uint8)).resize((32, 96)).save(path)
    return paths


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Say for all stripes how visible they are."""

    def every(visibility: float) -> None:
        monkeypatch.setattr(
            "occluded_reid.heads.stripes.stripe_visibility",
            lambda shown, parts, *_, **__: torch.full((len(shown), parts), visibility),
        )

    return every


def test_the_probability_is_the_calibrations(packaged: Path, crops: list[Path], seen: Any) -> None:
    seen(1.0)
    model = load_model("oreid_lite")
    found = same(*crops, model)
    rows = model.embed(model.preprocess(crops))
    far = [1 - float(torch.cosine_similarity(*slot.double(), dim=0)) for slot in rows.embeddings]
    assert list(found.slot_distances.values()) == pytest.approx(far, abs=1e-6)
    assert found.distance == pytest.approx(sum(far) / 4, abs=1e-6)
    assert found.shared == dict.fromkeys(model.slots, 1.0)
    assert found.compared == ("global", "part_1", "part_2", "part_3")
    group = json.loads((packaged / "calibration.json").read_text())["groups"][3]
    odds = group["intercept"] + group["slope"] * found.distance
    assert found.probability == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-9)
    assert found.answer == ("same" if odds >= 0 else "different")
    assert found.within is (found.distance <= group["threshold"])
    rare = same(*crops, model, prior=0.02)
    assert rare.probability == pytest.approx(1 / (1 + math.exp(-odds - math.log(0.02 / 0.98))), abs=1e-9)
    assert (rare.prior, found.prior) == (0.02, 0.5)


def test_an_image_is_the_same_as_itself_in_any_form(packaged: Path, crops: list[Path]) -> None:
    pixels = np.asarray(Image.open(crops[0]).convert("RGB"))
    for other in (
        Image.open(crops[0]),
        pixels,
        crops[0].read_bytes(),
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    ):
        found = same(str(crops[0]), other)
        assert found.distance == 0
        assert found.answer == "same"
    flipped = same(np.ascontiguousarray(pixels[..., ::-1]), np.ascontiguousarray(pixels[..., ::-1]), channels="bgr")
    assert (flipped.distance, flipped.visibility) == (0, found.visibility)


def test_not_enough_is_visible(packaged: Path, crops: list[Path], seen: Any) -> None:
    seen(0.0)
    found = same(*crops)
    assert (found.answer, found.probability, found.within) == ("not enough visible", None, None)
    assert found.compared == ("global",), "which counts as visible in every image, and so says nothing of it"
    assert str(found).splitlines() == [
        "not enough is visible to say whether it is the same person",
        "compared: global; hidden in one of them: part_1, part_2, part_3",
    ]
    assert json.loads(json.dumps(found.to_dict()))["answer"] == "not enough visible"


def test_it_prints_and_draws_itself(packaged: Path, crops: list[Path]) -> None:
    found = same(*crops)
    assert isinstance(found, Verdict)
    text = str(found)
    for said in ("probability", "50% taken beforehand", "compared: global", "threshold", "40 people of 'random'"):
        assert said in text
    assert found.picture().width > 200
    assert found.to_dict()["model"] == load_model("oreid_lite").fingerprint


def test_a_model_of_ones_own_wants_a_calibration(packaged: Path, tiny: Any, crops: list[Path], tmp_path: Path) -> None:
    model = tiny(None)
    with pytest.raises(CalibrationError, match=r"no calibration of sorn_lite@.*--out MODEL/calibration\.json"):
        same(*crops, model)
    model.save(tmp_path / "own")
    with pytest.raises(CalibrationError, match="no calibration"):
        same(*crops, tmp_path / "own")
    shutil.copy(packaged / "calibration.json", tmp_path / "own")
    with pytest.raises(CalibrationError, match="made for the model oreid_lite@"):
        same(*crops, tmp_path / "own")
    with pytest.raises(CalibrationError, match="made for the model oreid_lite@"):
        same(*crops, model, calibration=packaged / "calibration.json")
    own = Calibration.load(packaged / "calibration.json").model_copy(
        update={"model": model.fingerprint, "slots": dict(model.slots)}
    )
    own.save(tmp_path / "own" / "calibration.json")
    assert calibration_of(load_model(tmp_path / "own")) == own
    assert same(*crops, tmp_path / "own") == same(*crops, model, calibration=own)


def test_what_cannot_be_read_is_named(packaged: Path, crops: list[Path]) -> None:
    with pytest.raises(ImageError, match="gone"):
        same(crops[0], "gone.jpg")
    with pytest.raises(ImageError, match="the second image"):
        same(crops[0], b"nothing")
    for prior in (0.0, 1.0, True, "even"):
        with pytest.raises(CalibrationError, match=f"the prior is {prior!r}; give a probability"):
            same(*crops, prior=prior)  # type: ignore[arg-type]
    for strange in ({"model": 3}, {"calibration": 3}, {"channels": "hsv"}):
        with pytest.raises(OccludedReIDError):
            same(*crops, **strange)
    with pytest.raises(ShapeError, match="the first image"):
        same(None, crops[0])  # type: ignore[arg-type]


def test_a_model_that_judges_nothing_compares_everything(system: Any, crops: list[Path], packaged: Path) -> None:
    model = system("pcb_lite", None)
    assert model.judged == ()
    assert load_model("oreid_lite").judged == ("part_1", "part_2", "part_3")
    known = Calibration.load(packaged / "calibration.json")
    groups = [known.groups[0].model_copy(update={"shared": n}) for n in range(1, 7)]
    own = {"model": None, "slots": dict(model.slots), "matcher": model.matcher.config, "groups": groups}
    assert same(*crops, model, calibration=known.model_copy(update=own)).answer in ("same", "different")
