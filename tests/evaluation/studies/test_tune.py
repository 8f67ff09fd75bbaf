"""Tuning against its definition: every candidate by hand, the best one, and how a model takes it over."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid import EmbeddedSet, PartEmbeddings, Protocol, ReIDData, ReIDModel, evaluate, load_dataset, load_model
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.errors import DataError, EvaluationError
from occluded_reid.evaluation.embed import embed_samples
from occluded_reid.evaluation.studies.tuned import Tuned, winner
from occluded_reid.evaluation.studies.tuning.choices import AS_IT_IS, candidates_of, tune_model
from occluded_reid.evaluation.studies.tuning.tune import (
    Candidate,
    at_threshold,
    stripe_threshold,
    tune,
    without_threshold,
)
from occluded_reid.matchers import DistanceSumMatcher, PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.models.provenance import TrainedOn
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

Build = Callable[..., ReIDModel]
Edit = Callable[[dict[str, Any]], object]
PEOPLE = [f"{n:02d}" for n in range(6)]
QUICK = Protocol(bootstrap=40, seed=3)


def labelled(count: int, seed: int, camera: int) -> EmbeddedSet:
    """Noise with a little of the person in slot b, and none in slot a."""
    generator = torch.Generator().manual_seed(seed)
    identity = np.arange(count) % len(PEOPLE)
    first, second = (torch.randn(count, 4, generator=generator) for _ in range(2))
    second[:, :3] += torch.tensor([[n % 2 * 2.0, n // 2 % 2 * 2.0, n // 4 * 2.0] for n in identity.tolist()])
    visible = torch.stack([torch.ones(count), torch.rand(count, generator=generator)], 1)
    rows = PartEmbeddings(("a", "b"), (first, second), visible)
    return EmbeddedSet(rows, identity, np.full(count, camera), tuple(f"{seed}_{i}.png" for i in range(count)))


QUERY, GALLERY = labelled(12, 0, 0), labelled(30, 1, 1)
WEIGHTS = {"even": 1.0, "double": 2.0, "five": 5.0, "half": 0.5}


def naive_precision(query: EmbeddedSet, gallery: EmbeddedSet, weight: float) -> list[float]:
    """Average precision of each query by the sum of cosine distances, slot b `weight` times."""
    found = []
    for i in range(len(query)):
        distances = []
        for j in range(len(gallery)):
            total = 0.0
            for slot, factor in (("a", 1.0), ("b", weight)):
                x = query.embeddings.slot(slot)[i].double().numpy()
                y = gallery.embeddings.slot(slot)[j].double().numpy()
                total += factor * (1 - float(x @ y) / float(np.sqrt(x @ x) * np.sqrt(y @ y)))
            distances.append((round(total, 6), gallery.paths[j], gallery.identity[j] == query.identity[i]))
        hits, precision = 0, 0.0
        for rank, (_, _, same) in enumerate(sorted(distances), 1):
            if same:
                hits += 1
                precision += hits / rank
        found.append(precision / hits)
    return found


def matchers(names: Sequence[str] = tuple(WEIGHTS)) -> dict[str, DistanceSumMatcher]:
    return {name: DistanceSumMatcher(metric="cosine", weights={"b": WEIGHTS[name]}) for name in names}


def sum_query(rows: EmbeddedSet) -> EmbeddedSet:
    """Every slot visible, as the sum by hand has it."""
    return replace(rows, embeddings=rows.embeddings.with_visibility(torch.ones_like(rows.embeddings.visibility)))


@pytest.fixture(scope="module")
def result() -> Tuned:
    return tune(
        sum_query(QUERY), sum_query(GALLERY), matchers(), data="toy", identities=PEOPLE, protocol=QUICK, part="people"
    )


def test_every_candidate_is_what_the_definition_gives(result: Tuned) -> None:
    by_hand = {name: naive_precision(QUERY, GALLERY, weight) for name, weight in WEIGHTS.items()}
    assert [trial.name for trial in result.trials] == list(WEIGHTS)
    for trial in result.trials:
        assert trial.value == pytest.approx(np.mean(by_hand[trial.name]), abs=1e-12)
        assert trial.difference == pytest.approx(np.mean(np.subtract(by_hand[trial.name], by_hand["even"])), abs=1e-12)
        assert trial.interval[0] <= trial.value <= trial.interval[1]
        assert trial.difference_interval[0] <= trial.difference <= trial.difference_interval[1]
    means = {name: float(np.mean(values)) for name, values in by_hand.items()}
    assert result.chosen == max(means, key=means.__getitem__) != "even"
    assert result.default == "even"
    assert result.trials[0].difference_interval == [0.0, 0.0]
    assert result.difference.value == result.choice.difference


def test_intervals_are_those_of_the_reports(result: Tuned) -> None:
    reports = {
        name: evaluate(sum_query(QUERY), sum_query(GALLERY), matcher, QUICK) for name, matcher in matchers().items()
    }
    for trial in result.trials:
        interval = reports[trial.name].intervals["mAP"]
        assert trial.interval == [interval.low, interval.high]
        minus = reports[trial.name].compare(reports["even"], resamples=40, seed=3)["mAP"].interval
        assert trial.difference_interval == [minus.low, minus.high]


def test_the_order_of_candidates_and_gallery_chooses_nobody_else(result: Tuned) -> None:
    names = list(WEIGHTS)[::-1]
    order = torch.randperm(len(GALLERY), generator=torch.Generator().manual_seed(4))
    mixed = sum_query(
        EmbeddedSet(
            GALLERY.embeddings[order],
            GALLERY.identity[order.numpy()],
            GALLERY.camera[order.numpy()],
            tuple(GALLERY.paths[i] for i in order.tolist()),
        )
    )
    again = tune(
        sum_query(QUERY),
        mixed,
        matchers(names),
        data="toy",
        identities=PEOPLE[::-1],
        default="even",
        protocol=QUICK,
        tile_rows=7,
        part="people",
    )
    assert again.chosen == result.chosen
    assert again.identities == PEOPLE
    assert {t.name: t for t in again.trials} == {t.name: t for t in result.trials}


def test_of_equals_the_default_wins_and_then_the_first() -> None:
    same = {name: PlainMatcher() for name in ("a", "b", "c")}
    for default in same:
        found = tune(QUERY, GALLERY, same, data="toy", identities=PEOPLE, default=default, protocol=QUICK)
        assert found.chosen == default
    worse = {"worse": DistanceSumMatcher(weights={"b": 0}), "x": DistanceSumMatcher(), "y": DistanceSumMatcher()}
    found = tune(sum_query(QUERY), sum_query(GALLERY), worse, data="toy", identities=PEOPLE, protocol=QUICK)
    assert (found.default, found.chosen) == ("worse", "x")
    assert winner({"a": 0.1 + 0.2, "b": 0.3}, "b") == "b", "nearer together than 1e-12 is a tie"


@pytest.mark.parametrize("metric", ["Rank-1", "Rank-3", "mINP"])
def test_what_decides_can_be_chosen(metric: str) -> None:
    found = tune(QUERY, GALLERY, matchers(), data="toy", identities=PEOPLE, metric=metric, protocol=QUICK)
    ranks = (int(metric[5:]),) if metric.startswith("Rank") else (1,)
    for trial in found.trials:
        report = evaluate(QUERY, GALLERY, matchers()[trial.name], replace(QUICK, ranks=ranks))
        assert trial.value == report.metrics[metric]


def test_intervals_are_made_even_where_the_protocol_has_none() -> None:
    found = tune(QUERY, GALLERY, matchers(), data="toy", identities=PEOPLE, protocol=Protocol(bootstrap=0))
    assert found.resamples == Protocol.bootstrap


def test_re_ranking_is_tried_like_anything_else() -> None:
    reranks = {str(w): KReciprocal(k1=4, k2=2, weight=w) for w in (0.3, 0.0, 1.0)}
    tried = {name: Candidate(PlainMatcher(), rerank=rerank) for name, rerank in reranks.items()}
    found = tune(QUERY, GALLERY, tried, data="toy", identities=PEOPLE, protocol=QUICK)
    for trial in found.trials:
        assert trial.value == evaluate(QUERY, GALLERY, PlainMatcher(), QUICK, rerank=reranks[trial.name]).mAP
    assert found.rerank == reranks[found.chosen]
    assert Tuned.model_validate_json(json.dumps(found.to_dict())).rerank == found.rerank


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": {}}, "the default candidate is ''; there are: none"),
        ({"default": "evn"}, "the default candidate is 'evn'; there are: even, double"),
        ({"identities": PEOPLE[1:]}, "5 names are given for 6 people"),
        ({"identities": [PEOPLE[0]] * 6}, "1 names are given for 6 people"),
        ({"metric": "map"}, "the metric is 'map'; give mAP, mINP"),
        ({"metric": "Rank-0"}, "the metric is 'Rank-0'"),
        ({"protocol": Protocol(shots="single")}, "the metric is 'mAP'; give mAP, mINP .not with single shots."),
        ({"query": QUERY.select(["a"])}, "cannot be compared"),
    ],
)
def test_what_cannot_be_tuned_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"query": QUERY, "gallery": GALLERY, "candidates": matchers(), "data": "toy", "identities": PEOPLE}
    arguments |= changes
    with pytest.raises(EvaluationError, match=message):
        tune(arguments.pop("query"), arguments.pop("gallery"), arguments.pop("candidates"), **arguments)


def test_a_file_comes_back_as_it_was(result: Tuned, tmp_path: Path) -> None:
    result.save(tmp_path / "tuned.json")
    assert Tuned.load(tmp_path / "tuned.json") == result
    shown = str(result)
    assert result.text.startswith(f"{result.chosen}; best mAP of 4 on 6 people of 'toy' (people)")
    assert all(trial.name in shown for trial in result.trials)


def drop(content: dict[str, Any]) -> None:
    del content["identities"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format="occluded_reid.calibration"), "holds no tuned settings"),
        (lambda c: c.update(format_version=2), "have format 2; this library reads formats up to 1"),
        (lambda c: c.update(chosen="half"), "'half' is chosen, but the numbers choose"),
        (lambda c: c.update(default="none"), "with the default 'none' among them"),
        (lambda c: c.update(identities=["b", "a"]), "identities are sorted, each once"),
        (lambda c: c.update(extra=1), "extra: "),
        (lambda c: c.update(seed="0"), "seed: "),
        (drop, "identities: field required"),
        (lambda c: c["trials"][0].update(value=1.5), "trials.0.value"),
        (lambda c: c["trials"][0]["setting"].update(threshold=0.1), "a head and its threshold come together"),
        (lambda c: c["trials"][0]["setting"].update(rerank={"k1": 0}), "re-ranking: k1 is 0"),
        (lambda c: c["trials"][0]["setting"].update(rerank={"k9": 0}), "re-ranking: "),
        (lambda c: c["trials"][0]["setting"].update(matcher={}), "a matcher is a type and options"),
    ],
)
def test_a_damaged_file_is_refused(result: Tuned, tmp_path: Path, edit: Edit, message: str) -> None:
    content = result.to_dict()
    edit(content)
    (tmp_path / "tuned.json").write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=message):
        Tuned.load(tmp_path / "tuned.json")


def test_a_file_that_is_none_is_refused(result: Tuned, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="could not be read as JSON"):
        Tuned.load(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(EvaluationError, match="holds no tuned settings"):
        Tuned.load(tmp_path / "list.json")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EvaluationError, match="could not be written"):
        result.save(tmp_path / "file" / "tuned.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReIDData:
    options = SyntheticOptions(
        train_identities=6, test_identities=1, cameras=2, images_per_camera=2, distractors=1, width=32, height=96
    )
    return load_dataset("synthetic", generate(tmp_path_factory.mktemp("people") / "set", options), validation=3)


@pytest.fixture
def build(tiny: Build) -> Build:
    """Untrained, but with a mask that differs from image to image."""

    def make(**changes: Any) -> ReIDModel:
        made = tiny(None, **{f"model.heads.semantic.options.{name}": value for name, value in changes.items()})
        generator = torch.Generator().manual_seed(0)
        for parameter in [*made.heads["semantic"].up_second.parameters(), made.heads["semantic"].classify.weight]:
            torch.nn.init.normal_(parameter, std=1.0, generator=generator)
        return made

    return make


@pytest.mark.parametrize("tau", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("mask", ["argmax", "probability"])
def test_a_threshold_on_shares_is_the_models_own(build: Build, data: ReIDData, tau: float, mask: str) -> None:
    """Bit by bit: rows embedded without τ, then cut at τ, are those of the model whose recipe says τ."""
    own = build(threshold=tau, mask=mask)
    wanted = [embed_samples(own, data, split) for split in (data.query, data.gallery)]
    other = build(mask=mask)
    found = stripe_threshold(other)
    assert found is not None
    assert (found.head, found.slots, found.value) == ("semantic", ("part_1", "part_2", "part_3"), 0.15)
    with without_threshold(other):
        shares = [embed_samples(other, data, split) for split in (data.query, data.gallery)]
    assert other.heads["semantic"].threshold == 0.15
    assert len(shares[1].embeddings.visibility.unique()) > 5, "shares, not indicators"
    cut = [at_threshold(side, replace(found, value=tau)) for side in shares]
    binary = VisibilityWeightedMatcher(visibility="binary", threshold=tau)
    for mine, theirs in zip(cut, wanted, strict=True):
        assert torch.equal(mine.embeddings.visibility, theirs.embeddings.visibility)
        for slot in own.slots:
            assert torch.equal(mine.embeddings.slot(slot), theirs.embeddings.slot(slot))
    # A matcher that cuts at τ itself says the same of the shares.
    assert torch.equal(
        binary.distance(shares[0].embeddings, shares[1].embeddings),
        own.matcher.distance(wanted[0].embeddings, wanted[1].embeddings),
    )
    model_says = evaluate(*wanted, own.matcher, QUICK)
    for report in (evaluate(*cut, own.matcher, QUICK), evaluate(*shares, binary, QUICK)):
        assert np.array_equal(report.average_precision, model_says.average_precision, equal_nan=True)
        assert np.array_equal(report.first_match_rank, model_says.first_match_rank)


def test_the_threshold_comes_back_whatever_happens(build: Build) -> None:
    model = build()
    before = model.fingerprint

    def stopped() -> None:
        with without_threshold(model):
            assert model.heads["semantic"].threshold is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert model.heads["semantic"].threshold == 0.15
    assert model.fingerprint == before
    soft = build(visibility="soft")
    assert stripe_threshold(soft) is None
    with without_threshold(soft):
        assert soft.heads["semantic"].threshold is None


TAUS = [0.9, 0.05, 0.5, 0.15]


def test_a_model_takes_over_what_was_chosen(build: Build, data: ReIDData, tmp_path: Path) -> None:
    model = build()
    found = tune_model(model, data, {"threshold": TAUS}, protocol=QUICK)
    assert found.default == "threshold=0.15"
    assert found.model == model.fingerprint
    assert (found.data, found.part) == ("synthetic", "validation: 3 training identities, seed 0")
    assert found.identities == data.identities("query")
    by_hand = {}
    for tau in TAUS:
        one = build(threshold=tau)
        sides = [embed_samples(one, data, split) for split in (data.query, data.gallery)]
        by_hand[f"threshold={tau}"] = evaluate(*sides, one.matcher, QUICK).mAP
    assert {trial.name: trial.value for trial in found.trials} == by_hand
    # Whichever won here: each of them has to arrive in the model.
    for trial in found.trials:
        forced = found.model_copy(update={"chosen": trial.name})
        tuned = forced.apply(model)
        wanted = build(threshold=trial.setting.threshold)
        assert tuned.fingerprint == wanted.fingerprint
        assert (tuned is model) == (trial.name == found.default)
        mine, theirs = (embed_samples(m, data, data.query).embeddings for m in (tuned, wanted))
        assert torch.equal(mine.visibility, theirs.visibility)
        tuned.save(tmp_path / trial.name)
        assert load_model(tmp_path / trial.name).fingerprint == wanted.fingerprint
        assert load_model(tmp_path / trial.name).heads["semantic"].threshold == trial.setting.threshold
    assert model.heads["semantic"].threshold == 0.15
    assert "tuned: threshold=0.9; best mAP of 4" in load_model(tmp_path / "threshold=0.9").recipe.notes


def test_weights_and_metric_arrive_in_the_matcher(build: Build, data: ReIDData, tmp_path: Path) -> None:
    model = build()
    choices = {"weights.global": [0.5, 3], "metric": ["cosine", "euclidean"]}
    found = tune_model(model, data, choices, metric="Rank-1", protocol=QUICK)
    assert [trial.name for trial in found.trials] == [
        AS_IT_IS,
        "weights.global=0.5, metric=cosine",
        "weights.global=0.5, metric=euclidean",
        "weights.global=3, metric=cosine",
        "weights.global=3, metric=euclidean",
    ]
    rows = [embed_samples(model, data, split) for split in (data.query, data.gallery)]
    for trial in found.trials:
        forced = found.model_copy(update={"chosen": trial.name})
        tuned = forced.apply(model)
        assert tuned.fingerprint == model.fingerprint, "the same embeddings; the report names the matcher"
        assert tuned.matcher.config == trial.setting.matcher
        assert evaluate(*rows, tuned.matcher, QUICK).rank(1) == trial.value
        tuned.save(tmp_path / trial.name)
        assert load_model(tmp_path / trial.name).matcher.config == trial.setting.matcher
    assert model.matcher.config["options"]["weights"] == {}


def test_soft_visibility_is_cut_by_the_matcher(build: Build) -> None:
    soft = build(visibility="soft")
    found, default = candidates_of(soft, {"threshold": [0.2, 0.4]})
    assert list(found) == [AS_IT_IS, "threshold=0.2", "threshold=0.4"]
    assert default == AS_IT_IS
    assert found["threshold=0.4"].threshold is None
    options = found["threshold=0.4"].matcher.config["options"]
    assert (options["visibility"], options["threshold"]) == ("binary", 0.4)


def test_the_models_own_settings_are_always_among_them(build: Build) -> None:
    model = build()
    found, default = candidates_of(model, {"threshold": [0.3, 0.15]})
    assert (list(found), default) == (["threshold=0.15", "threshold=0.3"], "threshold=0.15")
    found, default = candidates_of(model, {"rerank.weight": [0.1, 0.3]})
    assert (list(found), default) == (["rerank.weight=0.3", "rerank.weight=0.1"], "rerank.weight=0.3")
    assert found["rerank.weight=0.1"].rerank == KReciprocal(weight=0.1)
    found, default = candidates_of(model, {"rerank.k1": [3], "rerank.k2": [2]})
    assert found[AS_IT_IS].rerank == KReciprocal()
    assert found["rerank.k1=3, rerank.k2=2"].rerank == KReciprocal(k1=3, k2=2)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "nothing to choose from; give options"),
        ({"threshold": []}, "nothing to choose from for threshold"),
        ({"threshold": [0.1, 0.1]}, "threshold=0.1 is given twice"),
        ({"threshold": [1.5]}, "'threshold=1.5' cannot be tried on 'sorn_lite': threshold is 1.5"),
        ({"threshold": [True]}, "threshold is True"),
        ({"weights.globl": [1]}, "'weights.globl=1' cannot be tried"),
        ({"weights.global": [-1]}, "the weight of slot 'global' is -1"),
        ({"metrics": ["cosine"]}, "Did you mean 'metric'"),
        ({"metric": ["cosin"]}, "'metric=cosin' cannot be tried"),
        ({"rerank.k": [3]}, "re-ranking has no 'k'.* It has: k1, k2, weight, squared"),
        ({"rerank.k1": [0]}, "k1 is 0"),
        ({"rerank.weight": ["much"]}, "'rerank.weight=much' cannot be tried"),
    ],
)
def test_a_choice_that_makes_no_sense_is_named(build: Build, choices: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        candidates_of(build(), choices)


def test_another_model_is_refused(build: Build, data: ReIDData) -> None:
    model = build()
    found = tune_model(model, data, {"threshold": [0.1, 0.5]}, protocol=QUICK)
    with pytest.raises(EvaluationError, match=f"tuned for the model {model.fingerprint}; this one is sorn_lite@"):
        found.apply(build(threshold=0.3))
    headless = found.model_copy(update={"model": None, "chosen": "threshold=0.5"})
    with pytest.raises(EvaluationError, match=r"threshold of head 'semantic' was tuned, and 'sorn_lite' has no such"):
        headless.apply(build(visibility="soft"))


def test_people_who_were_trained_on_are_counted(build: Build, data: ReIDData) -> None:
    model = build()
    found = tune_model(model, data, {"threshold": [0.15]}, protocol=QUICK)
    assert found.trained_on is None
    assert "not known whether the model was trained on these people" in found.warning
    model.trained_on = TrainedOn.of(data)
    found = tune_model(model, data, {"threshold": [0.15]}, protocol=QUICK)
    assert (found.trained_on, found.warning) == (0, "")
    model.trained_on = TrainedOn.of(replace(data, train=(*data.train, *data.query[:1])))
    found = tune_model(model, data, {"threshold": [0.15]}, protocol=QUICK)
    assert found.trained_on == 1
    assert "trained on 1 of these 3 people" in found.warning
    assert found.table().caption == found.warning


def test_data_without_a_validation_side_are_refused(build: Build, data: ReIDData) -> None:
    with pytest.raises(EvaluationError, match="no queries or no gallery to tune on"):
        tune_model(build(), replace(data, query=(), gallery=()), {"threshold": [0.1]})
    both = replace(data, train=(*data.train, data.query[0]))
    with pytest.raises(EvaluationError, match="1 identities of 'synthetic', such as"):
        tune_model(build(), both, {"threshold": [0.1]})
    with pytest.raises(DataError, match="cannot be set aside"):
        load_dataset("synthetic", data.root, validation=6)


def test_twice_is_the_same(build: Build, data: ReIDData) -> None:
    told: list[tuple[str, int, int]] = []
    runs = [
        tune_model(
            build(),
            data,
            {"threshold": [0.1, 0.5], "weights.global": [1, 2]},
            protocol=QUICK,
            embedding=lambda done, total: told.append(("embedded", done, total)),
            progress=lambda done, total: told.append(("tried", done, total)),
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0].to_dict() == runs[1].to_dict()
    total = len(data.query) + len(data.gallery)
    assert ("embedded", total, total) in told
    assert told[-1] == ("tried", 5, 5)
