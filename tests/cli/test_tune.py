"""`occluded-reid tune`, `evaluate --tuned`, and training that is watched on validation people alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import load_dataset, load_model
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.evaluation import Protocol
from occluded_reid.evaluation.studies.study import study
from occluded_reid.evaluation.studies.tuned import Tuned
from occluded_reid.evaluation.studies.tuning.choices import tune_model
from occluded_reid.models.provenance import TrainedOn

Cli = Callable[..., Any]
SPLIT = ("--dataset", "synthetic", "--holdout", 2, "--seed", 3)


def test_training_is_watched_on_validation_people_and_says_so(cli: Cli, people: Path, sets, tmp_path: Path) -> None:
    command = ["train", "sorn_lite", "--data", people, *SPLIT, "--weights", "none", *sets, "--output", tmp_path / "run"]
    refused = cli(*command, "--evaluate-every", 1)
    assert refused.code == 2
    assert "--validation" in refused.err
    assert not (tmp_path / "run").exists()
    done = cli(*command, "--evaluate-every", 1, "--validation", 2)
    assert done.code == 0, done.err
    assert "best/ chosen by: validation: 2 training identities, seed 3" in done.err
    data = load_dataset("synthetic", people, holdout=2, validation=2, seed=3)
    for folder in ("model", "best"):
        assert load_model(tmp_path / "run" / folder).trained_on == TrainedOn.of(data)
    # Chosen on people whom this model does not know: nothing to warn of.
    tune = ["tune", tmp_path / "run" / "model", "--data", people, *SPLIT, "--validation", 2]
    tuned = cli(*tune, "--choose", "metric=cosine,euclidean", "--out", tmp_path / "tuned.json", "--json")
    assert tuned.code == 0, tuned.err
    assert (tuned.json["trained_on"], tuned.json["warning"]) == (0, "")
    assert "warning" not in tuned.err


def test_tune_finds_what_the_library_finds(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    command = ["tune", trained / "model", "--data", people, *SPLIT, "--validation", 2, "--metric", "Rank-1"]
    command += ["--choose", "threshold=0.9,0.15", "--choose", "weights.global=0.5,2", "--out", tmp_path / "t.json"]
    found = cli(*command, "--json")
    assert found.code == 0, found.err
    data = load_dataset("synthetic", people, holdout=2, validation=2, seed=3)
    choices = {"threshold": [0.9, 0.15], "weights.global": [0.5, 2]}
    wanted = tune_model(load_model(trained / "model"), data, choices, metric="Rank-1", protocol=Protocol(seed=3))
    assert Tuned.load(tmp_path / "t.json") == wanted
    assert found.json == {**wanted.to_dict(), "text": wanted.text, "warning": wanted.warning}
    assert wanted.trained_on == 2
    assert "warning: the model was trained on 2 of these 2 people" in found.err
    shown = cli(*command)
    assert shown.code == 0
    for text in ("Rank-1 on validation: 2 training", "as it is", f"chosen: {wanted.text}", str(tmp_path / "t.json")):
        assert text in shown.out


def test_evaluate_takes_over_what_was_tuned(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    tune = ["tune", trained / "model", "--data", people, *SPLIT, "--validation", 2, "--out", tmp_path / "t.json"]
    assert cli(*tune, "--choose", "threshold=0.9", "--choose", "rerank.k1=3", "--choose", "rerank.k2=2").code == 0
    # Whichever has won: the other one is written down, so that something changes.
    content = json.loads((tmp_path / "t.json").read_text())
    content["trials"][1]["value"], content["chosen"] = 1.0, content["trials"][1]["name"]
    content["trials"][0]["value"] = 0.5
    (tmp_path / "t.json").write_text(json.dumps(content))
    evaluate = [
        "evaluate",
        trained / "model",
        "--data",
        people,
        "--tuned",
        tmp_path / "t.json",
        "--dataset",
        "synthetic",
    ]
    found = cli(*evaluate, "--holdout", 2, "--seed", 3, "--json")
    assert found.code == 0, found.err
    tuned = Tuned.load(tmp_path / "t.json")
    model = tuned.apply(load_model(trained / "model"))
    assert model.heads["semantic"].threshold == 0.9
    assert tuned.rerank is not None
    by_hand = study(
        model,
        load_dataset("synthetic", people, holdout=2, seed=3),
        protocol=Protocol(dataset="synthetic", seed=3),
        rerank=tuned.rerank,
        tuned=tuned.text,
    ).to_dict()
    printed = found.json["conditions"]
    assert [c["metrics"] for c in printed] == [c["metrics"] for c in json.loads(json.dumps(by_hand))["conditions"]]
    assert model.fingerprint in found.out
    assert tuned.text in found.out
    shown = cli(*evaluate, "--holdout", 2, "--seed", 3)
    assert f"tuned: {tuned.text}" in shown.out.replace("\n", " ").replace("  ", " ")
    twice = cli(*evaluate, "--holdout", 2, "--seed", 3, "--rerank")
    assert twice.code == 2
    assert "settles the re-ranking" in twice.err


def test_evaluate_refuses_people_who_were_tuned_on(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    tune = ["tune", trained / "model", "--data", people, *SPLIT, "--validation", 2, "--out", tmp_path / "t.json"]
    assert cli(*tune, "--choose", "threshold=0.1").code == 0
    evaluate = ["evaluate", trained / "model", "--data", people, "--dataset", "synthetic", "--tuned"]
    # Five of six held out: of the four that validation drew from, three are tested on.
    refused = cli(*evaluate, tmp_path / "t.json", "--holdout", 5, "--seed", 3)
    assert refused.code == 1
    assert "of the test side of 'synthetic'" in refused.err
    assert "were tuned with" in refused.err
    (tmp_path / "none.json").write_text("{}")
    refused = cli(*evaluate, tmp_path / "none.json")
    assert refused.code == 1
    assert "holds no tuned settings" in refused.err


def test_a_calibration_names_its_people(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    command = ["calibrate", trained / "model", "--data", people, *SPLIT, "--false-match-rate", 0.3]
    found = cli(*command, "--per", "comparison", "--validation", 3, "--out", tmp_path / "c.json")
    assert found.code == 0, found.err
    data = load_dataset("synthetic", people, holdout=2, validation=3, seed=3)
    assert Calibration.load(tmp_path / "c.json").people == data.identities("query")


@pytest.mark.parametrize(
    ("choose", "code", "complaint"),
    [
        ("threshold", 2, "--choose"),
        ("threshold=", 2, "--choose"),
        ("=0.1", 2, "--choose"),
        ("threshold=[", 2, "--choose"),
        ("threshold=2", 1, "give a share of the stripe"),
        ("thresold=0.1", 1, "cannot be tried"),
    ],
)
def test_choices_that_make_no_sense(
    cli: Cli, people: Path, trained: Path, tmp_path: Path, choose: str, code: int, complaint: str
) -> None:
    command = ["tune", trained / "model", "--data", people, *SPLIT, "--out", tmp_path / "t.json", "--validation", 2]
    refused = cli(*command, "--choose", choose)
    assert refused.code == code
    assert complaint in refused.err
    assert not (tmp_path / "t.json").exists()
    twice = cli(*command, "--choose", "threshold=0.1", "--choose", "threshold=0.2")
    assert twice.code == 2
