"""What the commands that measure refuse: one message before anything is computed, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Cli = Callable[..., Any]

COMMANDS = {
    "evaluate": ("--save",),
    "failures": ("--output",),
    "sweep": ("--kind", "bottom", "--severity", "0.5", "--output"),
    "open-set": ("--false-match-rate", "0.25", "--output"),
    "tune": ("--validation", "2", "--choose", "visibility=soft", "--out"),
    "calibrate": ("--false-match-rate", "0.25", "--out"),
}
"""Each command with what it needs besides a model and data, the option for its output last."""

EVERY = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture(scope="module")
def shared(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of which one person is in training and in the test."""
    root = tmp_path_factory.mktemp("shared") / "set"
    shutil.copytree(people, root)
    query = min((root / "query").iterdir())
    for tree in (root, root / "masks"):
        shutil.copy(tree / "query" / query.name, tree / "bounding_box_train" / query.name.replace(".png", "x.png"))
    return root


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CUHK03's first protocol, with one gallery image of each person: two to train on, two to test."""
    root = tmp_path_factory.mktemp("cuhk03")
    (root / "images_detected").mkdir()
    for person in range(1, 5):
        for view in (1, 2):
            for number in (1, 2):
                shade = (60 * person, 100 * view, 80 * number)
                Image.new("RGB", (8, 24), shade).save(
                    root / "images_detected" / f"1_{person:03d}_{view}_{number:02d}.png"
                )
    splits = {"images": {"detected": 16, "labeled": 0}, "testsets": [[[1, 1], [1, 2]]]}
    (root / "cuhk03_testsets.json").write_text(json.dumps(splits), encoding="utf-8")
    return root


@EVERY
def test_a_person_in_training_and_test(cli: Cli, trained: Path, shared: Path, tmp_path: Path, command: str) -> None:
    options = (*COMMANDS[command], tmp_path / "out")
    found = cli(command, trained / "model", "--data", shared, "--option", "own=true", *options)
    assert found.code == 1
    assert "1 identities of 'set', such as" in found.err
    assert "are in training and in queries or gallery" in found.err
    assert not list(tmp_path.iterdir())


@EVERY
@pytest.mark.parametrize("below", ["", "sub", "sub/deeper"])
def test_output_that_cannot_be_written(
    cli: Cli, trained: Path, people: Path, tmp_path: Path, command: str, below: str
) -> None:
    taken = tmp_path / "taken"
    if command in ("tune", "calibrate") and not below:
        taken.mkdir()
    else:
        taken.write_text("mine", encoding="utf-8")
    options = (*COMMANDS[command], taken / below)
    found = cli(command, trained / "model", "--data", people, "--dataset", "synthetic", *options)
    assert found.code == 2
    assert COMMANDS[command][-1] in found.err
    assert found.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert taken.is_dir() or taken.read_text(encoding="utf-8") == "mine"


@EVERY
def test_a_negative_seed(cli: Cli, trained: Path, people: Path, tmp_path: Path, command: str) -> None:
    options = ("--seed", -1, *COMMANDS[command], tmp_path / "out")
    found = cli(command, trained / "model", "--data", people, "--dataset", "synthetic", *options)
    assert found.code == 2
    assert "--seed" in found.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["open-set", "calibrate"])
@pytest.mark.parametrize("share", ["1", "1.5", "-0.1", "nan"])
def test_a_share_that_leaves_nobody(
    cli: Cli, trained: Path, people: Path, tmp_path: Path, command: str, share: str
) -> None:
    options = ("--check", share, *COMMANDS[command], tmp_path / "out")
    found = cli(command, trained / "model", "--data", people, "--dataset", "synthetic", *options)
    assert found.code == 2
    assert "--check" in found.err
    assert "0.5 is half" in found.err


def test_nobody_to_test_on(cli: Cli, trained: Path, people: Path, tmp_path: Path) -> None:
    options = ("--check", 0, "--output", tmp_path / "out")
    found = cli("open-set", trained / "model", "--data", people, "--dataset", "synthetic", *options)
    assert found.code == 2
    assert "no people to test on" in found.err


def test_models_are_looked_at_before_the_first_is_swept(cli: Cli, trained: Path, people: Path, tmp_path: Path) -> None:
    options = ("--kind", "bottom", "--severity", 0.5, "--output", tmp_path / "out")
    found = cli("sweep", trained / "model", trained, "--data", people, "--dataset", "synthetic", *options)
    assert found.code == 1
    assert f"Did you mean '{trained / 'model'}'?" in found.err
    assert not list(tmp_path.iterdir())


def test_single_shots_from_end_to_end(cli: Cli, trained: Path, classic: Path, tmp_path: Path) -> None:
    """There is no mAP: every page shows the ranks instead."""
    options = ("--data", classic, "--dataset", "cuhk03", "--option", "protocol=classic")
    command = ["evaluate", trained / "model", *options, "--matching", "own", "--matching", "all_slots"]
    found = cli(*command, "--save", tmp_path / "saved", "--report", tmp_path / "page")
    assert found.code == 0, found.err
    assert "Rank-1" in found.out
    assert "own − all_slots at clean: Rank-1" in found.out
    assert "mAP" not in found.out
    assert (tmp_path / "page" / "report.html").exists()
    own, all_slots = (tmp_path / "saved" / f"{name}_clean.json" for name in ("own", "all_slots"))
    compared = cli("compare", f"own={own}", f"all={all_slots}", "--output", tmp_path / "compared")
    assert compared.code == 0, compared.err
    assert "points of Rank-1" in compared.out or "are the same in Rank-1" in compared.out
    assert "of Rank-1" in (tmp_path / "compared" / "compare.md").read_text(encoding="utf-8") or (
        "same in Rank-1" in compared.out
    )


def test_what_is_no_report_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    found = cli("compare", f"a={tmp_path / 'other.json'}")
    assert found.code == 1
    assert f"'{tmp_path / 'other.json'}': this is no report" in found.err


def test_a_file_is_no_place_for_the_synthetic_set(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    found = cli("data", "synthesize", tmp_path / "taken")
    assert found.code == 2
    assert "is a file" in found.err


@pytest.mark.parametrize(
    "command",
    [
        "train sorn_lite --data data --output file",
        "train-parser small_parser --data data --output file/below",
        "parse data --teacher masks --out file/below",
        "demo --output file/below",
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The data do not even exist: the output is looked at first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    found = cli(*command.split())
    assert found.code == 2
    assert "is a file; give a folder to write to" in " ".join(found.err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
