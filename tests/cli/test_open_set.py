"""`occluded-reid open-set`: what it prints and leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import embed_samples, load_dataset, load_model
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.data.occlusion import Occluders
from occluded_reid.evaluation import Occlusion
from occluded_reid.evaluation.open_set.study import open_set_study
from occluded_reid.evaluation.open_set.threshold import split_people

Cli = Callable[..., Any]


@pytest.mark.parametrize("occlusion", [0.0, 0.35])
def test_it_measures_people_it_was_not_calibrated_with(
    cli: Cli, trained: Path, people: Path, tmp_path: Path, occlusion: float
) -> None:
    base = ("open-set", trained / "model", "--data", people, "--dataset", "synthetic", "--false-match-rate", 0.25)
    found = cli(*base, "--occlusion", occlusion, "--output", tmp_path / "out", "--rank", 2, "--json")
    assert found.code == 0, found.err
    model, data = load_model(trained / "model"), load_dataset("synthetic", people)
    hide = Occlusion(occlusion, Occluders.generated(0), 0) if occlusion else None
    query, gallery = embed_samples(model, data, data.query, occlusion=hide), embed_samples(model, data, data.gallery)
    (first, images), second = split_people(query, gallery, 0.5, 0)
    calibration = Calibration.load(tmp_path / "out" / "calibration.json")
    fitted = Calibration.fit(
        first,
        images,
        model.matcher,
        false_match_rate=0.25,
        fingerprint=model.fingerprint,
        data=data.name,
        people=calibration.people,
        part="test; queries: " + ("35% of each body mask occluded, seed 0" if occlusion else "as they are"),
    )
    assert calibration == fitted
    assert calibration.people
    wanted = open_set_study(
        *second, model.matcher, calibration, ranks=(2,), data=data.name, fingerprint=model.fingerprint
    )
    printed = found.json
    assert set(printed.pop("notes")) == {"training", "people", "queries"}
    assert printed == {k: v for k, v in json.loads(json.dumps(wanted.to_dict())).items() if k != "notes"}
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {
        "calibration.json",
        "dir_far.png",
        "fnmr_fmr.png",
        "open_set.json",
        "open_set.md",
        "reliability.png",
    }
    page = (tmp_path / "out" / "open_set.md").read_text(encoding="utf-8")
    assert ("35% of each body mask occluded" in page) == bool(occlusion)
    assert "50% of them tested on" in page


def test_it_prints_tables(cli: Cli, trained: Path, people: Path, tmp_path: Path) -> None:
    base = ("open-set", trained / "model", "--data", people, "--dataset", "synthetic", "--output", tmp_path / "out")
    shown = cli(*base, "--false-match-rate", 0.25)
    assert shown.code == 0, shown.err
    for text in ("known and unknown people", "one person or two", "match probability on other people", "open set:"):
        assert text in shown.out


def test_a_split_or_promise_that_cannot_be_is_said(cli: Cli, trained: Path, people: Path, tmp_path: Path) -> None:
    base = ("open-set", trained / "model", "--data", people, "--dataset", "synthetic", "--output", tmp_path / "out")
    refused = cli(*base)
    assert refused.code == 1
    assert "queries cannot promise a false-match rate of 0.05" in " ".join(refused.err.split())
    for share, message in ((0, "no people to test on"), (1, "leave no other people")):
        refused = cli(*base, "--check", share)
        assert refused.code == 2
        assert message in " ".join(refused.err.split())
    assert not (tmp_path / "out").exists()
    assert cli(*base, "--rank", 0).code == 2
