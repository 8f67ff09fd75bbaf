"""`occluded-reid calibrate` and `evaluate --reduce`: what they print and leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from occluded_reid import Gallery, embed_samples, load_dataset, load_model
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.cli.calibrate import calibrate_command
from occluded_reid.data.occlusion import Occluders
from occluded_reid.errors import CalibrationError, GalleryMismatchError
from occluded_reid.evaluation import Occlusion, Protocol
from occluded_reid.evaluation.open_set.threshold import evaluate_open_set, split_people
from occluded_reid.evaluation.studies.reduction_loss import fit_on_training, reduction_loss

Cli = Callable[..., Any]


def calibrate(*arguments: object) -> Result:
    """Run the command by itself; what the library raises comes back as it is."""
    app = typer.Typer()
    app.command()(calibrate_command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def embedded(trained: Path, people: Path):
    """Model, data, and embedded queries and gallery."""
    model, data = load_model(trained / "model"), load_dataset("synthetic", people)
    return model, data, embed_samples(model, data, data.query), embed_samples(model, data, data.gallery)


def test_it_writes_the_calibration_of_all_people(trained: Path, people: Path, embedded, tmp_path: Path) -> None:
    model, data, query, gallery = embedded
    out = tmp_path / "calibration.json"
    base = (trained / "model", "--data", people, "--dataset", "synthetic", "--false-match-rate", 0.2, "--out", out)
    found = calibrate(*base, "--json")
    assert found.exit_code == 0
    wanted = Calibration.fit(
        query,
        gallery,
        model.matcher,
        false_match_rate=0.2,
        fingerprint=model.fingerprint,
        data=data.name,
        people=data.identities("query"),
        part="test; queries: as they are",
    )
    assert Calibration.load(out) == wanted
    printed = json.loads(found.stdout)
    assert printed.pop("check") is None
    assert printed.pop("promise") == wanted.promise
    assert printed == wanted.model_dump(mode="json")
    shown = calibrate(*base, "--per", "comparison")
    assert Calibration.load(out).per == "comparison"
    words = " ".join(shown.stdout.split())
    assert "at most 0.2 of the comparisons" in words
    assert (
        f"{len(query)} queries and {len(gallery)} gallery images of {len(wanted.people)} people of '{data.name}'"
        in words
    )
    assert f"{Calibration.load(out).groups[-1].threshold:.4f}" in shown.stdout
    hidden = calibrate(*base, "--occlusion", 0.3, "--json")
    assert json.loads(hidden.stdout)["part"] == "test; queries: 30% of each body mask occluded, seed 0"


def test_it_tests_its_promise_on_people_kept_for_that(trained: Path, people: Path, embedded, tmp_path: Path) -> None:
    model, data, query, gallery = embedded
    out = tmp_path / "calibration.json"
    base = (trained / "model", "--data", people, "--dataset", "synthetic", "--false-match-rate", 0.25, "--check", 0.5)
    found = calibrate(*base, "--out", out, "--json")
    (first, second), (third, fourth) = split_people(query, gallery, 0.5, seed=0)
    calibration = Calibration.load(out)
    assert calibration.queries == len(first)
    known = sorted({sample.person for sample in (*data.train, *data.query, *data.gallery)})
    chosen = {known[number] for number in (*first.identity, *second.identity)}
    assert calibration.people == sorted(chosen - data.distractors)
    wanted = evaluate_open_set(third, fourth, model.matcher, calibration, data=data.name)
    assert json.loads(found.stdout)["check"] == json.loads(json.dumps(wanted.to_dict()))
    shown = calibrate(*base, "--out", out)
    assert "on other people" in shown.stdout
    assert "unknown person answered" in shown.stdout


def test_queries_are_occluded_when_asked(trained: Path, people: Path, embedded, tmp_path: Path) -> None:
    model, data, _, gallery = embedded
    base = (trained / "model", "--data", people, "--dataset", "synthetic", "--false-match-rate", 0.2, "--seed", 3)
    calibrate(*base, "--out", tmp_path / "calibration.json", "--occlusion", 0.35)
    hidden = embed_samples(model, data, data.query, occlusion=Occlusion(0.35, Occluders.generated(3), 3))
    wanted = Calibration.fit(hidden, gallery, model.matcher, false_match_rate=0.2)
    assert Calibration.load(tmp_path / "calibration.json").groups == wanted.groups


def test_it_stores_the_calibration_in_the_gallery_it_fits(
    trained: Path, people: Path, embedded, tmp_path: Path
) -> None:
    model, _, _, gallery = embedded
    with Gallery.create(tmp_path / "mall", model=model) as store:
        store.add(gallery.embeddings, keys=list(gallery.paths))
    base = (trained / "model", "--data", people, "--dataset", "synthetic", "--false-match-rate", 0.2)
    out = tmp_path / "calibration.json"
    calibrate(*base, "--out", out, "--gallery", tmp_path / "mall")
    assert Calibration.load(tmp_path / "mall" / "calibration.json") == Calibration.load(out)
    Gallery.create(tmp_path / "other", slots={"global": 48}, fingerprint="other@1").close()
    with pytest.raises(GalleryMismatchError):
        calibrate(*base, "--out", out, "--gallery", tmp_path / "other")


def test_a_promise_that_cannot_be_made_leaves_nothing(trained: Path, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "calibration.json"
    base = (trained / "model", "--data", people, "--dataset", "synthetic", "--out", out)
    with pytest.raises(CalibrationError, match="8 queries cannot promise"):
        calibrate(*base)
    assert calibrate(*base, "--false-match-rate", 0.2, "--check", 1).exit_code == 2, "nobody would calibrate"
    assert not out.exists()


def test_evaluate_prints_what_a_reduction_costs(cli: Cli, trained: Path, people: Path, embedded) -> None:
    model, data, query, gallery = embedded
    base = ("evaluate", trained / "model", "--data", people, "--dataset", "synthetic")
    reduce = ("--reduce", "global=12")
    found = cli(*base, *reduce, "--json")
    assert found.code == 0, found.err
    printed = found.json.pop("reduction")
    reduction, told = fit_on_training(model, data, {"global": 12})
    wanted = reduction_loss(
        query,
        gallery,
        model.matcher,
        reduction,
        Protocol(dataset=data.name),
        fingerprint=model.fingerprint,
        fitted_on=told,
    )
    assert printed == json.loads(json.dumps(wanted.to_dict()))
    assert "reduction" not in cli(*base, "--json").json
    shown = cli(*base, *reduce)
    for text in ("what the reduction costs", reduction.fingerprint, "training images"):
        assert text in shown.out
    for wrong in ("global", "global=x", "=4"):
        refused = cli(*base, "--reduce", wrong)
        assert refused.code == 2
        assert "--reduce global=256" in refused.err
    assert cli(*base, "--reduce", "global=12", "--reduce", "global=13").code == 2
    missing = cli(*base, "--reduce", "globl=12")
    assert missing.code == 1
    assert "Did you mean 'global'" in missing.err
