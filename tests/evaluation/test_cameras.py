"""What a report says of cameras: unknown ones first of all, and why a query had nothing to find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from occluded_reid.data.dataset import NO_CAMERAS, ReIDData, Sample
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation import Protocol, Report, evaluate_matrix


def measured(query: list[tuple[int, int]], gallery: list[tuple[int, int]], protocol: Protocol | None = None) -> Report:
    """A report of (identity, camera) pairs, every distance the same."""
    sides = [np.array(side).T for side in (query, gallery)]
    distance = np.zeros((len(query), len(gallery)))
    return evaluate_matrix(distance, sides[0][0], sides[1][0], sides[0][1], sides[1][1], protocol)


def test_queries_without_an_answer_are_counted_by_their_reason() -> None:
    report = measured([(1, 0), (2, 0), (3, 0), (4, 1), (5, 0)], [(1, 1), (2, 0), (4, 1), (4, 1)])
    assert (report.unanswerable, report.card.only_own_camera) == (4, 2)
    assert (
        "4 without anything to find, skipped (2 not in the gallery at all, 2 only under the query's own camera)"
        in (report.facts["queries"])
    )
    kept = measured([(1, 0), (2, 0), (3, 0)], [(1, 1), (2, 0)], Protocol(exclude_same_camera=False))
    assert (kept.unanswerable, kept.card.only_own_camera) == (1, 0)
    single = measured([(1, 0), (2, 0), (3, 0)], [(1, 1), (2, 0)], Protocol(shots="single", draws=2))
    assert (single.unanswerable, single.card.only_own_camera) == (2, 1)


def test_reports_of_before_do_not_say_the_reason(tmp_path: Path) -> None:
    content = measured([(1, 0), (2, 0)], [(1, 1)]).to_dict()
    for part, keys in (("card", ["only_own_camera"]), ("protocol", ["cameras_known", "notes"])):
        content[part] = {key: value for key, value in content[part].items() if key not in keys}
    old = Report.from_dict(content)
    assert old.facts["queries"].endswith("1 without anything to find, skipped")
    assert (old.facts["cameras"], old.facts["notes on the data"]) == ("known", "none")


def test_one_camera_alone_is_said_with_the_way_on() -> None:
    query, gallery = [(1, 4), (2, 4)], [(1, 4), (3, 4)]
    with pytest.raises(
        EvaluationError, match=r"1 have some of the same camera.*All images are of one camera.*--no-exclude-same-camera"
    ):
        measured(query, gallery)
    report = measured(query, gallery, Protocol(exclude_same_camera=False))
    assert report.rank(1) == 1
    with pytest.raises(EvaluationError, match="Are cameras numbered alike in both sets"):
        measured([(1, 0), (2, 1)], [(1, 0), (2, 1)])
    for protocol in (Protocol(), Protocol(exclude_same_camera=False)):
        with pytest.raises(EvaluationError, match="Are identities numbered alike in both sets"):
            measured([(1, 0)], [(2, 1)], protocol)


def test_unknown_cameras_and_notes_are_on_the_card(tmp_path: Path) -> None:
    sample = Sample("a.png", Path("a.png"), "a", 0)
    notes = (f"{NO_CAMERAS}: nothing is left out", "3 files left out, hidden (a, b, c)")
    data = ReIDData("toy", Path(), (), (sample,), (replace(sample, camera=1),), notes=notes, cameras_known=False)
    protocol = Protocol.of(data)
    assert (protocol.cameras_known, protocol.notes) == (False, notes[1:])
    report = measured([(1, 0)], [(1, 1)], protocol)
    assert "Rank-1 and mAP look better than they are" in report.facts["cameras"]
    assert report.facts["notes on the data"] == notes[1]
    report.to_json(tmp_path / "r.json")
    assert Report.from_json(tmp_path / "r.json").facts == report.facts
    for text in (str(report), report.to_markdown(), report.to_latex(), report.to_csv()):
        assert "hidden (a, b, c)" in text
