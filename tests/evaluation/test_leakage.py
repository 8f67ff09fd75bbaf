"""Whoever was tuned or calibrated with is not tested on, and whoever was trained on is not either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid import EmbeddedSet, PartEmbeddings
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.data.holdout import holdout, validation_side
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.leakage import require_apart, require_untouched, training_note
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.studies.tuned import Tuned
from occluded_reid.evaluation.studies.tuning.tune import tune
from occluded_reid.matchers import PlainMatcher
from occluded_reid.models.provenance import TrainedOn


def toy(name: str = "toy", identities: int = 12) -> ReIDData:
    samples = tuple(
        Sample(f"{p:02d}_c{c}_{i}.png", Path("x"), f"{p:02d}", c)
        for p in range(identities)
        for c in range(2)
        for i in range(2)
    )
    return ReIDData(name, Path(), samples)


def embedded(data: ReIDData, samples: tuple[Sample, ...]) -> EmbeddedSet:
    identity, camera = data.labels(samples)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.eye(32)[torch.from_numpy(identity)] + 0.1 * torch.randn(len(samples), 32, generator=generator)
    rows = PartEmbeddings(("global",), (vectors,), torch.ones(len(samples), 1))
    return EmbeddedSet(rows, identity, camera, tuple(s.name for s in samples))


def tuned_on(data: ReIDData) -> Tuned:
    return tune(
        embedded(data, data.query),
        embedded(data, data.gallery),
        {"own": PlainMatcher()},
        data=data.name,
        identities=data.identities("query"),
        protocol=Protocol(bootstrap=5),
        part=data.part,
        fingerprint="toy@1",
    )


def calibrated_on(data: ReIDData) -> Calibration:
    sides = (embedded(data, data.query), embedded(data, data.gallery))
    return Calibration.fit(
        *sides,
        PlainMatcher(),
        false_match_rate=0.2,
        fingerprint="toy@1",
        data=data.name,
        people=data.identities("query"),
    )


TEST = holdout(toy(), 4, 0)
VALIDATION = validation_side(TEST, 5, 0)


@pytest.mark.parametrize("make", [tuned_on, calibrated_on])
def test_validation_people_may_not_be_tested_on(make: Any) -> None:
    fitted = make(VALIDATION)
    require_untouched(fitted, TEST, fingerprint="toy@1")
    require_untouched(fitted, TEST)
    with pytest.raises(EvaluationError, match=r"5 of the 5 people of the test side of 'toy', such as '\d\d', were "):
        require_untouched(fitted, VALIDATION)
    # One of them is enough, be it in the gallery alone.
    one = next(s for s in VALIDATION.gallery)
    with pytest.raises(EvaluationError, match=f"1 of the 5 people of the test side of 'toy', such as '{one.identity}'"):
        require_untouched(fitted, replace(TEST, gallery=(*TEST.gallery, one)))
    # A distractor is nobody; and another data set has other people by the same names.
    nobody = replace(TEST, gallery=(*TEST.gallery, one), distractors=frozenset({one.identity}))
    require_untouched(fitted, nobody)
    require_untouched(fitted, replace(VALIDATION, name="other"))


def test_a_calibration_that_names_nobody_is_not_trusted() -> None:
    fitted = calibrated_on(VALIDATION).model_copy(update={"people": []})
    with pytest.raises(EvaluationError, match="people of 'toy' that it does not name"):
        require_untouched(fitted, TEST)
    require_untouched(fitted, replace(TEST, name="other"))


@pytest.mark.parametrize(("make", "verb"), [(tuned_on, "tuned"), (calibrated_on, "calibrated")])
def test_choosing_on_the_test_side_is_said(make: Any, verb: str) -> None:
    with pytest.raises(EvaluationError, match=f"were {verb} with. .*--validation"):
        require_untouched(make(TEST), TEST)


@pytest.mark.parametrize("make", [tuned_on, calibrated_on])
def test_another_model_is_refused(make: Any) -> None:
    with pytest.raises(EvaluationError, match=r"the model toy@1; this one is toy@2"):
        require_untouched(make(VALIDATION), TEST, fingerprint="toy@2")


def test_names_count_however_the_data_are_loaded() -> None:
    """Numbers of people change with what else is loaded; names do not."""
    fitted = tuned_on(VALIDATION)
    person = fitted.identities[0]
    alone = tuple(s for s in toy().train if s.identity == person)
    with pytest.raises(EvaluationError, match=f"such as '{person}'"):
        require_untouched(fitted, ReIDData("toy", Path(), (), query=alone[:1], gallery=alone[1:]))


def test_training_and_test_side_share_nobody() -> None:
    require_apart(TEST)
    require_apart(toy())
    known = TEST.train[0]
    for split in ({"query": (*TEST.query, known)}, {"gallery": (*TEST.gallery, known)}):
        with pytest.raises(
            EvaluationError, match=f"1 identities of 'toy', such as '{known.identity}', are in training"
        ):
            require_apart(replace(TEST, **split))
    require_apart(replace(TEST, gallery=(*TEST.gallery, known), distractors=frozenset({known.identity})))


def test_what_a_model_was_trained_on_is_said() -> None:
    model: Any = SimpleNamespace(trained_on=None)
    assert training_note(model, TEST) == "not known whether the model was trained on these people"
    model.trained_on = TrainedOn.of(TEST)
    assert training_note(model, TEST) == "the model was trained on none of these 4 people"
    first = min(VALIDATION.identities("query"))
    assert training_note(model, VALIDATION) == f"the model was trained on 5 of these 5 people, such as '{first}'"
    model.trained_on = TrainedOn.of(VALIDATION)
    assert training_note(model, VALIDATION) == "the model was trained on none of these 5 people"
    # By another name nobody can be compared, so nothing is claimed.
    assert training_note(model, replace(VALIDATION, name="elsewhere")) == (
        "the model was trained on 'toy'; on none of these 5 people, unless 'elsewhere' is the same data under another "
        "name"
    )
    assert np.all([len(digest) == 12 for digest in model.trained_on.identities])
