"""`occluded-reid data` looks before anything is trained, `occluded-reid demo` walks the whole road."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import load_model
from occluded_reid.data.synthetic import SyntheticOptions, generate

Cli = Callable[..., Any]


def test_a_good_folder(cli: Cli, people: Path) -> None:
    found = cli("data", people, "--dataset", "synthetic")
    assert found.code == 0
    assert "36 images of 6 identities" in found.out
    assert "all files can be used" in found.out
    held = cli("data", people, "--dataset", "synthetic", "--holdout", 2, "--json").json
    assert held["ok"]
    assert held["identities"] == {"train": 4, "query": 2, "gallery": 2}


def test_a_truncated_file_is_named_and_fails(cli: Cli, people: Path, tmp_path: Path) -> None:
    shutil.copytree(people, tmp_path / "set")
    broken = sorted((tmp_path / "set" / "query").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:300])
    found = cli("data", tmp_path / "set", "--dataset", "synthetic")
    assert found.code == 1
    assert f"1 images cannot be read: query/{broken.name}" in found.out
    printed = cli("data", tmp_path / "set", "--dataset", "synthetic", "--json")
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
    found = cli("data", tmp_path / "set", "--synthesize", "--seed", 3, "--json")
    assert found.code == 0, found.err
    assert asked == [SyntheticOptions(seed=3)]
    assert found.json["dataset"] == "synthetic"
    assert found.json["images"] == {"train": 12, "query": 2, "gallery": 4}


def test_demo_walks_the_whole_road_twice(cli: Cli, sets: tuple[str, ...], tmp_path: Path) -> None:
    command = ["demo", "--output", tmp_path / "demo", "--train-identities", 2, "--test-identities", 2, *sets]
    first = cli(*command)
    assert first.code == 0, first.err
    assert f"Open {tmp_path / 'demo' / 'report' / 'report.html'}" in first.out
    for word in ("own", "global", "all_slots", "true", "Rank-1", "clean"):
        assert word in first.out
    assert (tmp_path / "demo" / "search.png").stat().st_size > 1000
    mark = load_model(tmp_path / "demo" / "run" / "model").fingerprint
    again = cli(*command, "--json")
    assert again.code == 0, again.err
    assert again.json["model"] == mark
    assert [c["matching"] for c in again.json["conditions"]] == ["own", "global", "all_slots", "true"]
    assert Path(again.json["report"]).is_file()


def test_demo_replaces_nobodys_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.tex").write_text("three years")
    found = cli("demo", "--output", tmp_path)
    assert found.code == 1
    assert "report' is not of a demo, and would be replaced by it" in found.err
    assert (tmp_path / "report" / "thesis.tex").read_text() == "three years"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
