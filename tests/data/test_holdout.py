"""The hold-out against its definition, written out in the plainest way."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import occluded_reid.data
from occluded_reid.data.dataset import ReIDData, Sample, load_dataset
from occluded_reid.data.holdout import holdout, shared_identities, validation_side
from occluded_reid.data.partition import Partition
from occluded_reid.errors import DataError, EvaluationError
from occluded_reid.evaluation.held_out import held_out_scores


def toy(identities: int = 12, cameras: int = 3, images: int = 3) -> ReIDData:
    samples = tuple(
        Sample(f"train/{p:04d}_c{c + 1}_{i}.png", Path("x"), f"{p:04d}", c)
        for p in range(1, identities + 1)
        for c in range(cameras)
        for i in range(images)
    )
    return ReIDData("toy", Path(), samples)


def digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


@pytest.mark.parametrize("seed", [0, 7])
def test_against_the_definition(seed: int) -> None:
    data = toy()
    split = holdout(data, 4, seed)
    ordered = sorted({s.identity for s in data.train}, key=lambda identity: digest(seed, identity))
    chosen = ordered[:4]
    queries, gallery, train = [], [], []
    for sample in data.train:
        if sample.identity not in chosen:
            train.append(sample)
            continue
        rivals = [s for s in data.train if s.identity == sample.identity and s.camera == sample.camera]
        first = min(digest(seed, s.name) for s in rivals) == digest(seed, sample.name)
        (queries if first else gallery).append(sample)
    assert list(split.train) == train
    assert list(split.query) == queries
    assert list(split.gallery) == gallery
    assert len(queries) == 4 * 3
    assert len(split.train_classes()) == 8


def test_the_seed_chooses_and_the_order_of_files_does_not() -> None:
    data = toy()
    again = holdout(replace(data, train=data.train[::-1]), 4, 0)
    assert set(again.query) == set(holdout(data, 4, 0).query)
    assert holdout(data, 4, 0).identities("query") != holdout(data, 4, 1).identities("query")
    assert set(holdout(data, 3, 0).identities("query")) < set(holdout(data, 4, 0).identities("query"))


def test_queries_without_a_match_are_counted() -> None:
    # Two cameras with one image each: both become queries, and nothing is left to find.
    split = holdout(toy(identities=3, cameras=2, images=1), 2, 0)
    assert len(split.query) == 4
    assert split.gallery == ()
    assert len(split.unanswerable()) == 4
    assert "4 queries without a match under another camera" in split.notes[-1]
    assert holdout(toy(), 4).unanswerable() == ()
    # One camera: its query finds only images of the same camera.
    assert len(holdout(toy(cameras=1), 4).unanswerable()) == 4


def test_unknown_cameras_give_one_query_an_identity() -> None:
    data = toy(images=1)
    numbered = tuple(replace(sample, camera=i) for i, sample in enumerate(data.train))
    split = holdout(replace(data, train=numbered, cameras_known=False), 4, 0)
    assert (len(split.query), len(split.gallery)) == (4, 8)
    assert split.unanswerable() == ()


def test_validation_identities_leave_the_test_identities_unseen() -> None:
    test = holdout(toy(), 4, 0)
    validation = holdout(test, 3, 1)
    assert len(validation.train_classes()) == 5
    assert not set(validation.identities("query")) & set(test.identities("query"))
    assert "in place of 12 queries and 24 gallery images" in validation.notes[-1]


@pytest.mark.parametrize("seed", [0, 5])
def test_a_validation_side_is_a_hold_out_of_what_is_left(seed: int) -> None:
    test = holdout(toy(), 4, seed)
    side = validation_side(test, 3, seed)
    left = sorted({s.identity for s in test.train}, key=lambda identity: digest(seed + 1, identity))
    assert side.identities("query") == side.identities("gallery") == sorted(left[:3])
    assert side.identities("train") == sorted(left[3:])
    assert not {s.identity for s in (*side.query, *side.gallery)} & {s.identity for s in (*test.query, *test.gallery)}
    assert len(side.query) + len(side.gallery) + len(side.train) == len(test.train)
    assert side.part == f"validation: 3 training identities, seed {seed}"
    assert side.notes[-1].startswith(f"{side.part}: 9 queries, 18 gallery images; the test side is not among them")
    assert validation_side(test, 3, seed) == side
    # The order of the files chooses nobody.
    mixed = validation_side(replace(test, train=test.train[::-1]), 3, seed)
    assert set(mixed.query) == set(side.query)


def test_a_validation_side_that_cannot_be_is_refused() -> None:
    test = holdout(toy(), 4, 0)
    with pytest.raises(DataError, match="8 identities cannot be set aside: 'toy' has 8 for training"):
        validation_side(test, 8, 0)
    known = test.query[0]
    both = replace(test, train=(*test.train, known))
    assert shared_identities(both) == [known.identity]
    with pytest.raises(DataError, match=f"1 identities of 'toy', such as '{known.identity}', are in training and in"):
        validation_side(both, 3, 0)
    assert shared_identities(replace(both, distractors=frozenset({known.identity}))) == []
    lonely = toy(cameras=1)
    once = {sample.identity: sample for sample in lonely.train}
    with pytest.raises(DataError, match="none of the 3 validation queries of 'toy' has another image to find"):
        validation_side(replace(lonely, train=tuple(once.values())), 3, 0)


def test_one_camera_can_be_validated_on_where_the_rule_is_given_up() -> None:
    side = validation_side(toy(cameras=1), 3, 0)
    assert len(side.query) == len(side.unanswerable()) == 3
    assert side.notes[-1].endswith("3 queries without a match under another camera")
    with pytest.raises(EvaluationError, match=r"none of the 3 queries of 'toy' .*--no-exclude-same-camera"):
        held_out_scores(side)
    assert callable(held_out_scores(side, exclude_same_camera=False))


@pytest.mark.parametrize("count", [12, 100, 0, -1])
def test_too_many_and_too_few(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} identities cannot be set aside: 'toy' has 12 for training"):
        holdout(toy(), count)


def test_through_load_dataset(tmp_path: Path) -> None:
    for identity in "abcd":
        (tmp_path / identity).mkdir()
        for i in range(2):
            Image.new("RGB", (1, 1)).save(tmp_path / identity / f"{i}.png")
    data = load_dataset("folder", tmp_path, holdout=2, seed=3)
    assert (len(data.train), len(data.query), len(data.gallery)) == (4, 2, 2)
    assert load_dataset("folder", tmp_path, holdout=2, seed=3) == data
    with pytest.raises(DataError, match="4 identities cannot be set aside"):
        load_dataset("folder", tmp_path, holdout=4)
    both = load_dataset("folder", tmp_path, holdout=1, validation=1, seed=3)
    assert both == validation_side(load_dataset("folder", tmp_path, holdout=1, seed=3), 1, 3)
    assert len(both.identities("train")) == 2


def test_the_package_names_the_function() -> None:
    assert occluded_reid.data.holdout is holdout
    assert set(occluded_reid.data.__all__) >= set(occluded_reid.data._HOME)
    assert occluded_reid.data.__all__ == sorted(occluded_reid.data.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = occluded_reid.data.nothing


def test_a_data_set_is_shown_in_one_line() -> None:
    split = holdout(toy(), 4, 0)
    assert repr(split) == (
        f"ReIDData('toy', root={str(split.root)!r}, train=<72 images, 8 identities, 3 cameras>, "
        "query=<12 images, 4 identities, 3 cameras>, gallery=<24 images, 4 identities, 3 cameras>, "
        "part='hold-out of 4 training identities, seed 0')"
    )
    assert "unknown cameras" in repr(replace(split, cameras_known=False))


def test_how_people_were_set_aside_is_data() -> None:
    side = validation_side(holdout(toy(), 4, 0), 3, 5)
    assert side.partitions == (
        Partition("holdout", 4, 0, 12, 24),
        Partition("validation", 3, 5, 9, 18),
    )
    assert side.notes == tuple(map(str, side.partitions))


@given(
    st.sampled_from(["holdout", "validation"]),
    *[st.integers(0, 9999)] * 5,
    st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
)
def test_records_of_old_and_new_versions_are_read(
    kind: Any, people: int, seed: int, queries: int, gallery: int, alone: int, replaced: tuple[int, int]
) -> None:
    record = Partition(kind, people, seed, queries, gallery, alone, replaced if kind == "holdout" else (0, 0))
    assert Partition.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert Partition.from_dict(str(record)) == record  # as it was kept once


@pytest.mark.parametrize(
    "damage",
    [None, 3, "hold-out", {}, {"kind": "holdout"}, {**Partition("holdout", 1, 0, 1, 1).to_dict(), "seed": "0"}],
)
def test_damaged_records_are_refused(damage: Any) -> None:
    with pytest.raises(DataError, match="how people were set aside cannot be read"):
        Partition.from_dict(damage)
