"""Images of unknown people, and cameras by name: what is refused, and what people get to read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.data import ReIDData, Sample, holdout, verify_dataset
from occluded_reid.data.camera_names import camera_of_text, number_cameras
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import DataError
from occluded_reid.evaluation import embed_samples
from occluded_reid.evaluation.studies.failures import find_failures
from occluded_reid.matchers import PlainMatcher
from occluded_reid.models import build_model
from occluded_reid.training import train


def people(tmp_path: Path, *identities: str | None) -> tuple[Sample, ...]:
    for number in range(len(identities)):
        Image.fromarray(np.full((8, 4, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    return tuple(Sample(f"{n}.png", tmp_path / f"{n}.png", who, n % 2) for n, who in enumerate(identities))


def test_unknown_people_are_refused_where_they_must_be_known(tmp_path: Path) -> None:
    some = people(tmp_path, "a", "a", None, "b", None)
    data = ReIDData("crops", tmp_path, train=some, query=some[:3], gallery=some)
    assert data.identities("train") == ["a", "b"]
    why = r"2 of 5 images of 'crops' have no identity, such as '2\.png': training needs.*column identity"
    with pytest.raises(DataError, match=why):
        train("sorn_lite", data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match=r"1 of 3 images .* evaluation needs"):
        embed_samples(build_model("sorn_lite"), data, data.query)
    with pytest.raises(DataError, match="a hold-out needs"):
        holdout(data, 1)
    with pytest.raises(DataError, match=r"the image '2\.png' has no identity"):
        _ = some[2].person
    assert [sample.person for sample in some[:2]] == ["a", "a"]


def test_a_set_of_unknown_people_alone_says_so_too(tmp_path: Path) -> None:
    data = ReIDData("crops", tmp_path, train=(), gallery=people(tmp_path, None, None))
    for attempt in (data.train_classes, lambda: embed_samples(build_model("sorn_lite"), data, data.query)):
        with pytest.raises(DataError, match=r"2 of 2 images of 'crops' have no identity"):
            attempt()


def test_names_are_shown_for_numbers(tmp_path: Path) -> None:
    some = people(tmp_path, "a", "a", "b", "b")
    data = ReIDData("toy", tmp_path, train=(), query=some[:1], gallery=some[1:], camera_names={0: "hall"})
    assert [data.camera_label(number) for number in (0, 1)] == ["hall", 1]
    assert replace(data, cameras_known=False).camera_label(0) is None
    report = verify_dataset(data)
    assert report.to_dict()["cameras"] == {"hall": 2, "1": 2}
    assert "cameras: 2 (hall: 2, 1: 2)" in report.lines()
    rows = PartEmbeddings(("global",), (torch.eye(4),), torch.ones(4, 1))
    sides = (EmbeddedSet(rows[:1], *data.labels(data.query)), EmbeddedSet(rows[1:], *data.labels(data.gallery)))
    found = find_failures(*sides, PlainMatcher(), camera_names=data.camera_names)
    assert [part.name for part in found.by_camera_pair] == ["hall → 1"]
    assert [part.name for part in found.by_query_camera] == ["hall"]


@pytest.mark.parametrize(
    ("text", "camera"),
    [
        ("1", 1),
        ("1.0", 1),
        ("1.", 1),
        (" 01 ", 1),
        ("-2", -2),
        ("+3", 3),
        ("1.5", "1.5"),
        ("hall", "hall"),
        ("c1", "c1"),
        ("²", "²"),
        ("", ""),
        ("9" * 19, "9" * 19),
        ("9" * 100_000, "9" * 100_000),
    ],
)
def test_what_a_text_means(text: str, camera: int | str) -> None:
    assert camera_of_text(text) == camera


def test_a_number_in_another_writing_renumbers_nobody() -> None:
    assert number_cameras([camera_of_text(text) for text in ("1", "2", "1.0")]) == ([1, 2, 1], {})
    numbers, names = number_cameras(["b", 0, "a", 2, "b"])
    assert numbers == [3, 0, 1, 2, 3]
    assert names == {1: "a", 3: "b"}
