"""All open-set measures together: the same numbers as one by one, and what is written beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.pair_counts import count_pairs
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import PeopleResampling
from occluded_reid.evaluation.open_set.identification import evaluate_identification
from occluded_reid.evaluation.open_set.reliability import evaluate_reliability
from occluded_reid.evaluation.open_set.study import OpenSetStudy, open_set_study
from occluded_reid.evaluation.open_set.threshold import evaluate_open_set, rows_of, split_people
from occluded_reid.evaluation.open_set.verification import evaluate_verification
from occluded_reid.matchers import VisibilityWeightedMatcher

MATCHER = VisibilityWeightedMatcher()
FEW = PeopleResampling(resamples=20, confidence=0.9, seed=4)


def drawn() -> tuple[EmbeddedSet, EmbeddedSet]:
    """Thirty people, three queries and six gallery images each."""
    random = np.random.default_rng(0)
    identity, asks = np.repeat(np.arange(30), 9), np.tile(np.arange(9) < 3, 30)
    vectors = random.normal(size=(30, 2, 6))[identity] + 0.6 * random.normal(size=(270, 2, 6))
    seen = np.maximum(random.random((270, 2)) >= 0.3, [True, False])
    slots = tuple(torch.from_numpy(vectors[:, s]).float() for s in range(2))
    rows = EmbeddedSet(
        PartEmbeddings(("global", "part"), slots, torch.from_numpy(seen.astype(np.float32))),
        identity,
        random.integers(0, 4, 270),
        tuple(f"{number}.png" for number in range(270)),
    )
    return rows_of(rows, np.flatnonzero(asks)), rows_of(rows, np.flatnonzero(~asks))


@pytest.fixture(scope="module")
def parts() -> tuple[tuple[EmbeddedSet, EmbeddedSet], Calibration]:
    """The people tested on, and a calibration made with the others."""
    first, second = split_people(*drawn(), 0.5)
    return second, Calibration.fit(*first, MATCHER, false_match_rate=0.1, per="comparison", data="drawn")


@pytest.fixture(scope="module")
def study(parts) -> OpenSetStudy:
    tested, calibration = parts
    return open_set_study(
        *tested, MATCHER, calibration, resampling=FEW, data="drawn", fingerprint="x@1", notes={"queries": "as they are"}
    )


def test_it_holds_what_each_measure_says(parts, study: OpenSetStudy) -> None:
    tested, calibration = parts
    about = {"data": "drawn", "fingerprint": "x@1"}
    counts = count_pairs(*tested, MATCHER)
    alone = evaluate_identification(*tested, MATCHER, resampling=FEW, **about)
    assert study.identification.to_dict() == alone.to_dict()
    assert study.verification.to_dict() == evaluate_verification(counts, resampling=FEW, **about).to_dict()
    assert study.reliability.to_dict() == evaluate_reliability(counts, calibration, **about).to_dict()
    promise = evaluate_open_set(
        *tested, MATCHER, calibration, data="drawn", resamples=20, confidence=0.9, seed=4, tile_rows=13
    )
    assert study.promise.to_dict() == promise.to_dict()
    assert len(study.tables()) == 4


def test_it_writes_a_page_numbers_and_pictures(study: OpenSetStudy, tmp_path) -> None:
    files = study.write(tmp_path / "out", title="Drawn people")
    assert [f.name for f in files] == ["open_set.json", "open_set.md", "dir_far.png", "fnmr_fmr.png", "reliability.png"]
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == sorted(f.name for f in files)
    assert json.loads(files[0].read_text()) == json.loads(json.dumps(study.to_dict(), allow_nan=False))
    page = files[1].read_text()
    assert page.startswith("# Drawn people\n\n- queries: as they are\n")
    for text in (study.reliability.calibration.promise, str(study.promise.known_found), *(f.name for f in files[2:])):
        assert text in page
    for file in files[2:]:
        with Image.open(file) as picture:
            assert picture.size == (1120, 640)
    again = study.write(tmp_path / "again", title="Drawn people")
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in again]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EvaluationError):
        study.write(tmp_path / "file")


def test_its_charts_show_the_curves(study: OpenSetStudy) -> None:
    detection, errors, reliability = study.charts()
    assert [line.name for line in detection.series] == ["rank 1", "rank 5"]
    alarms, found = study.identification.best(1)
    assert (detection.series[0].x[-1], detection.series[0].y[-1]) == (alarms[-1], found[-1])
    assert min(detection.series[0].x) == min(alarms[alarms > 0])
    assert errors.log_x
    assert errors.log_y
    assert set(errors.series[0].y) <= set(study.verification.curve()[2].tolist())
    names = [line.name for line in reliability.series]
    assert names[0] == "all pairs that share a slot"
    assert names[-1] == "ideal"
    drawn_groups = [g.name for g in study.reliability.groups if g.matches >= 100]
    assert names[1:-1] == drawn_groups


def test_progress_never_goes_back_and_people_are_others(parts) -> None:
    tested, calibration = parts
    heard: list[tuple[int, int]] = []
    open_set_study(*tested, MATCHER, calibration, resampling=FEW, tile_rows=20, progress=lambda *now: heard.append(now))
    done = [now for now, _ in heard]
    assert done == sorted(set(done))
    assert {total for _, total in heard} == {4 * len(tested[1])}
    again = calibration.model_copy(update={"people": ["ada"]})
    with pytest.raises(EvaluationError, match="were calibrated with"):
        open_set_study(*tested, MATCHER, again, data="drawn", people=["ada", "bo"])
