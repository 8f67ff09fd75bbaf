"""The main job through the command line: train, evaluate, index, search; what each prints and leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from occluded_reid import Gallery, load_dataset, load_model
from occluded_reid.evaluation import Protocol
from occluded_reid.evaluation.studies.study import study

Cli = Callable[..., Any]

LETTERS = "abc"


def test_train_leaves_a_model_that_loads(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["last", "log.jsonl", "model"]
    model = load_model(trained / "model")
    assert model.slots == {"global": 48, "part_1": 64, "part_2": 64, "part_3": 64}
    (record,) = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert set(record["losses"]) == {"total", "local", "global", "spc", "segmentation"}


def test_train_prints_json_and_goes_on_only_when_asked(cli: Cli, people: Path, sets, tmp_path: Path) -> None:
    command = ["train", "sorn_lite", "--data", people, "--dataset", "synthetic", "--weights", "none", *sets]
    command += ["--output", tmp_path / "run", "--holdout", 2, "--validation", 1, "--evaluate-every", 1, "--json"]
    first = cli(*command)
    assert first.code == 0
    printed = first.json
    assert printed["epochs"] == 1
    assert set(printed["history"][0]["scores"]) == {"Rank-1", "mAP"}
    assert Path(printed["model"], "model.safetensors").is_file()
    assert Path(printed["best_model"], "model.safetensors").is_file()
    # 6 people, 2 held out for testing, 1 more for validation: 3 are left to classify.
    assert load_model(printed["model"], num_classes=3).num_classes == 3
    again = cli(*command)
    assert again.code == 1
    assert "holds a run already" in again.err
    assert cli(*command, "--resume").json["epochs"] == 1


def test_evaluate_prints_the_study_and_writes_its_report(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    command = ["evaluate", trained / "model", "--data", people, "--dataset", "synthetic"]
    command += ["--matching", "own", "--matching", "all_slots", "--matching", "true"]
    command += ["--occlusion", 0.35, "--occlusion-seeds", 2]
    found = cli(*command, "--report", tmp_path / "report", "--json")
    assert found.code == 0, found.err
    assert str(tmp_path / "report" / "report.html") in found.err
    printed = found.json
    wanted = study(
        load_model(trained / "model"),
        load_dataset("synthetic", people),
        matchings=("own", "all_slots", "true"),
        fractions=(0.35,),
        seeds=(0, 1),
        protocol=Protocol(dataset="synthetic"),
    ).to_dict()
    assert printed == json.loads(json.dumps(wanted))
    assert [(c["matching"], c["fraction"]) for c in printed["conditions"]] == [
        (matching, fraction) for matching in ("own", "all_slots", "true") for fraction in (0, 0.35)
    ]
    assert json.loads((tmp_path / "report" / "study.json").read_text()) == printed
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "loss" in page  # the training curves, found beside the model
    assert not [p.name for p in (tmp_path / "report").iterdir() if p.name.startswith(".")]


def test_evaluate_prints_a_table_and_its_protocol(cli: Cli, people: Path, trained: Path) -> None:
    found = cli("evaluate", trained / "model", "--data", people, "--dataset", "synthetic", "--ap", "trapezoid")
    assert found.code == 0
    for text in ("Rank-1", "mAP", "own", "average precision: by trapezoid", "8 images of 4 identities", "seed 0"):
        assert text in found.out


def test_index_twice_adds_nothing_the_second_time(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "of_[people]"
    gallery.mkdir()  # an empty folder is as good as none
    command = ["index", gallery, "--model", trained / "model", "--data", people, "--dataset", "synthetic"]
    count = len(load_dataset("synthetic", people).gallery)
    first = cli(*command, "--json")
    assert first.code == 0, first.err
    mark = load_model(trained / "model").fingerprint
    expected = {"gallery": str(gallery), "model": mark, "added": count, "skipped": 0, "unreadable": [], "total": count}
    expected |= {"worker": 0, "index": None, "replaced": 0, "prefix": ""}
    assert first.json == expected
    second = cli(*command)
    assert second.code == 0
    # The folder's name has brackets, which are no markup.
    assert f"{gallery}: 0 images added, {count} were there already, {count} in all" in second.out
    whole = cli(*command, "--split", "all", "--json").json
    assert whole["skipped"] == count
    assert whole["total"] == count + whole["added"] == len(Gallery.open(gallery))


def test_search_finds_what_the_gallery_finds(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    model, data = load_model(trained / "model"), load_dataset("synthetic", people)
    gallery = tmp_path / "gallery"
    command = ["index", gallery, "--model", trained / "model", "--data", people, "--dataset", "synthetic"]
    assert cli(*command, "--split", "all", "--dtype", "float32").code == 0
    asked = data.query[0].path
    search = ["search", gallery, "--model", trained / "model", "-k", 3]
    found = cli(*search, asked, "--json", "--picture", tmp_path / "deep" / "hits.png", "--where", "camera = 1")
    assert found.code == 0, found.err
    with Gallery.open(gallery, model=model) as store:
        (hits,) = store.search([asked], 3, where={"camera": 1})
    (answer,) = found.json
    assert answer["query"] == str(asked)
    assert [hit["key"] for hit in answer["hits"]] == [hit.key for hit in hits]
    assert [hit["distance"] for hit in answer["hits"]] == [hit.distance for hit in hits]
    assert {hit["camera"] for hit in answer["hits"]} == {1}
    with Image.open(tmp_path / "deep" / "hits.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture).std() > 10
    shown = cli(*search, asked, data.query[1].path)
    assert shown.code == 0
    assert "distance" in shown.out
    assert str(data.query[1].path) in shown.out
    person = cli(*search, asked, data.query[1].path, "--same-person", "--group-by", "identity", "--json").json
    together = person[0]["hits"]
    assert person[0]["query"] == [str(asked), str(data.query[1].path)]
    assert len({hit["identity"] for hit in together}) == len(together) == 3


def test_a_folder_without_cameras_is_indexed_without_cameras(
    cli: Cli, people: Path, trained: Path, tmp_path: Path
) -> None:
    for letter, sample in zip(LETTERS, load_dataset("synthetic", people).train[::6], strict=False):
        (tmp_path / "photos" / letter).mkdir(parents=True)
        shutil.copy(sample.path, tmp_path / "photos" / letter / "one.png")
    (tmp_path / "photos" / "a" / "cut.png").write_bytes((tmp_path / "photos" / "a" / "one.png").read_bytes()[:200])
    command = ["index", tmp_path / "mall", "--model", trained / "model", "--data", tmp_path / "photos"]
    command += ["--dataset", "folder", "--split", "all"]
    refused = cli(*command)
    assert refused.code == 1
    assert "cut.png' is damaged or truncated" in refused.err
    assert "leave out what cannot be read: --skip-unreadable." in " ".join(refused.err.replace("│", " ").split())
    kept = cli(*command, "--skip-unreadable")
    assert kept.code == 0
    assert "3 images added" in kept.out
    assert f"left out, cannot be read: {(tmp_path / 'photos' / 'a' / 'cut.png').as_posix()}" in kept.out
    with Gallery.open(tmp_path / "mall", model=load_model(trained / "model")) as store:
        (hits,) = store.search([tmp_path / "photos" / "b" / "one.png"], 9)
    assert [hit.camera for hit in hits] == [None, None]  # the query's own image is left out
    assert {hit.identity for hit in hits} == {"a", "c"}


def test_train_goes_on_from_a_model_with_other_people(
    cli: Cli, people: Path, trained: Path, sets, tmp_path: Path
) -> None:
    usual = ("train", "sorn_lite", "--data", people, "--dataset", "synthetic", *sets, "--weights", "none")
    done = cli(*usual, "--output", tmp_path / "run", "--from", trained / "model", "--validation", 2)
    assert done.code == 0, done.err
    assert "made anew: the classifiers, for other people" in done.err
    origin = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert origin["origin"]["trained"] is True
    assert origin["trained_on"]["before"]["data"] == origin["trained_on"]["data"]
    both = cli(*usual[:-2], "--output", tmp_path / "x", "--from", trained / "model", "--weights", "hub")
    assert both.code == 2
    assert "Give one of the two" in both.err
    assert cli(*usual, "--output", tmp_path / "x", "--from", tmp_path).code == 1
