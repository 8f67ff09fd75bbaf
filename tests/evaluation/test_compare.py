"""Systems side by side: means, spread over runs, paired differences, and the texts that carry them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation import Protocol, Report, evaluate_matrix
from occluded_reid.evaluation.compare import SeveralRuns, compare

QUERIES, IMAGES = 40, 90


def report(noise: float, seed: int, **protocol) -> Report:
    """A made-up system: distances are small where identities agree, plus noise."""
    labels = np.random.default_rng(7)
    query, gallery = labels.integers(0, 9, QUERIES), labels.integers(0, 9, IMAGES)
    cameras = labels.integers(0, 3, QUERIES), labels.integers(0, 3, IMAGES)
    drawn = np.random.default_rng(seed)
    distance = (query[:, None] != gallery[None]) + noise * drawn.random((QUERIES, IMAGES))
    return evaluate_matrix(distance, query, gallery, *cameras, Protocol(dataset="made_up", **protocol))


def test_numbers_are_means_over_seeds_and_queries() -> None:
    seeds = [report(3.0, s) for s in range(3)]
    system = SeveralRuns(tuple(seeds))
    maps = [one.mAP for one in seeds]
    assert system.metrics["mAP"] == pytest.approx(np.mean(maps))
    mean = sum(maps) / 3
    assert system.spread["mAP"] == pytest.approx((sum((m - mean) ** 2 for m in maps) / 2) ** 0.5)
    assert SeveralRuns((seeds[0],)).spread == {}
    interval = system.intervals["mAP"]
    assert interval.low < system.metrics["mAP"] < interval.high


def test_differences_are_paired() -> None:
    good, bad = report(2.0, 0), report(4.0, 1)
    compared = compare({"good": good, "bad": bad})
    assert compared.base == "bad"
    alone = good.compare(bad)
    for metric in good.metrics:
        assert compared.differences["good"][metric] == alone[metric]
    sentence = compared.sentences()[0]
    difference = alone["mAP"]
    assert difference.clear
    assert sentence == (
        f"good is ahead of bad by {difference.value * 100:.1f} points of mAP "
        f"[{difference.interval.low * 100:.1f}, {difference.interval.high * 100:.1f}]"
    )
    turned = compare({"good": good, "bad": bad}, base="good").sentences()[0]
    assert turned == sentence.replace("good is ahead of bad", "bad is behind good")
    near = compare({"a": report(3.0, 0), "b": report(3.0, 2)}).sentences()[0]
    assert "the interval holds 0" in near


def test_all_texts_carry_numbers_and_protocol(tmp_path) -> None:
    compared = compare({"a_1": [report(3.0, 0), report(3.0, 1)], "b": report(4.0, 2)})
    markdown = compared.to_markdown(tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == markdown
    latex = compared.to_latex(tmp_path / "t.tex")
    rows = list(csv.DictReader(io.StringIO(compared.to_csv(tmp_path / "t.csv"))))
    value = compared.systems["a_1"].metrics["Rank-1"]
    for text in (markdown, latex):
        assert f"{value * 100:.1f}" in text
        assert "90 images" in text
    assert "± " in markdown
    for text in (r"$\pm$", r"a\_1", r"made\_up"):
        assert text in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert not any(line.lstrip().startswith("[") for line in latex.splitlines())
    first = next(row for row in rows if row["system"] == "a_1" and row["metric"] == "Rank-1")
    assert float(first["value"]) == value
    assert first["runs"] == "2"
    assert first["data"] == "made_up"
    assert json.loads(json.dumps(compared.to_dict()))["systems"]["a_1"]["runs"] == 2
    from rich.console import Console

    console = Console(width=150, record=True)
    console.print(compared.table())
    assert "minus b" in console.export_text()


def test_ranks_shown_are_those_of_the_base() -> None:
    compared = compare({"a": report(3.0, 0, ranks=(1, 3)), "b": report(3.0, 1, ranks=(1, 5, 10))})
    assert list(compared.systems["a"].metrics) == ["Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"]


def test_intervals_are_those_of_the_base_throughout() -> None:
    base = report(3.0, 1, confidence=0.9, bootstrap=200)
    base = replace(base, protocol=replace(base.protocol, seed=4))
    compared = compare({"a": report(3.0, 0, confidence=0.5, bootstrap=0), "b": base})
    alone = replace(report(3.0, 0), protocol=base.protocol)
    assert compared.systems["a"].intervals == alone.intervals
    assert compared.facts["intervals"] == "90%, 200 resamples of the queries, seed 4"


def test_runs_say_all_their_models() -> None:
    runs = [report(3.0, seed) for seed in range(3)]
    runs = [replace(run, card=replace(run.card, fingerprint=name)) for run, name in zip(runs, "xyx", strict=True)]
    compared = compare({"a": runs, "b": report(3.0, 4)})
    assert "; model x | y; " in compared.system_facts["a"]
    lines = csv.DictReader(io.StringIO(compared.to_csv()))
    assert {line["model"] for line in lines} == {"x | y", "unnamed"}


@pytest.mark.parametrize(("rule", "value"), [("draws", 3), ("seed", 1)])
def test_single_shots_of_other_galleries_are_not_paired(rule: str, value: int) -> None:
    one = report(1.0, 0, shots="single")
    with pytest.raises(EvaluationError, match=f"{rule} is .* here and .* there"):
        compare({"a": one, "b": replace(one, protocol=replace(one.protocol, **{rule: value}))})


def test_the_same_numbers_are_nobodys_lead() -> None:
    same = report(1.0, 0)
    assert compare({"a": same, "b": same}).sentences() == ["a and b are the same in mAP, query by query"]


def test_without_map_the_first_rank_is_said() -> None:
    shots = compare({"a": report(1.0, 0, shots="single"), "b": report(3.0, 1, shots="single")})
    assert "points of Rank-1 [" in shots.sentences()[0]
    assert shots.sentences("Rank-5")[0] in shots.sentences("Rank-5")


def test_what_cannot_be_compared() -> None:
    one = report(3.0, 0)
    with pytest.raises(EvaluationError, match="no reports"):
        compare({})
    with pytest.raises(EvaluationError, match="Did you mean 'sorn'"):
        compare({"sorn": one}, base="sron")
    with pytest.raises(EvaluationError, match="ap is trapezoid here and hits there"):
        compare({"a": report(3.0, 0, ap="trapezoid"), "b": one})
    other = replace(one, card=replace(one.card, gallery_sha256="0"))
    with pytest.raises(EvaluationError, match=r"'a' and 'b' cannot be compared.*different galleries"):
        compare({"a": other, "b": one})
    with pytest.raises(EvaluationError, match="different queries"):
        SeveralRuns((one, replace(one, card=replace(one.card, queries_sha256="0"))))
    with pytest.raises(EvaluationError, match="at least one"):
        compare({"a": []})
