import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation import Protocol, Report, evaluate
from occluded_reid.matchers import PlainMatcher, VisibilityWeightedMatcher


def make(rows: int, seed: int, noise: float = 1.0) -> EmbeddedSet:
    generator, labels = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    identity = labels.integers(0, 12, rows)
    centres = torch.randn(12, 8, generator=torch.Generator().manual_seed(7))
    slots = [centres[identity] + noise * torch.randn(rows, 8, generator=generator) for _ in range(2)]
    visible = torch.ones(rows, 2)
    visible[:, 1] = (torch.rand(rows, generator=generator) > 0.5).float()
    slots[1][visible[:, 1] == 0] = torch.randn(int((visible[:, 1] == 0).sum()), 8, generator=generator)
    paths = tuple(f"{seed}_{i}.jpg" for i in range(rows))
    return EmbeddedSet(
        PartEmbeddings(("global", "part_1"), tuple(slots), visible), identity, labels.integers(0, 4, rows), paths
    )


@pytest.fixture(scope="module")
def report() -> Report:
    protocol = Protocol(dataset="twelve people", name="weighted", seed=3)
    return evaluate(make(80, 0), make(150, 1), VisibilityWeightedMatcher(), protocol, fingerprint="abc123")


def test_it_prints_its_protocol_beside_its_numbers(report: Report) -> None:
    console = Console(width=120, record=True)
    console.print(report.table())
    for text in (str(report), console.export_text()):
        for fact in (
            "Rank-1",
            f"{report.rank(1):.1%}",
            f"{report.mAP:.1%}",
            str(report.intervals["mINP"]),
            "twelve people",
            "condition",
            "80 images of 12 identities",
            "150 images",
            f"dropped ({report.card.excluded_pairs} pairs excluded)",
            "by hits",
            "visibility_weighted(metric=cosine, visibility=soft)",
            "global 8, part_1 8",
            "abc123",
            "seed 3",
            "occluded_reid 0.",
        ):
            assert fact in text


def test_json_and_back(report: Report, tmp_path) -> None:
    path = tmp_path / "report.json"
    text = report.to_json(path)
    assert json.loads(text) == json.loads(path.read_text(encoding="utf-8")) == report.to_dict()
    again = Report.from_json(path)
    assert again.to_dict() == report.to_dict()
    assert again.protocol == report.protocol
    np.testing.assert_array_equal(again.average_precision, report.average_precision)
    with pytest.raises(EvaluationError, match="no report of format 1"):
        Report.from_dict({"metrics": {}})
    broken = report.to_dict()
    del broken["card"]["slots"]
    with pytest.raises(EvaluationError, match="slots"):
        Report.from_dict(broken)
    with pytest.raises(EvaluationError, match=r"missing\.json"):
        Report.from_json(tmp_path / "missing.json")


def test_a_query_without_a_match_survives_json() -> None:
    query, gallery = make(10, 2), make(60, 3)
    query.identity[4] = 99
    report = evaluate(query, gallery, PlainMatcher())
    assert report.unanswerable == 1
    assert report.to_dict()["per_query"]["average_precision"][4] is None
    again = Report.from_dict(json.loads(report.to_json()))
    assert np.isnan(again.average_precision[4])
    assert again.mAP == report.mAP


def test_intervals_hold_the_value_and_depend_on_the_seed_alone(report: Report) -> None:
    for name, value in report.metrics.items():
        assert report.intervals[name].low <= value <= report.intervals[name].high
    assert report.intervals["mAP"].low < report.intervals["mAP"].high
    same = Report.from_dict(report.to_dict())
    assert same.intervals == report.intervals
    other = evaluate(make(80, 0), make(150, 1), VisibilityWeightedMatcher(), Protocol(seed=4))
    assert other.intervals != report.intervals
    assert evaluate(make(80, 0), make(150, 1), PlainMatcher(), Protocol(bootstrap=0)).intervals == {}


def test_intervals_are_as_wide_as_theory_says(report: Report) -> None:
    values = report.average_precision[report.answerable]
    expected = 2 * 1.96 * values.std() / np.sqrt(len(values))
    interval = report.intervals["mAP"]
    assert interval.high - interval.low == pytest.approx(expected, rel=0.15)


def test_compare_pairs_the_queries(report: Report) -> None:
    plain = evaluate(make(80, 0), make(150, 1), PlainMatcher())
    comparison = report.compare(plain)
    for name in ("Rank-1", "mAP", "mINP"):
        assert comparison[name].value == pytest.approx(report.metrics[name] - plain.metrics[name])
        assert comparison[name].interval.low <= comparison[name].value <= comparison[name].interval.high
    assert comparison["mAP"].clear
    assert comparison["mAP"].value > 0
    differences = (report.average_precision - plain.average_precision)[report.answerable]
    interval = comparison["mAP"].interval
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * differences.std() / np.sqrt(80), rel=0.15)
    assert "points" in str(comparison)
    itself = report.compare(report)
    assert itself["mAP"].value == itself["mAP"].interval.low == itself["mAP"].interval.high == 0
    assert not itself["mAP"].clear


def test_compare_refuses_other_queries(report: Report) -> None:
    with pytest.raises(EvaluationError, match="different queries"):
        report.compare(evaluate(make(80, 5), make(150, 1), PlainMatcher()))
    with pytest.raises(EvaluationError, match="ap is hits here and trapezoid there"):
        report.compare(evaluate(make(80, 0), make(150, 1), PlainMatcher(), Protocol(ap="trapezoid")))


def test_cmc_rises_to_fifty(report: Report) -> None:
    assert report.cmc.shape == (50,)
    assert (np.diff(report.cmc) >= 0).all()
    assert report.rank(10_000) == 1.0  # beyond the curve, and beyond the gallery
    with pytest.raises(EvaluationError, match="counted from 1"):
        report.rank(0)


@pytest.mark.parametrize("options", [{"ranks": ()}, {"ranks": (0,)}, {"ap": "area"}, {"confidence": 1.0}])
def test_a_protocol_that_makes_no_sense(options) -> None:
    with pytest.raises(EvaluationError, match=str(next(iter(options)))):
        Protocol(**options)


def test_intervals_of_a_handful_of_queries_are_said_to_say_little(report: Report) -> None:
    assert "they say little" not in str(report)
    query, gallery = make(80, 0), make(150, 1)
    one = EmbeddedSet(query.embeddings[:1], query.identity[:1], query.camera[:1])
    few = evaluate(one, gallery, PlainMatcher())
    assert few.intervals["mAP"].low == few.intervals["mAP"].high == few.mAP
    assert few.facts["intervals"].endswith("seed 0; of 1 query they say little")
    assert "say little" not in evaluate(one, gallery, PlainMatcher(), Protocol(bootstrap=0)).facts["intervals"]


def test_a_name_in_brackets_is_printed(report: Report) -> None:
    console = Console(width=120, record=True)
    console.print(replace(report, protocol=replace(report.protocol, name="[x] run")).table())
    assert "[x] run" in console.export_text()
