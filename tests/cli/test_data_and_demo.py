"""`occluded-reid data` looks before anything is trained, `occluded-reid demo` walks the whole road."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from occluded_reid import load_model
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.registry import DATASETS

Cli = Callable[..., Any]


def test_a_good_folder(cli: Cli, people: Path) -> None:
    found = cli("data", "verify", "synthetic", people)
    assert found.code == 0
    assert "36 images of 6 identities" in found.out
    assert "all files can be used" in found.out
    held = cli("data", "verify", "synthetic", people, "--holdout", 2, "--json").json
    assert held["ok"]
    assert held["identities"] == {"train": 4, "query": 2, "gallery": 2}


def test_a_truncated_file_is_named_and_fails(cli: Cli, people: Path, tmp_path: Path) -> None:
    shutil.copytree(people, tmp_path / "set")
    broken = sorted((tmp_path / "set" / "query").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:300])
    found = cli("data", "verify", "synthetic", tmp_path / "set")
    assert found.code == 1
    assert f"1 images cannot be read: query/{broken.name}" in found.out
    printed = cli("data", "verify", "synthetic", tmp_path / "set", "--json")
    assert printed.code == 1
    assert [finding["name"] for finding in printed.json["unreadable"]] == [f"query/{broken.name}"]
    assert printed.json["ok"] is False


def test_the_set_can_be_drawn_first(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SyntheticOptions] = []

    def draw_less(root: Path, options: SyntheticOptions, progress: Any) -> Path:
        asked.append(options)
        small = SyntheticOptions(train_identities=2, test_identities=1, cameras=2, distractors=0, seed=options.seed)
        return generate(root, small, progress=progress)

    monkeypatch.setattr("occluded_reid.data.synthetic.generate", draw_less)
    found = cli("data", "synthesize", tmp_path / "set", "--seed", 3, "--json")
    assert found.code == 0, found.err
    assert asked == [SyntheticOptions(seed=3)]
    assert found.json["dataset"] == "synthetic"
    assert found.json["images"] == {"train": 12, "query": 2, "gallery": 4}


def test_a_part_of_a_published_set_is_told_and_fails(cli: Cli, people: Path) -> None:
    found = cli("data", "verify", "market1501", people)
    assert found.code == 1
    assert "problem: train: 36 of 12,936 images, 6 of 751 identities; 12,900 missing: this is a part of it" in found.out
    assert cli("data", "verify", "market1501", people, "--option", "own=true").code == 0
    assert cli("data", "verify", "market1501", people, "--holdout", 2).code == 0
    part = cli("data", "verify", "market1501", people, "--option", "train_only=true", "--json")
    assert part.code == 1
    assert "this is a part of Market-1501" in part.json["counts"]["note"]


@pytest.mark.parametrize(
    ("option", "complaint", "code"),
    [
        ("own", "give it as key=value", 2),
        ("seed=3", "--option seed is no option of a loader", 2),
        ("onw=true", "Did you mean 'own'?", 2),
        ("own=sometimes", "own", 2),
    ],
)
def test_options_that_are_wrong(cli: Cli, people: Path, option: str, complaint: str, code: int) -> None:
    found = cli("data", "verify", "market1501", people, "--option", option)
    assert found.code == code
    assert complaint in found.err
    twice = cli("data", "verify", "market1501", people, "--option", "own=true", "--option", "own=false")
    assert twice.code == 2
    assert "given twice" in twice.err


def test_an_unknown_data_set(cli: Cli, people: Path) -> None:
    for command in (("verify", "market1510", people), ("show", "market1510")):
        found = cli("data", *command)
        assert found.code == 2
        assert "no dataset is named 'market1510'. Did you mean 'market1501'?" in found.err


def test_a_protocol_is_shown(cli: Cli) -> None:
    shown = cli("data", "show", "dukemtmc").out
    words = " ".join(shown.split())
    for said in ("DukeMTMC-reID", "702 people / 16,522 images", "withdrawn", "Ristani", "train_only=None"):
        assert said in words
    content = cli("data", "show", "occluded_duke", "--json").json
    assert content["data set"] == "Occluded-DukeMTMC"
    assert "1,870 of the 2,210 queries" in content["trap 1"]
    assert "CSV file" in cli("data", "show", "folder", "--json").json["layout"]


def test_all_data_sets_are_shown(cli: Cli) -> None:
    rows = cli("data", "show", "--json").json
    assert [row["name"] for row in rows] == DATASETS.names()
    duke = next(row for row in rows if row["name"] == "dukemtmc_reid")
    assert duke["counts"][""]["gallery"] == {"images": 17661, "identities": 702, "distractors": 408}
    assert duke["withdrawn"]
    shown = cli("data", "show").out
    assert all(row["name"] in shown for row in rows)
    assert "1,110 / 17,661" in shown
    assert " ".join(shown.split()).count("withdrawn") == 3


def test_demo_walks_the_whole_road_twice(cli: Cli, sets: tuple[str, ...], packaged: Path, tmp_path: Path) -> None:
    command = ["demo", "--output", tmp_path / "demo", "--train-identities", 2, "--test-identities", 2, *sets]
    first = cli(*command)
    assert first.code == 0, first.err
    assert f"Open {tmp_path / 'demo' / 'report' / 'report.html'}" in first.out
    for word in ("own", "global", "all_slots", "true", "Rank-1", "clean"):
        assert word in first.out
    for picture in ("first_minute.png", "search.png"):
        assert (tmp_path / "demo" / picture).stat().st_size > 1000
    assert "calibrated on 40 people" in first.err
    mark = load_model(tmp_path / "demo" / "run" / "model").fingerprint
    again = cli(*command, "--json")
    assert again.code == 0, again.err
    assert again.json["model"] == mark
    assert [c["matching"] for c in again.json["conditions"]] == ["own", "global", "all_slots", "true"]
    assert Path(again.json["report"]).is_file()


def test_demo_without_the_weights_says_what_it_leaves_out(
    cli: Cli, sets: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("occluded_reid.models.packaged.WEIGHTS", tmp_path / "none")
    found = cli("demo", "--output", tmp_path / "demo", "--train-identities", 2, "--test-identities", 2, *sets)
    assert found.code == 0, found.err
    assert "left out: 'oreid_lite' comes with the library, but this installation has no weights of it" in found.err
    assert not (tmp_path / "demo" / "crops").exists()


def test_demo_replaces_nobodys_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.tex").write_text("three years")
    found = cli("demo", "--output", tmp_path)
    assert found.code == 1
    assert "report' is not of a demo, and would be replaced by it" in found.err
    assert (tmp_path / "report" / "thesis.tex").read_text() == "three years"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_occluders_are_proposed(cli: Cli, people: Path, tmp_path: Path) -> None:
    line = ("data", "propose-occluders", people, "--masks", people / "masks", "--count", 3, "--out")
    found = cli(*line, tmp_path / "patches", "--json")
    assert found.code == 0, found.err
    assert found.json["occluders"] == len(list((tmp_path / "patches").glob("*.png"))) == 3
    with Image.open(found.json["contact_sheet"]) as sheet:
        assert sheet.format == "PNG"
    again = cli(*line, tmp_path / "patches")
    assert again.code == 1
    assert "not an empty folder" in again.err
    said = cli(*line, tmp_path / "others")
    assert "3 occluders from" in said.out
    assert "contact_sheet.png" in said.out
