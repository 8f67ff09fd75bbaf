"""A study is evaluate() under several matchings and occlusions, and its table, JSON and differences agree with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from occluded_reid import EmbeddedSet, Protocol, ReIDData, ReIDModel, Report, evaluate, load_dataset
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.errors import EvaluationError, MaskError
from occluded_reid.evaluation.embed import EmbeddedWithTruth, Occlusion, embed_with_truth
from occluded_reid.evaluation.studies.study import MATCHINGS, Study, evaluate_model, study
from occluded_reid.models.provenance import Origin

PROTOCOL = Protocol(bootstrap=50, seed=4)
THINGS = Occluders.generated(0, count=6)
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReIDData:
    options = SyntheticOptions(
        train_identities=1, test_identities=4, cameras=2, images_per_camera=1, distractors=2, width=32, height=96
    )
    return load_dataset("synthetic", generate(tmp_path_factory.mktemp("people") / "set", options))


@pytest.fixture
def model(tiny: Callable[..., ReIDModel]) -> ReIDModel:
    """Untrained, but with a soft mask that says something: visibility differs from image to image."""
    options = "model.heads.semantic.options"
    made = tiny(None, **{f"{options}.visibility": "soft", f"{options}.mask": "probability"})
    generator = torch.Generator().manual_seed(0)
    for parameter in [*made.heads["semantic"].up_second.parameters(), made.heads["semantic"].classify.weight]:
        torch.nn.init.normal_(parameter, std=1.0, generator=generator)
    return made


@pytest.fixture
def result(model: ReIDModel, data: ReIDData) -> Study:
    return study(
        model, data, matchings=tuple(MATCHINGS), fractions=(0.4,), occluders=THINGS, seeds=SEEDS, protocol=PROTOCOL
    )


def direct(model: ReIDModel, query: EmbeddedWithTruth, gallery: EmbeddedWithTruth, matching: str) -> Report:
    """One cell by hand."""

    def seen(rows: EmbeddedWithTruth) -> EmbeddedSet:
        whole = rows.embedded.embeddings
        assert rows.truth is not None
        changed = {
            "own": lambda: whole,
            "global": lambda: whole.select(["global"]),
            "all_slots": lambda: whole.with_visibility(torch.ones(len(whole), 4)),
            "true": lambda: whole.with_visibility(rows.truth),
        }[matching]()
        return replace(rows.embedded, embeddings=changed)

    return evaluate(seen(query), seen(gallery), model.matcher, PROTOCOL)


def test_every_cell_is_evaluate(model: ReIDModel, data: ReIDData, result: Study) -> None:
    gallery, clean = embed_with_truth(model, data, data.gallery), embed_with_truth(model, data, data.query)
    shown = clean.embedded.embeddings.visibility
    assert shown[:, 1:].std() > 0.01, "the visibility must matter for this test to mean anything"
    cells = {}
    for matching in MATCHINGS:
        (report,) = result.get(matching).reports
        expected = direct(model, clean, gallery, matching)
        assert np.array_equal(report.average_precision, expected.average_precision)
        assert np.array_equal(report.first_match_rank, expected.first_match_rank)
        assert report.card.fingerprint == model.fingerprint
        assert result.get(matching).covered == 0
        cells[matching] = report.mAP
        hidden = result.get(matching, 0.4)
        for seed, report in zip(SEEDS, hidden.reports, strict=True):
            query = embed_with_truth(model, data, data.query, occlusion=Occlusion(0.4, THINGS, seed))
            expected = direct(model, query, gallery, matching)
            assert np.array_equal(report.average_precision, expected.average_precision)
            condition = report.facts["condition"]
            for said in (MATCHINGS[matching], "40% of each body", THINGS.description, f"seed {seed}"):
                assert said in condition
        assert hidden.covered == pytest.approx(0.4, abs=0.03)
        # The number of a cell is the mean over its seeds.
        for name in ("Rank-1", "Rank-5", "mAP", "mINP"):
            assert hidden.metrics[name] == pytest.approx(np.mean([r.metrics[name] for r in hidden.reports]))
    assert len(set(cells.values())) > 2, "matchings that always agree would hide a mix-up"


def test_the_embedded_sets_are_the_clean_ones(model: ReIDModel, data: ReIDData, result: Study) -> None:
    clean = embed_with_truth(model, data, data.query).embedded
    assert result.query.paths == clean.paths == tuple(sample.name for sample in data.query)
    assert torch.equal(result.query.embeddings.visibility, clean.embeddings.visibility)
    assert torch.equal(result.query.embeddings.slot("part_2"), clean.embeddings.slot("part_2"))
    assert len(result.gallery) == len(data.gallery)
    assert (result.model, result.dataset, result.seeds) == (model.fingerprint, "synthetic", SEEDS)
    assert result.fractions == (0.0, 0.4)
    assert result.matchings == tuple(MATCHINGS)


def test_differences_are_paired_over_the_queries(result: Study) -> None:
    found = result.differences()
    assert set(found) == {(m, f) for m in MATCHINGS if m != "all_slots" for f in (0.0, 0.4)}
    for (matching, fraction), names in found.items():
        one, base = result.get(matching, fraction), result.get("all_slots", fraction)
        for name, difference in names.items():
            assert difference.value == pytest.approx(one.metrics[name] - base.metrics[name])
            assert difference.interval.low <= difference.value + 1e-12
            assert difference.interval.high >= difference.value - 1e-12
    assert all(
        d.value == 0 and d.interval.low == d.interval.high == 0
        for d in result.get("own").minus(result.get("own")).values()
    )
    assert result.differences("own").keys() == {(m, f) for m in MATCHINGS if m != "own" for f in (0.0, 0.4)}


def test_table_card_and_json_show_these_numbers(result: Study) -> None:
    header, *lines = result.rows()
    assert header == ["matching", "Rank-1 clean", "mAP clean", "Rank-1 40%", "mAP 40%"]
    for line in lines:
        for column, (fraction, name) in enumerate([(0.0, "Rank-1"), (0.0, "mAP"), (0.4, "Rank-1"), (0.4, "mAP")], 1):
            condition = result.get(line[0], fraction)
            assert line[column] == f"{condition.metrics[name]:.1%} {condition.intervals[name]}"
            assert condition.intervals[name].low <= condition.metrics[name] <= condition.intervals[name].high
    assert result.table().row_count == 2 * 4  # Rank-1 and mAP
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [c["matching"] for c in content["conditions"]] == [m for m in MATCHINGS for _ in range(2)]
    for cell in content["conditions"]:
        condition = result.get(cell["matching"], cell["fraction"])
        assert cell["metrics"] == condition.metrics
        assert cell["intervals"]["mAP"] == [condition.intervals["mAP"].low, condition.intervals["mAP"].high]
    assert len(content["differences_to_all_slots"]) == 3 * 2 * 5
    card = result.card()
    assert "generated (6); mean over seeds 0, 1" in card
    assert "slots: global 48, part_1 64, part_2 64, part_3 64" in card
    assert f"true − all_slots at 40%: Rank-1 {result.differences()['true', 0.4]['Rank-1']}" in card
    for name, words in MATCHINGS.items():
        assert f"matching '{name}': {words}" in card


def test_other_ranks_and_no_intervals(model: ReIDModel, data: ReIDData) -> None:
    found = study(model, data, matchings=("global", "all_slots"), protocol=Protocol(ranks=(5, 20), bootstrap=0))
    assert found.rows()[0] == ["matching", "Rank-5 clean", "mAP clean"]
    assert "[" not in "".join(found.rows()[1])
    assert "global − all_slots at clean: Rank-5" in found.card()
    assert "slots: global 48, part_1 64" in found.card(), "of the model, though the first matching uses one slot"
    assert found.table().row_count == 2 * 2  # Rank-1 and mAP


@pytest.mark.parametrize("fractions", [(), (0.3,), (0.3, 0.5)])
def test_progress_rises_to_all_images(model: ReIDModel, data: ReIDData, fractions: tuple[float, ...]) -> None:
    told: list[tuple[int, int]] = []
    study(
        model,
        data,
        fractions=fractions,
        seeds=SEEDS,
        occluders=THINGS,
        protocol=Protocol(bootstrap=0),
        progress=lambda done, total: told.append((done, total)),
    )
    total = len(data.gallery) + len(data.query) * (1 + 2 * len(fractions))
    assert told[-1] == (total, total)
    assert {t for _, t in told} == {total}
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_what_is_asked_for_twice_is_done_once(model: ReIDModel, data: ReIDData) -> None:
    """And 0 is the clean queries, which are there anyway."""
    settings = {"occluders": THINGS, "protocol": Protocol(bootstrap=0)}
    once = study(model, data, matchings=("own",), fractions=(0.3,), seeds=(2,), **settings)
    twice = study(model, data, matchings=("own", "own"), fractions=(0, 0.3, 0.3), seeds=(2, 2), **settings)
    assert once.to_dict() == twice.to_dict()


def test_weights_of_other_slots_are_left_out_of_the_global_matching(
    tiny: Callable[..., ReIDModel], data: ReIDData
) -> None:
    weighted = tiny(None, **{"model.matcher.options": {"weights": {"part_1": 3.0, "global": 2.0}}})
    found = study(weighted, data, matchings=("own", "global"), protocol=Protocol(bootstrap=0))
    plain = study(tiny(None), data, matchings=("global",), protocol=Protocol(bootstrap=0))
    assert found.get("global").metrics == plain.get("global").metrics
    assert found.get("own").reports[0].card.matcher["options"]["weights"] == {"global": 2.0, "part_1": 3.0}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"matchings": ("owm",)},
            EvaluationError,
            "no matching 'owm'. Did you mean 'own'.*own, global, all",
        ),
        ({"matchings": ()}, EvaluationError, "There are: own, global"),
        ({"fractions": (35,)}, EvaluationError, "occlude is 35; give 0 … 1: 0.35 means 35 %"),
        ({"fractions": (-0.1,)}, EvaluationError, "occlude is -0.1"),
        ({"fractions": (float("nan"),)}, EvaluationError, "occlude is nan"),
        ({"fractions": (0.2,), "seeds": ()}, EvaluationError, "no seed to occlude with"),
    ],
)
def test_wrong_arguments_say_what_was_wanted(model: ReIDModel, data: ReIDData, options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        study(model, data, **options)


def test_data_or_models_that_do_not_do(
    tiny: Callable[..., ReIDModel], model: ReIDModel, data: ReIDData, result: Study
) -> None:
    from occluded_reid import build_model

    with pytest.raises(EvaluationError, match=r"has no such samples.*holdout"):
        study(model, replace(data, gallery=()))
    with pytest.raises(MaskError, match="has no part mask"):
        study(model, replace(data, query=tuple(replace(s, mask=None) for s in data.query)), fractions=(0.2,))
    local = build_model(tiny(None).recipe, heads={"global": None})
    with pytest.raises(EvaluationError, match=r"has no slot 'global' \(it has part_1, part_2, part_3\)"):
        study(local, data, matchings=("global",))
    with pytest.raises(EvaluationError, match=r"no condition 'own' at 0\.2; it was not asked for"):
        result.get("own", 0.2)
    other = study(model, replace(data, query=data.query[:4]), protocol=Protocol(bootstrap=0))
    with pytest.raises(EvaluationError, match="of different queries"):
        result.get("own").minus(other.get("own"))


def test_the_card_says_what_a_models_numbers_do_not_stand_on(model: ReIDModel, data: ReIDData) -> None:
    def card(origin: Origin) -> str:
        model.origin = origin
        return study(model, data, protocol=PROTOCOL).card()

    assert "'sorn_lite' was never trained" in card(Origin(trained=False))
    assert "visibility of part_1, part_2, part_3: not trained" in card(Origin(trained=True, idle=("semantic",)))
    assert "not trained" not in card(Origin(trained=True))


def test_evaluate_model_is_the_clean_study_of_the_models_own_matching(model: ReIDModel, data: ReIDData) -> None:
    told: list[tuple[int, int]] = []
    report = evaluate_model(model, data, protocol=PROTOCOL, progress=lambda done, total: told.append((done, total)))
    (wanted,) = study(model, data, protocol=PROTOCOL).conditions
    assert report.to_dict() == wanted.reports[0].to_dict()
    assert told[-1] == (len(data.query) + len(data.gallery),) * 2
