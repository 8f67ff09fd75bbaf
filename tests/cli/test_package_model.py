"""benchmarks/package_model.py: from a trained run to what the wheel ships."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from occluded_reid import ReIDModel, load_dataset, load_model
from occluded_reid.evaluation.same import calibration_of
from occluded_reid.models import packaged as packaging
from occluded_reid.models.provenance import Origin, TrainedOn

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "package_model.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("package_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(system: Callable[..., ReIDModel], people: Path, tmp_path: Path) -> Path:
    """What `train` leaves, with places of this machine in its recipe."""
    model = system("oreid_lite", 6)
    model.trained_on = TrainedOn.of(load_dataset("synthetic", people))
    model.origin = Origin("hub", trained=True)
    model.recipe = model.recipe.override({"data.teacher": {"model": str(tmp_path / "teacher.xml")}})
    model.save(tmp_path / "run" / "model")
    return tmp_path / "run" / "model"


def package(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *more: object) -> None:
    told = {
        "--trained-on": "drawn people",
        "--distilled-from": "nobody",
        "--command": "occluded-reid train",
        "--seeds": 0,
    }
    words = [str(word) for pair in told.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["package_model.py", *map(str, more), *words, "--threads", "1"])
    script.main()


def test_from_a_run_to_the_default_of_every_command(
    script: ModuleType, run: Path, people: Path, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, masks = tmp_path / "weights", ("--masks", people / "masks")
    data = ("--data", people, "--dataset", "synthetic")
    arguments = [run, *data, *masks, "--occlusion", 0, "--occlusion", 0.3, "--false-match-rate", 0.3, "--output", shelf]
    package(script, monkeypatch, *arguments)
    folder = shelf / "oreid_lite"
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "calibration.json",
        "model.json",
        "model.safetensors",
    ]
    assert all(str(tmp_path) not in file.read_text(errors="replace") for file in folder.iterdir())
    monkeypatch.setattr(packaging, "WEIGHTS", shelf)
    model = load_model("oreid_lite")
    known = calibration_of(model)
    assert known is not None
    assert (known.model, known.per, known.false_match_rate, len(known.people)) == (
        model.fingerprint,
        "comparison",
        0.3,
        4,
    )
    assert known.queries == 2 * len(load_dataset("synthetic", people).query)
    assert "occluded: nothing, 30%; seed 0" in known.part
    assert cli("evaluate", "oreid_lite", *data, "--save", tmp_path / "saved").code == 0
    (saved,) = (tmp_path / "saved").iterdir()
    package(script, monkeypatch, *arguments, "--report", f"drawn={saved}")
    assert load_model("oreid_lite").fingerprint == model.fingerprint
    card = (folder / "README.md").read_text(encoding="utf-8")
    for said in ("Research use: trained on drawn people; distilled from nobody", "- drawn: Rank-1 ", "[", "resamples"):
        assert said in card
    assert cli("same", *sorted((people / "query").iterdir())[:2]).code in (0, 3)
    # A report of other weights says nothing of these.
    content = json.loads(saved.read_text())
    content["card"]["fingerprint"] = "oreid_lite@000000000000"
    saved.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="is of oreid_lite@000000000000"):
        package(script, monkeypatch, *arguments, "--report", f"drawn={saved}")


def test_people_who_were_trained_on_are_refused(
    script: ModuleType, run: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("--data", people, "--dataset", "synthetic", "--output", tmp_path / "weights")
    with pytest.raises(SystemExit, match=r"of these \d+ people, such as '.*', were trained on"):
        package(script, monkeypatch, run, *line, "--validation", 2)
    model = load_model(run)
    model.trained_on = None
    model.save(run)
    with pytest.raises(SystemExit, match="no record"):
        package(script, monkeypatch, run, *line)
    assert not (tmp_path / "weights").exists()
