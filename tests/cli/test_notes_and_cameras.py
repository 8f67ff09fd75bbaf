"""What loaders notice reaches stderr and the card, unknown cameras the first line, and one broken file stops nobody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import load_dataset

Cli = Callable[..., Any]


@pytest.fixture
def broken(people: Path, tmp_path: Path) -> Path:
    """The drawn set with a query, a gallery and a training image that cannot be read, and a stray file."""
    root = tmp_path / "broken"
    shutil.copytree(people, root)
    for folder in ("query", "bounding_box_test", "bounding_box_train"):
        first = sorted((root / folder).glob("*_c2*"))[0]
        first.write_bytes(first.read_bytes()[:60])
    (root / "query" / "0001C1T0001F001.png").write_bytes(first.read_bytes())
    return root


COMMANDS: dict[str, list[str]] = {
    "evaluate": [],
    "failures": ["--worst", "0", "--output", "OUT"],
    "sweep": ["--kind", "bottom", "--severity", "0.3", "--output", "OUT"],
    "calibrate": ["--false-match-rate", "0.5", "--out", "OUT.json"],
    "open-set": ["--false-match-rate", "0.5", "--output", "OUT"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_unreadable_images_stop_or_are_left_out(
    cli: Cli, trained: Path, broken: Path, tmp_path: Path, command: str
) -> None:
    options = [text.replace("OUT", str(tmp_path / "out")) for text in COMMANDS[command]]
    line = [command, trained / "model", "--data", broken, "--dataset", "synthetic", *options]
    line += ["--masks", broken / "masks"] if command == "sweep" else []
    stopped = cli(*line)
    assert stopped.code == 1
    assert "is damaged" in stopped.err or "cannot be" in stopped.err
    done = cli(*line, "--skip-unreadable", "--json")
    assert done.code == 0, done.err
    note = next(text for text in done.err.splitlines() if "cannot be read" in text)
    assert note.startswith("note: 2 images left out, cannot be read (bounding_box_test/")
    assert done.err.count("cannot be read (") == 1
    assert "not named like" in done.err
    assert isinstance(done.json, dict)


def test_training_and_tuning_leave_them_out_too(cli: Cli, broken: Path, sets, tmp_path: Path) -> None:
    side = ["--data", broken, "--dataset", "synthetic", "--holdout", 2, "--validation", 2, "--seed", 3]
    whole = load_dataset("synthetic", broken, holdout=2, validation=2, seed=3)
    for sample in (whole.train[0], whole.gallery[0]):
        sample.path.write_bytes(b"")
    train = ["train", "sorn_lite", *side, "--weights", "none", *sets]
    assert cli(*train, "--output", tmp_path / "stopped").code == 1
    done = cli(*train, "--output", tmp_path / "run", "--skip-unreadable")
    assert done.code == 0, done.err
    data = load_dataset("synthetic", broken, holdout=2, validation=2, seed=3, skip_unreadable=True)
    model = json.loads((tmp_path / "run" / "model" / "model.json").read_text(encoding="utf-8"))
    assert model["trained_on"]["images"] == len(data.train)
    assert any("cannot be read" in note for note in data.notes)
    tune = [
        "tune",
        tmp_path / "run" / "model",
        *side,
        "--choose",
        "metric=cosine,euclidean",
        "--out",
        tmp_path / "t.json",
    ]
    assert cli(*tune, "--skip-unreadable").code == 0


def test_notes_are_said_once_on_stderr_and_stand_on_the_card(
    cli: Cli, trained: Path, people: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(people, root)
    shutil.copy(next((root / "query").glob("*.png")), root / "query" / "0001C1T0001F001.png")
    line = ["evaluate", trained / "model", "--data", root, "--dataset", "synthetic", "--save", tmp_path / "out"]
    done = cli(*line)
    assert done.code == 0, done.err
    assert done.err.count("1 images left out, not named like") == 1
    assert done.out.count("1 images left out, not named like") == 1
    assert "warning" not in done.out
    saved = json.loads((tmp_path / "out" / "own_clean.json").read_text(encoding="utf-8"))
    assert any("not named like" in note for note in saved["protocol"]["notes"])
    told = cli("data", "verify", "synthetic", root)
    assert told.out.count("1 images left out, not named like") == 1
    assert "left out" not in told.err
    said = cli("index", tmp_path / "g", "--model", trained / "model", "--data", root, "--dataset", "synthetic")
    assert said.err.count("left out, not named like") == 1


@pytest.fixture
def listed(people: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A list of the drawn queries and gallery, with one camera for all of them, or without cameras."""

    def write(camera: str) -> Path:
        lines = ["path,identity,split" + (",camera" if camera else "")]
        for split, folder in (("query", "query"), ("gallery", "bounding_box_test")):
            for path in sorted((people / folder).glob("*.png")):
                line = f"{folder}/{path.name},{path.name.partition('_')[0]},{split}"
                lines.append(line + (f",{camera}" if camera else ""))
        file = tmp_path / "list.csv"
        file.write_text("\n".join(lines), encoding="utf-8")
        return file

    return write


def test_unknown_cameras_are_the_first_line(cli: Cli, trained: Path, people: Path, listed, tmp_path: Path) -> None:
    line = ["evaluate", trained / "model", "--data", people, "--dataset", "folder", "--option", f"csv={listed('')}"]
    done = cli(*line, "--report", tmp_path / "report")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("warning: which camera took an image is not known")
    assert "cameras: which camera took" in done.out.replace("\n", " ")
    assert "which camera took an image is not known" in (tmp_path / "report" / "report.html").read_text(
        encoding="utf-8"
    )
    assert cli(*line, "--json").json["warning"].startswith("which camera took")


def test_one_camera_is_refused_with_the_way_on_that_works(
    cli: Cli, trained: Path, people: Path, listed, tmp_path: Path
) -> None:
    source = ["--data", people, "--dataset", "folder", "--option", f"csv={listed('hall')}"]
    refused = cli("evaluate", trained / "model", *source)
    assert refused.code == 1
    assert "All images are of one camera" in refused.err
    assert "--no-exclude-same-camera" in refused.err
    kept = cli("evaluate", trained / "model", *source, "--no-exclude-same-camera", "--json")
    assert kept.code == 0, kept.err
    assert kept.json["conditions"][0]["protocol"]["same identity, same camera"].startswith("kept (0 pairs")
    for command in ("failures", "calibrate", "open-set"):
        options = [text.replace("OUT", str(tmp_path / command)) for text in COMMANDS[command]]
        done = cli(command, trained / "model", *source, *options, "--no-exclude-same-camera", "--json")
        assert done.code == 0, done.err
        assert '"exclude_same_camera": false' in done.out


def test_several_folders_say_what_they_left_out(cli: Cli, trained: Path, people: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(sorted((people / "query").glob("*.png"))[name == "two"], tmp_path / name / f"{name}.png")
        (tmp_path / name / "gone.jpg").symlink_to("/nowhere/1.jpg")
    line = ["index", tmp_path / "mall", tmp_path / "one", tmp_path / "two", "--model", trained / "model", "--json"]
    done = cli(*line)
    assert (done.code, done.json["added"]) == (0, 2), done.err
    assert "2 files left out, links that lead nowhere" in done.err
    assert f"{tmp_path / 'one'}/gone.jpg" in done.err
