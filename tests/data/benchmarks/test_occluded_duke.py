"""Occluded-DukeMTMC in its trees: sorted, or DukeMTMC-reID with the three official lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from occluded_reid.data.benchmark import Benchmark, Counts
from occluded_reid.data.benchmarks import occluded_duke
from occluded_reid.data.dataset import ReIDData, Sample, load_dataset
from occluded_reid.data.verify import verify_dataset
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import DataError
from occluded_reid.evaluation import Protocol, evaluate
from occluded_reid.matchers import PlainMatcher

from .trees import make_tree

TRAIN = ["0001_c2_f0046182.jpg", "0001_c3_f0046183.jpg", "0008_c8_f0026318.jpg"]
# The first stands in the gallery too, as 1,870 of the official ones do; the second was a query of DukeMTMC-reID.
QUERY = ["0019_c1_f0051230.jpg", "0023_c4_f0031504.jpg"]
GALLERY = ["0019_c1_f0051230.jpg", "0019_c5_f0060626.jpg", "0023_c2_f0056943.jpg", "7140_c4_f0175988.jpg"]

SORTED = [
    *(f"bounding_box_train/{name}" for name in TRAIN),
    *(f"query/{name}" for name in QUERY),
    *(f"bounding_box_test/{name}" for name in GALLERY),
]
# DukeMTMC-reID itself has more training images, other queries, and more in its gallery than the lists take.
DUKE = [
    *(f"bounding_box_train/{name}" for name in [*TRAIN, "0009_c1_f0000001.jpg"]),
    *(f"query/{name}" for name in ["0023_c4_f0031504.jpg", "0019_c7_f0000002.jpg"]),
    *(f"bounding_box_test/{name}" for name in [*GALLERY, "0023_c8_f0000003.jpg"]),
]
LISTS = {
    "train.list": "\n".join(TRAIN) + "\n",
    "query.list": "\n".join(QUERY) + "\n",
    "gallery.list": "\r\n".join(GALLERY) + "\r\n\r\n",
}


def with_lists(root: Path, inner: str = "", **lists: str) -> Path:
    changed = {f"{name}.list": text for name, text in lists.items()}
    return make_tree(root, {**dict.fromkeys(inner + name for name in DUKE), **LISTS, **changed})


def names(samples: Sequence[Sample]) -> list[str]:
    return [sample.path.name for sample in samples]


def check(data: ReIDData) -> None:
    assert names(data.train) == TRAIN
    assert names(data.query) == QUERY
    assert names(data.gallery) == GALLERY
    assert [(s.identity, s.camera) for s in data.query] == [("0019", 1), ("0023", 4)]
    assert data.distractors == {"7140"}
    assert data.identities("gallery") == ["0019", "0023"]
    assert all(sample.path.is_file() for sample in (*data.train, *data.query, *data.gallery))
    assert all(s.path == data.root / s.name for s in (*data.train, *data.query, *data.gallery))
    assert any(note.startswith("1 of the 2 queries are in the gallery too") for note in data.notes)
    assert data.notes[0].startswith("Occluded-DukeMTMC is withdrawn")
    assert data.unanswerable() == ()
    assert data.benchmark is occluded_duke.OCCLUDED_DUKE


def test_sorted_already(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "Occluded Duke", SORTED)
    check(load_dataset("occluded_duke", root))
    check(load_dataset("occluded_dukemtmc", root))


def test_lists_beside_the_folders_of_the_source(tmp_path: Path) -> None:
    data = load_dataset("occluded_duke", with_lists(tmp_path))
    check(data)
    # Not in query/ of DukeMTMC-reID: it was one of its gallery.
    assert [s.name for s in data.query] == [f"bounding_box_test/{QUERY[0]}", f"query/{QUERY[1]}"]
    assert any("split as train.list, query.list, gallery.list say" in note for note in data.notes)


def test_lists_beside_the_folder_of_the_source(tmp_path: Path) -> None:
    data = load_dataset("occluded_duke", with_lists(tmp_path, "DukeMTMC-reID/"))
    check(data)
    assert data.query[1].name == f"DukeMTMC-reID/query/{QUERY[1]}"


def test_lists_beside_what_they_have_sorted(tmp_path: Path) -> None:
    """What the official script leaves behind."""
    data = load_dataset("occluded_duke", make_tree(tmp_path, {**dict.fromkeys(SORTED), **LISTS}))
    check(data)
    assert data.query[0].name == f"query/{QUERY[0]}"


@pytest.mark.parametrize("layout", ["sorted", "lists"])
def test_a_query_that_is_in_the_gallery_does_not_find_itself(tmp_path: Path, layout: str) -> None:
    root = make_tree(tmp_path, SORTED) if layout == "sorted" else with_lists(tmp_path)
    data = load_dataset("occluded_duke", root)
    # The same file gives the same embedding; true matches are the farthest of all, so each query fails.
    look = {"0019_c1_f0051230.jpg": [1.0, 0.0], "0019_c5_f0060626.jpg": [-1.0, 0.0]}
    look |= {"0023_c4_f0031504.jpg": [0.0, 1.0], "0023_c2_f0056943.jpg": [0.0, -1.0]}
    query, gallery = (embedded(data, samples, look) for samples in (data.query, data.gallery))
    by_the_rule = evaluate(query, gallery, PlainMatcher(), Protocol())
    assert by_the_rule.cmc[0] == 0.0
    assert by_the_rule.unanswerable == 0
    without = evaluate(query, gallery, PlainMatcher(), Protocol(exclude_same_camera=False))
    assert without.cmc[0] == 0.5  # the query that stands in the gallery too


def embedded(data: ReIDData, samples: Sequence[Sample], look: dict[str, list[float]]) -> EmbeddedSet:
    rows = torch.tensor([look.get(sample.path.name, [0.6, 0.6]) for sample in samples])
    identity, camera = data.labels(samples)
    return EmbeddedSet(PartEmbeddings(("global",), (rows,), torch.ones(len(rows), 1)), identity, np.asarray(camera))


def test_verify_says_that_copies_of_queries_do_no_harm(tmp_path: Path) -> None:
    report = verify_dataset(load_dataset("occluded_duke", make_tree(tmp_path, SORTED)))
    assert [d.problem for d in report.duplicates] == [""]
    assert not any("identical" in problem for problem in report.problems)
    one_file = verify_dataset(load_dataset("occluded_duke", with_lists(tmp_path / "listed")))
    assert one_file.duplicates == (), "by lists a query and its gallery image are one file, and no copy"


def test_the_source_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders are the same, the queries are not: known by how many there are."""
    small = {"": {"train": Counts(4, 3), "query": Counts(2, 2), "gallery": Counts(5, 2, 1)}}
    monkeypatch.setattr(occluded_duke, "DUKEMTMC_REID", _like(occluded_duke.DUKEMTMC_REID, small))
    root = make_tree(tmp_path, DUKE)
    with pytest.raises(DataError, match=r"is DukeMTMC-reID \(4 training images, 2 queries\), not Occluded-DukeMTMC"):
        load_dataset("occluded_duke", root)
    check(load_dataset("occluded_duke", with_lists(root)))


def _like(benchmark: Benchmark, counts: dict[str, dict[str, Counts]]) -> Benchmark:
    return Benchmark(**{**vars(benchmark), "counts": counts})


def test_a_list_names_an_image_that_is_missing(tmp_path: Path) -> None:
    root = with_lists(tmp_path, gallery="\n".join([*GALLERY, "0023_c2_f0099999.jpg"]))
    with pytest.raises(DataError, match=r"gallery.list' names 5 images, of which 1 are missing in .*bounding_box_test"):
        load_dataset("occluded_duke", root)


@pytest.mark.parametrize(
    "line", ["../../secret_c1.jpg", "/etc/0001_c1.jpg", "..\\..\\secret_c1.jpg", "C:\\0001_c1.jpg"]
)
def test_a_list_that_leads_out_of_the_root(tmp_path: Path, line: str) -> None:
    root = with_lists(tmp_path / "set", query="\n".join([*QUERY, line]))
    with pytest.raises(DataError, match=r"line 3 of '.*query.list' names .*leads out of"):
        load_dataset("occluded_duke", root)


def test_a_list_names_an_image_twice(tmp_path: Path) -> None:
    root = with_lists(tmp_path, train="\n".join([*TRAIN, TRAIN[0]]))
    with pytest.raises(DataError, match=r"line 4 of '.*train.list' names '0001_c2_f0046182.jpg' again, after line 1"):
        load_dataset("occluded_duke", root)


def test_a_list_that_is_missing_or_empty(tmp_path: Path) -> None:
    (with_lists(tmp_path / "a") / "query.list").unlink()
    with pytest.raises(DataError, match=r"holds only a part of Occluded-DukeMTMC .*query.list is missing"):
        load_dataset("occluded_duke", tmp_path / "a")
    with pytest.raises(DataError, match=r"query.list' is empty"):
        load_dataset("occluded_duke", with_lists(tmp_path / "b", query="\n"))
    named_otherwise = make_tree(with_lists(tmp_path / "c", query="person.jpg\n"), ["query/person.jpg"])
    with pytest.raises(DataError, match=r"query.list': 1 images left out, not named like"):
        load_dataset("occluded_duke", named_otherwise)


def test_lists_without_the_images(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {**LISTS, "DukeMTMC-reID.zip": b""})
    with pytest.raises(DataError, match=r"holds only a part .*bounding_box_train/.*extract them there first"):
        load_dataset("occluded_duke", root)


def test_training_images_alone(tmp_path: Path) -> None:
    for root in (make_tree(tmp_path / "a", SORTED), with_lists(tmp_path / "b")):
        data = load_dataset("occluded_duke", root, train_only=True)
        assert (names(data.train), data.query, data.gallery) == (TRAIN, (), ())


def test_a_root_wrong_by_a_folder(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "Occluded_Duke", SORTED)
    with pytest.raises(DataError, match="one too high"):
        load_dataset("occluded_duke", tmp_path)
    with pytest.raises(DataError, match="one folder too low"):
        load_dataset("occluded_duke", root / "query")
    # All three folders are there, but those of DukeMTMC-reID: the lists beside them say what is asked for.
    listed = with_lists(tmp_path / "listed", "DukeMTMC-reID/")
    with pytest.raises(DataError, match=r"one folder too low\. Give '.*listed'"):
        load_dataset("occluded_duke", listed / "DukeMTMC-reID")
