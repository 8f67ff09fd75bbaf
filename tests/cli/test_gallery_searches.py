"""Indexes, thresholds, re-ranking and smaller slots by the command line: what a reader of the docs types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import Gallery, load_dataset

Cli = Callable[..., Any]


@pytest.fixture
def indexed(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> tuple[Path, list[object]]:
    """A gallery with an index, and the arguments that every command over it begins with."""
    folder, model = tmp_path / "g", trained / "model"
    found = cli(
        "index", folder, "--model", model, "--data", people, "--dataset", "synthetic", "--build-index", "Flat", "--json"
    )
    assert found.code == 0, found.err
    assert found.json["index"]["rows"] == found.json["total"]
    query = load_dataset("synthetic", people).query[0].path
    return folder, ["search", folder, query, "--model", model, "--json"]


def test_an_index_gives_the_exact_answer_where_it_can(cli: Cli, indexed: tuple[Path, list[object]]) -> None:
    _, command = indexed
    exact = cli(*command, "-k", 3)
    assert exact.code == 0
    assert cli(*command, "-k", 3, "--effort", "0.99").json == exact.json
    assert cli(*command, "-k", 3, "--effort", "auto").json == exact.json
    wrong = cli(*command, "--effort", "hard")
    assert (wrong.code, "effort is 'hard'" in wrong.err) == (2, True)


def test_an_index_is_estimated_and_built(cli: Cli, indexed: tuple[Path, list[object]]) -> None:
    folder, _ = indexed
    told = cli("gallery", "build-index", folder, "IVF1024,Flat", "--estimate", "--json").json
    assert told["factory"] == "IVF1024,Flat"
    built = cli("gallery", "build-index", folder, "HNSW16", "--json")
    assert built.code == 0, built.err
    assert built.json["options"] == {"factory": "HNSW16"}
    assert "HNSW16" in cli("gallery", "build-index", folder).out  # the same again


def test_reranking_wants_neighbours_first(cli: Cli, indexed: tuple[Path, list[object]]) -> None:
    folder, command = indexed
    found = cli(*command, "--rerank")
    assert (found.code, "build_neighbours" in found.err) == (1, True)
    assert cli("gallery", "neighbours", folder, "--json").json["k1"] == 20
    hits = cli(*command, "--rerank").json[0]["hits"]
    assert [hit["reranked"] for hit in hits] == sorted(hit["reranked"] for hit in hits)


def test_nobody_here(cli: Cli, people: Path, trained: Path, indexed: tuple[Path, list[object]], tmp_path: Path) -> None:
    folder, command = indexed
    hits = cli(*command, "-k", 5).json[0]["hits"]
    near = cli(*command, "-k", 5, "--threshold", hits[1]["distance"]).json[0]["hits"]
    assert near == [hit for hit in hits if hit["distance"] <= hits[1]["distance"]]
    shown = cli(*[part for part in command if part != "--json"], "--threshold", "-1")
    assert "nobody here" in shown.out
    out = tmp_path / "calibration.json"
    calibrate = ["calibrate", trained / "model", "--data", people, "--dataset", "synthetic", "--out", out]
    calibrate += ["--false-match-rate", 0.3, "--gallery", folder, "--json"]
    found = cli(*calibrate)
    assert found.code == 0, found.err
    assert cli(*command, "--threshold", "calibrated").json == cli(*command, "--threshold", out).json
    with Gallery.open(folder) as gallery:
        assert gallery.calibration is not None
        assert gallery.verify().ok


def test_a_new_gallery_may_be_smaller(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    command = ["index", tmp_path / "g", "--model", trained / "model", "--data", people, "--dataset", "synthetic"]
    assert cli(*command, "--reduce", "global=8").code == 0
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.manifest.slots["global"] == 8
    again = cli(*command, "--reduce", "global=8")
    assert (again.code, "is for a new gallery" in again.err) == (1, True)
    assert cli(*command).code == 0
    assert cli(*command, "--reduce", "global").code == 2
    calibrate = [
        "calibrate",
        trained / "model",
        "--data",
        people,
        "--dataset",
        "synthetic",
        "--out",
        tmp_path / "c.json",
    ]
    calibrate += ["--false-match-rate", 0.3, "--gallery", tmp_path / "g", "--json"]
    found = cli(*calibrate)
    assert found.code == 0, found.err
    assert found.json["reduction"] is not None


@pytest.fixture
def small(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> tuple[list[object], list[str]]:
    """A search in a gallery of all images of the set, and its keys."""
    command = ["index", tmp_path / "all", "--model", trained / "model", "--data", people, "--dataset", "synthetic"]
    assert cli(*command, "--split", "all").code == 0
    with Gallery.open(tmp_path / "all") as gallery:
        keys = [image.key for image in gallery.list()]
    return ["search", tmp_path / "all", "--model", trained / "model", "-k", 5], keys


def test_a_query_that_is_in_the_gallery_is_left_out_and_said(
    cli: Cli, people: Path, small: tuple[list[object], list[str]]
) -> None:
    search, keys = small
    own = keys[0]
    found = cli(*search, people / own, "--json")
    assert found.json[0]["left_out"] == [own]
    assert own not in [hit["key"] for hit in found.json[0]["hits"]]
    shown = cli(*search, people / own)
    assert f"{own} is in the gallery itself and was left out; --include-self shows it" in shown.out
    included = cli(*search, people / own, "--include-self", "--json")
    assert included.json[0]["left_out"] == []
    assert included.json[0]["hits"][0]["key"] == own
    assert "--include-self" not in cli(*search, people / own, "--include-self").out


def test_two_queries_of_one_name_are_two_answers(cli: Cli, people: Path, small: tuple[list[object], list[str]]) -> None:
    search, keys = small
    found = cli(*search, people / keys[0], people / keys[1], people / keys[0], "--json").json
    assert [answer["query"] for answer in found] == [str(people / key) for key in (keys[0], keys[1], keys[0])]
    assert found[0] == found[2]
    assert found[1]["left_out"] == [keys[1]]


def test_the_camera_of_a_query_is_left_out(cli: Cli, people: Path, small: tuple[list[object], list[str]]) -> None:
    search, keys = small
    asked = people / keys[0]
    every = cli(*search, "-k", 500, asked, "--json").json[0]["hits"]
    camera, person = every[0]["camera"], every[0]["identity"]
    kept = cli(*search, "-k", 500, asked, "--query-camera", camera, "--json").json[0]["hits"]
    assert [hit["key"] for hit in kept] == [hit["key"] for hit in every if hit["camera"] != camera]
    both = cli(*search, "-k", 500, asked, "--query-camera", camera, "--query-identity", person, "--json").json[0][
        "hits"
    ]
    assert [hit["key"] for hit in both] == [
        hit["key"] for hit in every if (hit["camera"], hit["identity"]) != (camera, person)
    ]
    each = cli(*search, "-k", 500, asked, asked, "--query-camera", 1, "--query-camera", 2, "--json").json
    assert [{hit["camera"] for hit in answer["hits"]} for answer in each] == [{2}, {1}]
    assert cli(*search, asked, "--query-identity", person).code in (1, 2)
