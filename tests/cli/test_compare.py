"""`occluded-reid evaluate --save` and `occluded-reid compare`: from two evaluations to one table."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from occluded_reid.evaluation import Protocol, Report, evaluate_matrix


@pytest.fixture
def reports(tmp_path: Path) -> list[Path]:
    """Three systems' reports on files, of one query set."""
    labels = np.random.default_rng(0)
    query, gallery = labels.integers(0, 5, 20), labels.integers(0, 5, 50)
    files = []
    for seed, noise in enumerate((2.0, 2.0, 4.0)):
        distance = (query[:, None] != gallery[None]) + noise * np.random.default_rng(seed).random((20, 50))
        report = evaluate_matrix(distance, query, gallery, np.zeros(20), np.ones(50), Protocol(bootstrap=50))
        files.append(tmp_path / f"{seed}.json")
        report.to_json(files[-1])
    return files


def test_reports_become_tables(cli: Callable, reports: list[Path], tmp_path: Path) -> None:
    names = [f"{name}={file}" for name, file in zip(("good", "good", "bad"), reports, strict=True)]
    shown = cli("compare", *names, "--output", tmp_path / "out")
    assert shown.code == 0
    assert "good is ahead of bad by" in shown.out
    content = cli("compare", *names, "--json").json
    assert content["base"] == "bad"
    assert content["systems"]["good"]["runs"] == 2
    assert (tmp_path / "out" / "compare.md").read_text(encoding="utf-8").startswith("| system |")
    assert (tmp_path / "out" / "compare.tex").exists()
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").read_text(encoding="utf-8").splitlines()))
    assert float(rows[0]["value"]) == pytest.approx(content["systems"]["good"]["metrics"]["Rank-1"])


def test_what_is_no_report(cli: Callable, reports: list[Path], tmp_path: Path) -> None:
    assert cli("compare", reports[0]).code == 2
    missing = cli("compare", f"a={tmp_path}/none.json")
    assert missing.code == 2
    assert "none.json" in missing.err
    (tmp_path / "wrong.json").write_text("[1]", encoding="utf-8")
    assert "holds no report" in cli("compare", f"a={tmp_path}/wrong.json").err
    other = Report.from_json(reports[0])
    evaluate_matrix(np.eye(2), [0, 1], [0, 1], [0, 0], [1, 1]).to_json(tmp_path / "two.json")
    assert other.card.queries == 20
    refused = cli("compare", f"a={reports[0]}", f"b={tmp_path}/two.json")
    assert refused.code == 1
    assert "different queries" in refused.err
