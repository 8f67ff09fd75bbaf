"""Occluded-REID in its three trees, and the camera that its names seem to have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.data.benchmark import Counts, benchmark_of
from occluded_reid.data.dataset import ReIDData, load_dataset
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import DataError
from occluded_reid.evaluation import Protocol, evaluate
from occluded_reid.matchers import PlainMatcher

ORIGINAL = [f"{p:03d}/{p:03d}_{k:02d}.tif" for p in (1, 2, 10) for k in (1, 2)]
FLAT = [name.rpartition("/")[2].replace(".tif", ".JPG") for name in ORIGINAL]
RENAMED = [f"{p:04d}_c{c}s{c}_{k:06d}_00.tif" for p, c in ((1, 1), (2, 1), (10, 1)) for k in (1, 2)]


def plant(root: Path, tree: dict[str, list[str]]) -> Path:
    for folder, names in tree.items():
        for name in names:
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 8)).save(path)
    return root


@pytest.fixture
def original(tmp_path: Path) -> Path:
    tree = {"occluded_body_images": ORIGINAL, "whole_body_images": ORIGINAL}
    return plant(tmp_path / "my data" / "Occluded_REID", tree)


def check(data: ReIDData) -> None:
    assert [s.identity for s in data.query] == ["001", "001", "002", "002", "010", "010"]
    assert [s.identity for s in data.gallery] == ["001", "001", "002", "002", "010", "010"]
    assert {s.camera for s in data.query} == {0}
    assert {s.camera for s in data.gallery} == {1}
    assert data.train == ()
    assert data.unanswerable() == ()
    assert not data.distractors
    assert data.name == "occluded_reid"
    assert data.variant == ""
    assert data.benchmark is benchmark_of("occluded_reid")


def test_original_tree(original: Path) -> None:
    data = load_dataset("occluded_reid", original)
    check(data)
    assert data.query[0].name == "occluded_body_images/001/001_01.tif"
    assert data.query[0].path == original / "occluded_body_images" / "001" / "001_01.tif"
    assert data.notes == ()


@pytest.mark.parametrize(
    "tree",
    [
        {"query": FLAT, "gallery": FLAT},
        {"query": RENAMED, "bounding_box_test": [name.replace("c1s1", "c3s3") for name in RENAMED]},
        {"occluded_body_images": FLAT, "whole_body_images": FLAT},
        {
            "occluded_body_images": [name.replace(".tif", ".jpg") for name in ORIGINAL],
            "whole_body_images": [name.replace(".tif", ".jpg") for name in ORIGINAL],
        },
    ],
    ids=["query and gallery", "renamed", "flat", "jpg"],
)
def test_other_trees(tmp_path: Path, tree: dict[str, list[str]]) -> None:
    check(load_dataset("occluded_reid", plant(tmp_path / "set", tree)))


def embedded(data: ReIDData, split: str, cameras: np.ndarray | None = None) -> EmbeddedSet:
    """Image k of a person is nearest to image k of that person on the other side, then to the person's others."""
    samples = data.query if split == "query" else data.gallery
    identity, camera = data.labels(samples)
    rows = torch.zeros(len(samples), 8)
    for row, (sample, person) in enumerate(zip(samples, identity, strict=True)):
        rows[row, person] = 1.0
        rows[row, 4 + int(sample.path.stem.split("_")[1])] = 0.5
    return EmbeddedSet(
        PartEmbeddings(("global",), (rows,), torch.ones(len(samples), 1)),
        identity,
        camera if cameras is None else cameras,
    )


def test_no_true_match_is_dropped(original: Path) -> None:
    data = load_dataset("occluded_reid", original)
    protocol = Protocol(bootstrap=0)
    report = evaluate(embedded(data, "query"), embedded(data, "gallery"), PlainMatcher(), protocol)
    assert report.card.excluded_pairs == 0
    assert report.rank(1) == 1.0
    assert report.mAP == 1.0
    # What a loader does that takes the second number for the camera: each query loses the match of its own number.
    parsed = [np.array([int(s.path.stem.split("_")[1]) for s in samples]) for samples in (data.query, data.gallery)]
    trapped = evaluate(
        embedded(data, "query", parsed[0]), embedded(data, "gallery", parsed[1]), PlainMatcher(), protocol
    )
    assert trapped.card.excluded_pairs == len(data.query)


def test_names_that_say_nothing_are_left_out_and_told(original: Path) -> None:
    (original / "whole_body_images" / "Thumbs.db").touch()
    Image.new("RGB", (4, 8)).save(original / "whole_body_images" / "001" / "copy.png")
    data = load_dataset("occluded_reid", original)
    check(data)
    assert data.notes == ("whole_body_images: 1 images left out, not named like 001_01.tif (001/copy.png)",)


def test_an_image_twice(original: Path) -> None:
    Image.new("RGB", (4, 8)).save(original / "whole_body_images" / "002" / "002_01.jpg")
    with pytest.raises(DataError, match=r"one image twice: '002/002_01\.jpg' and '002/002_01\.tif'"):
        load_dataset("occluded_reid", original)


def test_an_image_in_another_persons_folder(original: Path) -> None:
    (original / "whole_body_images" / "001" / "001_02.tif").rename(
        original / "whole_body_images" / "002" / "001_02.tif"
    )
    with pytest.raises(DataError, match=r"named after person 1 but lies in the folder of person 2"):
        load_dataset("occluded_reid", original)


def test_roots_that_are_wrong_and_half_a_copy(original: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one too high\. Give '.*Occluded_REID'"):
        load_dataset("occluded_reid", original.parent)
    with pytest.raises(DataError, match=r"one folder too low\. Give '.*Occluded_REID'"):
        load_dataset("occluded_reid", original / "whole_body_images")
    half = plant(tmp_path / "half", {"occluded_body_images": ORIGINAL})
    with pytest.raises(DataError, match=r"occluded_body_images is there, whole_body_images/ is missing"):
        load_dataset("occluded_reid", half)
    with pytest.raises(DataError, match=r"none of them named like 001_01\.tif"):
        load_dataset("occluded_reid", plant(tmp_path / "odd", {"query": ["a.png"], "gallery": ["b.png"]}))


def test_a_query_without_a_match_is_told(original: Path) -> None:
    for path in (original / "whole_body_images" / "002").iterdir():
        path.unlink()
    data = load_dataset("occluded_reid", original)
    assert [sample.identity for sample in data.unanswerable()] == ["002", "002"]


def test_counts() -> None:
    benchmark = benchmark_of("occluded_reid")
    assert benchmark is not None
    assert benchmark.counts == {"": {"query": Counts(1000, 200), "gallery": Counts(1000, 200)}}
    assert benchmark.trained_on == ("market1501",)
    assert benchmark.shots == "multi"


def test_links_in_place_of_folders(original: Path, tmp_path: Path) -> None:
    """A link to a whole part is followed; one below it would leave a person out without a word."""
    queries = original / "occluded_body_images"
    elsewhere = queries.rename(tmp_path / "elsewhere")
    queries.symlink_to(elsewhere)
    check(load_dataset("occluded_reid", original))
    (elsewhere / "002").rename(tmp_path / "002")
    (elsewhere / "002").symlink_to(tmp_path / "002")
    with pytest.raises(DataError, match=r"occluded_body_images/002' is a link to a folder.*1 such links"):
        load_dataset("occluded_reid", original)
