"""`occluded-reid sweep`: measures, writes, and does not measure again what it finds measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import load_model
from occluded_reid.data.occlusion.kinds import OCCLUSION_KINDS
from occluded_reid.evaluation.studies.sweep.sweeps import Sweeps, read_sweeps

Cli = Callable[..., Any]


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """The same recipe with other weights."""
    import torch

    model = load_model(trained / "model")
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("second") / "model"
    model.save(folder)
    return folder


def test_two_models_one_after_the_other(cli: Cli, people: Path, trained: Path, second: Path, tmp_path: Path) -> None:
    first, out = trained / "model", tmp_path / "out"
    common = ["--data", people, "--dataset", "synthetic", "--output", out, "--severity", "0.5", "--kind", "bottom"]
    common += ["--kind", "pedestrian"]
    found = cli("sweep", first, first, *common)
    assert found.code == 0, found.err
    shown = " ".join(found.out.split())  # a terminal breaks lines
    assert "is given twice; measured once" in shown
    assert "area under the curve, 0–50% of the body occluded, synthetic" in shown
    assert "kind 'bottom': from the lower edge up; generated (240), seed 0" in shown
    assert sorted(path.name for path in out.iterdir()) == [f"sweep.{s}" for s in ("csv", "json", "md", "png", "svg")]
    measured = (out / "sweep.json").read_bytes()
    found = cli("sweep", first, *common)
    assert "was measured before, under the same settings; taken from there" in found.out
    assert (out / "sweep.json").read_bytes() == measured

    found = cli("sweep", second, first, *common, "--json")
    assert found.code == 0, found.err
    assert found.err.count("was measured before") == 1
    names = [load_model(first).name, load_model(second).fingerprint]
    assert [part["name"] for part in found.json["sweeps"]] == [names[0], load_model(first).fingerprint]
    assert {d["kind"] for d in found.json["differences"]} == {"bottom", "pedestrian", "mean"}
    assert "clean" not in found.json["sweeps"][0]
    kept = Sweeps(read_sweeps(out / "sweep.json"))
    assert [sweep.model for sweep in kept] == [load_model(second).fingerprint, load_model(first).fingerprint]
    assert Sweeps(kept.sweeps).to_dict(per_query=False) == found.json

    found = cli("sweep", first, *common)
    assert found.code == 0, "what was measured for another model stays"
    assert len(read_sweeps(out / "sweep.json")) == 2
    assert json.loads((out / "sweep.json").read_text(encoding="utf-8"))["differences"][0]["name"] == names[1]

    before = (out / "sweep.json").read_bytes()
    found = cli("sweep", first, *common, "--seeds", "2")
    assert found.code == 1
    assert "holds sweeps under other settings; they differ in seeds: (0,) and (0, 1) (there and here)" in found.err
    assert (out / "sweep.json").read_bytes() == before


def test_every_kind_can_be_asked_for(cli: Cli) -> None:
    found = cli("sweep", "m", "--data", "x", "--output", "y", "--kind", "left")
    assert found.code == 2
    assert all(name in found.err for name in OCCLUSION_KINDS)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--severity", "35"], 2, "--severity"),
        (["--seeds", "0"], 2, "--seeds"),
        (["--severity", "0"], 1, "a sweep needs at least one share of the body to occlude"),
        (["--occluders", "nowhere"], 2, "'nowhere' is no folder"),
        (["--masks", "nowhere"], 2, "nowhere' does not exist"),
    ],
)
def test_wrong_usage_and_failed_work(
    cli: Cli, people: Path, trained: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    found = cli(
        "sweep", trained / "model", "--data", people, "--dataset", "synthetic", "--output", tmp_path / "out", *arguments
    )
    assert (found.code, found.out) == (code, "")
    assert message in found.err
    assert not (tmp_path / "out").exists()


def test_without_masks(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    """Pictures of a folder have no masks unless --masks gives them."""
    for identity, camera in (("a", 1), ("a", 2), ("b", 1), ("b", 2)):
        source = sorted((people / "query").iterdir())[camera]
        for split in ("query", "gallery"):
            target = tmp_path / "data" / split / identity / f"c{camera}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    found = cli(
        "sweep", trained / "model", "--data", tmp_path / "data", "--dataset", "folder", "--output", tmp_path / "out",
        "--kind", "side",
    )  # fmt: skip
    assert found.code == 1
    assert "no part mask" in found.err
    assert "--masks" in found.err
