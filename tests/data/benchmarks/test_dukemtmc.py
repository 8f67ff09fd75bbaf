"""DukeMTMC-reID: distractors have no mark, and its authors took it down."""

from __future__ import annotations

from pathlib import Path

import pytest

from occluded_reid.data.benchmarks.dukemtmc import DUKEMTMC_REID
from occluded_reid.data.dataset import load_dataset
from occluded_reid.data.verify import verify_dataset
from occluded_reid.errors import DataError

from .trees import make_tree

TREE = [
    "bounding_box_train/0001_c2_f0046182.jpg",
    "bounding_box_train/0001_c5_f0051341.JPG",
    "bounding_box_train/0008_c8_f0026318.jpg",
    "query/0005_c2_f0046985.jpg",
    "query/0023_c4_f0031504.jpg",
    "bounding_box_test/0005_c1_f0000001.jpg",
    "bounding_box_test/0023_c1_f0000002 copy.jpg",
    "bounding_box_test/7140_c4_f0175988.jpg",
    "bounding_box_test/7140_c4_f0175989.jpg",
    "bounding_box_test/7141_c7_f0175988.jpg",
    "bounding_box_test/Thumbs.db",
    "bounding_box_test/._0005_c1_f0000001.jpg",
    "LICENSE_DukeMTMC.txt",
]


@pytest.fixture
def duke(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "my data" / "DukeMTMC-reID", TREE)


@pytest.mark.parametrize("name", ["dukemtmc_reid", "dukemtmc"])
def test_the_tree(duke: Path, name: str) -> None:
    data = load_dataset(name, duke)
    assert [(s.identity, s.camera) for s in data.train] == [("0001", 2), ("0001", 5), ("0008", 8)]
    assert [(s.identity, s.camera) for s in data.query] == [("0005", 2), ("0023", 4)]
    assert [(s.identity, s.camera) for s in data.gallery] == [
        ("0005", 1),
        ("0023", 1),
        ("7140", 4),
        ("7140", 4),
        ("7141", 7),
    ]
    assert data.gallery[1].name == "bounding_box_test/0023_c1_f0000002 copy.jpg"
    assert data.name == "dukemtmc_reid"
    assert data.benchmark is DUKEMTMC_REID
    assert data.unanswerable() == ()


def test_who_is_never_asked_for_is_a_distractor(duke: Path) -> None:
    data = load_dataset("dukemtmc_reid", duke)
    assert data.distractors == {"7140", "7141"}
    assert data.identities("gallery") == data.identities("query") == ["0005", "0023"]


def test_a_person_of_the_training_side_is_no_distractor(duke: Path) -> None:
    make_tree(duke, ["bounding_box_test/0008_c1_f0000009.jpg"])
    data = load_dataset("dukemtmc_reid", duke)
    assert "0008" not in data.distractors
    assert sorted(data.train_classes()) == ["0001", "0008"]
    assert verify_dataset(data).shared_identities == ("0008",)


def test_that_it_is_withdrawn_is_told_first(duke: Path) -> None:
    data = load_dataset("dukemtmc_reid", duke)
    assert data.notes[0].startswith("DukeMTMC-reID is withdrawn: its authors took DukeMTMC")
    assert "downloads nothing" in data.notes[0]
    assert "Ristani" in data.citation
    assert "licence: for research" in data.format_card()


def test_training_images_alone(duke: Path, tmp_path: Path) -> None:
    assert load_dataset("dukemtmc_reid", duke, train_only=True).query == ()
    alone = make_tree(tmp_path / "part", TREE[:3])
    data = load_dataset("dukemtmc_reid", alone, holdout=1)
    assert data.distractors == frozenset()
    assert (len(data.train_classes()), len(data.identities("query"))) == (1, 1)


def test_roots_that_are_wrong(duke: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the root is one too high") as high:
        load_dataset("dukemtmc_reid", duke.parent)
    assert f"Give '{duke}'" in str(high.value)
    with pytest.raises(DataError, match="one folder too low") as low:
        load_dataset("dukemtmc_reid", duke / "bounding_box_test")
    assert f"Give '{duke}'" in str(low.value)
    packed = make_tree(tmp_path / "packed", ["DukeMTMC-reID.zip"])
    with pytest.raises(DataError, match=r"is not DukeMTMC-reID.*There are archives \(DukeMTMC-reID.zip\)"):
        load_dataset("dukemtmc_reid", packed)


def test_half_extracted(tmp_path: Path) -> None:
    half = make_tree(tmp_path / "half", [*TREE[:5], "DukeMTMC-reID.zip"])
    with pytest.raises(DataError, match=r"has no bounding_box_test/, only .*archives \(DukeMTMC-reID.zip\): extract"):
        load_dataset("dukemtmc_reid", half)
    make_tree(half, ["bounding_box_test/"])
    with pytest.raises(DataError, match=r"bounding_box_test' is empty, although the folder is there"):
        load_dataset("dukemtmc_reid", half)
