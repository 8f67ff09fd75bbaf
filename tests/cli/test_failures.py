"""`occluded-reid failures`: what it prints and leaves is what the library finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from occluded_reid import load_dataset, load_model
from occluded_reid.data.occlusion import Occluders
from occluded_reid.evaluation import Protocol, embed_samples
from occluded_reid.evaluation.embed import Occlusion
from occluded_reid.evaluation.studies.failures.find import find_failures
from occluded_reid.evaluation.studies.failures.result import Failures

Cli = Callable[..., Any]


def wanted(people: Path, trained: Path, occlusion: Occlusion | None = None, **options: Any) -> Failures:
    model, data = load_model(trained / "model"), load_dataset("synthetic", people)
    query = embed_samples(model, data, data.query, occlusion=occlusion)
    gallery = embed_samples(model, data, data.gallery)
    return find_failures(query, gallery, model.matcher, Protocol.of(data), fingerprint=model.fingerprint, **options)


def test_files_pictures_and_tables(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    command = ["failures", trained / "model", "--data", people, "--dataset", "synthetic", "--output", tmp_path / "[x]"]
    found = cli(*command, "--json", "--worst", 3)
    assert found.code == 0, found.err
    expected = wanted(people, trained)
    content = expected.to_dict()
    content["report"]["protocol"]["name"] = "sorn_lite"
    pictures = [str(tmp_path / "[x]" / "worst_01.png")]
    assert found.json == json.loads(json.dumps({**content, "pictures": pictures}))
    assert sorted(path.name for path in (tmp_path / "[x]").iterdir()) == [
        "failures.csv",
        "failures.json",
        "failures.md",
        "worst_01.png",
    ]
    assert json.loads((tmp_path / "[x]" / "failures.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(content)
    )
    named = replace(expected.report, protocol=replace(expected.report.protocol, name="sorn_lite"))
    assert (tmp_path / "[x]" / "failures.csv").read_text(encoding="utf-8") == replace(expected, report=named).to_csv()
    assert "Where it fails: sorn_lite" in (tmp_path / "[x]" / "failures.md").read_text(encoding="utf-8")
    with Image.open(pictures[0]) as picture:
        assert picture.format == "PNG"
    assert str(tmp_path / "[x]") in found.err
    shown = cli(*command, "--worst", 0)
    assert shown.code == 0
    for text in ("by visibility of the query", "by cameras of query and match", "pairs that share no slot", "1 → 2"):
        assert text in shown.out
    assert "show people" not in shown.out, "no pictures were asked for"
    assert not (tmp_path / "[x]" / "worst_01.png").exists(), "that of the run before is of other numbers"


def test_occluded_queries_and_given_edges(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    command = ["failures", trained / "model", "--data", people, "--dataset", "synthetic", "--output", tmp_path]
    found = cli(*command, "--occlusion", 0.5, "--edge", 0.5, "--edge", 0.75, "--seed", 2, "--worst", 1)
    assert found.code == 0, found.err
    assert "show people: keep them as the licence of the data says" in found.out.replace("\n", " ")
    hide = Occlusion(0.5, Occluders.generated(2), 2)
    expected = wanted(people, trained, hide, visibility_edges=(0.5, 0.75))
    content = json.loads((tmp_path / "failures.json").read_text(encoding="utf-8"))
    assert [part["key"] for part in content["by_visibility"]] == [list(part.key) for part in expected.by_visibility]
    assert content["report"]["metrics"] == expected.report.metrics
    assert "50% of each query's body occluded" in content["report"]["protocol"]["name"]
    wrong = cli(*command, "--edge", 0.5, "--edge", 0.5)
    assert wrong.code == 1
    assert "ascending numbers" in wrong.err
