"""A folder of crops and nothing else: no label, no model, no data set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import load_model
from occluded_reid.models import packaged as packaging
from occluded_reid.models import precision

Cli = Callable[..., Any]


@pytest.fixture
def photos(people: Path, tmp_path: Path) -> Path:
    """Crops in a folder of any shape."""
    folder = tmp_path / "photos"
    (folder / "hall").mkdir(parents=True)
    for number, file in enumerate(sorted((people / "bounding_box_test").iterdir())[:8]):
        shutil.copy(file, folder / ("hall" if number % 2 else "") / file.name)
    return folder


def test_index_and_search(cli: Cli, packaged: Path, photos: Path, people: Path, tmp_path: Path) -> None:
    made = cli("index", tmp_path / "mall", photos)
    assert made.code == 0, made.err
    mark = load_model("oreid_lite").fingerprint
    assert f"8 images added, 0 were there already, 8 in all ({mark})" in made.out
    asked = sorted((people / "query").iterdir())[0]
    found = cli("search", tmp_path / "mall", asked, "--json", "--picture", tmp_path / "found.png")
    assert found.code == 0, found.err
    assert len(found.json[0]["hits"]) == 8
    assert (tmp_path / "found.png").stat().st_size > 1000
    named = cli("search", tmp_path / "mall", asked, "--model", "oreid_lite", "--json")
    assert named.json == found.json
    again = cli("index", tmp_path / "mall", photos, "--json").json
    assert (again["added"], again["skipped"], again["model"]) == (0, 8, mark)


def test_a_gallery_of_another_model_takes_that_one(
    cli: Cli, packaged: Path, trained: Path, photos: Path, people: Path, tmp_path: Path
) -> None:
    mark = load_model(trained / "model").fingerprint
    assert cli("index", tmp_path / "mall", photos / "hall", "--model", trained / "model").code == 0
    assert cli("index", tmp_path / "mall", photos, "--root", photos, "--json").json["model"] == mark
    asked = sorted((people / "query").iterdir())[0]
    assert len(cli("search", tmp_path / "mall", asked, "--json").json[0]["hits"]) == 10
    refused = cli("search", tmp_path / "mall", asked, "--model", "oreid_lite")
    assert refused.code == 1
    assert f"holds embeddings of {mark}" in refused.err


def test_every_command_that_takes_a_model_takes_the_name(
    cli: Cli, packaged: Path, people: Path, tmp_path: Path, sets: tuple[str, ...]
) -> None:
    data = ("--data", people, "--dataset", "synthetic")
    for command in (
        ("evaluate", "oreid_lite", *data, "--report", tmp_path / "report"),
        ("failures", "oreid_lite", *data, "--output", tmp_path / "failures"),
        ("sweep", "oreid_lite", *data, "--kind", "bottom", "--severity", "0.3", "--output", tmp_path / "sweep"),
        ("export", "oreid_lite", tmp_path / "out.onnx"),
        ("calibrate", "oreid_lite", *data, "--false-match-rate", "0.5", "--out", tmp_path / "c.json"),
    ):
        found = cli(*command)
        assert found.code == 0, (command, found.err)
    assert "oreid_lite" in cli("list", "models", "oreid*").out


def test_without_weights_in_the_installation(
    cli: Cli, photos: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "WEIGHTS", tmp_path / "none")
    for command in (("index", tmp_path / "mall", photos), ("evaluate", "oreid_lite", "--data", people)):
        found = cli(*command)
        assert found.code == 1
        assert "CheckpointError: 'oreid_lite' comes with the library, but this installation has no weights" in found.err
    assert not (tmp_path / "mall").exists()


def test_training_goes_on_from_it(cli: Cli, packaged: Path, people: Path, tmp_path: Path) -> None:
    small = (
        "model.input={height: 96, width: 32}",
        "model.backbone={type: test_efficientnet, options: {last_stride: 1}}",
    )
    sets = [text for change in (*small, "model.heads.semantic.options.widths=[16, 16]") for text in ("--set", change)]
    line = ["train", "oreid_lite", "--data", people, "--dataset", "synthetic", "--output", tmp_path / "run", *sets]
    line += ["--set", "data.batch=8", "--set", "optim.epochs=1", "--set", "optim.warmup_epochs=0"]
    refused = cli(*line, "--from", "oreid_lite")
    assert refused.code == 2
    assert "--set data.teacher.model=FILE" in refused.err
    teacher = ("--set", "data.teacher.model=oreid_lite", "--set", "model.losses.global.options.width=640")
    teacher += ("--set", "model.losses.local.options.width=640")
    found = cli(*line, *teacher, "--from", "oreid_lite")
    assert found.code == 0, found.err
    assert load_model(tmp_path / "run" / "model").origin.trained


def test_same(cli: Cli, packaged: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = sorted((people / "query").iterdir())[:2]
    found = cli("same", one, two, "--picture", tmp_path / "both.png")
    assert found.code == 0, found.err
    for said in ("probability", "compared: global", "first shows", "calibrated on 40 people"):
        assert said in found.out
    assert (tmp_path / "both.png").stat().st_size > 1000
    itself = cli("same", one, one, "--json", "--model", "oreid_lite", "--prior", "0.1").json
    assert (itself["answer"], itself["distance"], itself["prior"]) == ("same", 0.0, 0.1)
    assert itself["images"] == [str(one), str(one)]
    monkeypatch.setattr(
        "occluded_reid.heads.stripes.stripe_visibility",
        lambda shown, parts, *_, **__: shown.new_zeros(len(shown), parts),
    )
    hidden = cli("same", one, two)
    assert hidden.code == 3
    assert "not enough is visible to say" in hidden.out
    assert cli("same", one, two, "--json").json["probability"] is None


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        ("same gone.png ONE", 2, "'gone.png' does not exist. Give the file of an image"),
        ("same ONE", 2, "Missing argument"),
        ("same ONE ONE --model nowhere", 2, "name one that comes with the library: oreid_lite"),
        ("same ONE ONE --prior 1", 2, "--prior is 1.0"),
        ("same ONE ONE --calibration nowhere.json", 2, "'nowhere.json' does not exist"),
        ("same ONE ONE --model TRAINED", 1, "there is no calibration of sorn_lite@"),
        ("same ONE TEXT", 1, "is not an image that can be read"),
    ],
)
def test_same_asked_wrongly(
    cli: Cli, packaged: Path, trained: Path, people: Path, tmp_path: Path, line: str, code: int, named: str
) -> None:
    (tmp_path / "text.png").write_text("no image")
    words = {
        "ONE": sorted((people / "query").iterdir())[0],
        "TRAINED": trained / "model",
        "TEXT": tmp_path / "text.png",
    }
    found = cli(*(words.get(word, word) for word in line.split()))
    assert found.code == code
    assert named in " ".join(found.err.split())
    assert "Traceback" not in found.err


def test_precision_is_refused_or_goes_with_the_gallery(
    cli: Cli, packaged: Path, photos: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sorted((people / "query").iterdir())[0]
    monkeypatch.setattr(precision, "_missing", lambda name, _: None if name == "float32" else "it has none")
    refused = cli("index", tmp_path / "mall", photos, "--precision", "bfloat16")
    assert refused.code == 1
    assert "precision is 'bfloat16', and it has none" in refused.err
    assert not (tmp_path / "mall").exists()
    monkeypatch.setattr(precision, "_missing", lambda *_: None)
    assert cli("index", tmp_path / "mall", photos / "hall", "--root", photos, "--precision", "bfloat16").code == 0
    assert "computed in bfloat16, kept as float16" in cli("gallery", "info", tmp_path / "mall").out
    assert cli("index", tmp_path / "mall", photos, "--json").json["added"] == 4  # as the gallery computes
    assert "computes in" not in cli("search", tmp_path / "mall", asked).err
    assert "computes in" not in cli("search", tmp_path / "mall", asked, "--model", "oreid_lite").err
    other = cli("search", tmp_path / "mall", asked, "--precision", "float32")
    assert other.code == 0
    assert "holds embeddings computed in bfloat16; this model computes in float32" in " ".join(other.err.split())
    assert cli("index", tmp_path / "mall", photos, "--prefix", "x/", "--precision", "float32").code == 1
    assert cli("search", tmp_path / "mall", "--key", "a", "--precision", "float32").code == 2
    card = cli("evaluate", "oreid_lite", "--data", people, "--dataset", "synthetic", "--precision", "bfloat16")
    assert "embeddings are computed in bfloat16" in " ".join(card.out.split())
