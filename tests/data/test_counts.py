"""What is found is compared with a whole copy, and each difference says what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occluded_reid.data import counts as counts_module
from occluded_reid.data.benchmark import Benchmark, Counts, Layout
from occluded_reid.data.counts import CountComparison, compare_counts, counts_of
from occluded_reid.data.dataset import ReIDData, Sample, Split
from occluded_reid.data.holdout import holdout

WHOLE: dict[Split, Counts] = {"train": Counts(6, 3), "query": Counts(2, 2), "gallery": Counts(5, 2, 1)}
TOY = Benchmark(
    name="toy",
    title="Toy",
    layouts=(Layout("plain", {}),),
    identity_rule="",
    camera_rule="",
    cameras=2,
    counts={"": WHOLE, "more": {**WHOLE, "train": Counts(8, 3)}},
    trained_on=("toy",),
)
OTHER = replace(TOY, name="other", title="Other", counts={"": {**WHOLE, "query": Counts(3, 2)}})


def sample(split: str, identity: str, camera: int, number: int) -> Sample:
    name = f"{split}/{identity}_{camera}_{number}.jpg"
    return Sample(name, Path(name), identity, camera)


def toy(**changes: tuple[Sample, ...]) -> ReIDData:
    whole: dict[str, tuple[Sample, ...]] = {
        "train": tuple(sample("train", person, camera, 0) for person in "abc" for camera in (0, 1)),
        "query": tuple(sample("query", person, 0, 0) for person in "de"),
        "gallery": (
            *(sample("gallery", person, camera, 0) for person in "de" for camera in (0, 1)),
            sample("gallery", "z", 0, 0),
        ),
    }
    return ReIDData("toy", Path(), distractors=frozenset("z"), benchmark=TOY, **{**whole, **changes})


def compared(data: ReIDData) -> CountComparison:
    found = compare_counts(data)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts_module, "all_benchmarks", lambda: [OTHER, TOY])


def test_a_whole_copy() -> None:
    found = compared(toy())
    assert found.problems == ()
    assert found.compared == ("train", "query", "gallery")
    assert found.lines() == ["counts: train, query, gallery as in a whole Toy"]


def test_anybodys_own_images_are_not_compared() -> None:
    assert compare_counts(replace(toy(), benchmark=None)) is None


def test_missing_images() -> None:
    data = toy()
    found = compared(replace(data, train=data.train[:3]))
    (difference,) = found.differences
    assert (difference.where, difference.found, difference.expected) == ("train", Counts(3, 2), Counts(6, 3))
    assert difference.text == (
        "train: 3 of 6 images, 2 of 3 identities; 3 missing: this is a part of it; "
        "extract or copy the data set again, whole"
    )
    assert found.lines() == []


def test_too_many_images() -> None:
    data = toy()
    (problem,) = compared(replace(data, gallery=(*data.gallery, sample("gallery", "d", 1, 9)))).problems
    assert problem.startswith("gallery: 6 of 5 images, 3 of 3 identities; 1 too many: images of another split")


def test_as_many_of_other_people() -> None:
    data = toy()
    (problem,) = compared(replace(data, train=(*data.train[:5], sample("train", "x", 1, 0)))).problems
    assert problem.startswith(
        "train: 6 of 6 images, 4 of 3 identities; as many as there should be, but of other people"
    )


def test_missing_queries_do_not_make_their_people_strangers_in_the_gallery() -> None:
    data = toy()
    found = compared(replace(data, query=data.query[:1], distractors=frozenset("ez")))
    assert [difference.where for difference in found.differences] == ["query"]


def test_the_counts_of_another_set_are_recognised() -> None:
    data = toy()
    (problem,) = compared(replace(data, query=(*data.query, sample("query", "d", 1, 1)))).problems
    assert problem == "query: 3 of 2 images, 2 of 2 identities; these are the counts of Other: load it as 'other'"


def test_the_counts_of_another_variant_are_recognised() -> None:
    data = toy()
    more = (*data.train, sample("train", "a", 0, 1), sample("train", "a", 1, 1))
    (problem,) = compared(replace(data, train=more)).problems
    assert problem.endswith("; these are the counts of its variant 'more'")
    assert compared(replace(data, train=more, variant="more")).lines() == [
        "counts: train, query, gallery as in a whole Toy (more)"
    ]


def test_a_variant_without_counts() -> None:
    found = compared(replace(toy(), variant="classic, split 3"))
    assert (found.compared, found.problems) == ((), ())
    assert found.lines() == ["counts: the counts of Toy (classic, split 3) are not known"]


def test_only_a_training_split() -> None:
    data = replace(toy(), query=(), gallery=())
    found = compared(data)
    assert found.compared == ("train",)
    assert found.problems == ()
    assert "query, gallery not compared: nothing of it is loaded; this is a part of Toy" in found.note


def test_a_hold_out_is_not_compared() -> None:
    found = compared(holdout(toy(), 1, 4))
    assert (found.compared, found.problems) == ((), ())
    assert "these are other splits (hold-out of 1 training identities, seed 4)" in found.note


def test_cameras() -> None:
    data = toy()
    one = tuple(replace(s, camera=0, name=f"{s.name}{i}") for i, s in enumerate(data.train))
    other = {split: tuple(replace(s, camera=0) for s in data.split(split)) for split in ("query", "gallery")}
    (problem,) = compared(replace(data, train=one, **other)).problems
    assert problem == "cameras: 1 of 2 seen; some are missing; extract or copy the data set again, whole"
    strange = (*data.train[:-1], replace(data.train[-1], camera=6))
    (problem,) = compared(replace(data, train=strange)).problems
    assert problem.startswith("cameras: 3 of 2 seen; camera 6 is none of its (0 … 1)")


def test_json() -> None:
    data = toy()
    content = json.loads(json.dumps(compared(replace(data, train=data.train[:3])).to_dict()))
    assert content["expected"]["gallery"] == {"images": 5, "identities": 2, "distractors": 1}
    assert content["differences"][0]["found"] == {"images": 3, "identities": 2, "distractors": 0}
    assert content["compared"] == ["train", "query", "gallery"]


@given(st.lists(st.tuples(st.sampled_from("abcz"), st.integers(0, 1)), max_size=12))
def test_counts_by_hand(rows: list[tuple[str, int]]) -> None:
    gallery = tuple(sample("gallery", person, camera, i) for i, (person, camera) in enumerate(rows))
    people = {person for person, _ in rows}
    found = counts_of(toy(gallery=gallery), "gallery")
    assert found == (len(rows), len(people - {"z"}), int("z" in people))


def test_the_expected_counts_are_told() -> None:
    expected: Mapping[Split, Counts] = compared(toy()).expected
    assert expected == WHOLE
