"""P-DukeMTMC-reID: a folder for each person, occluded against whole, cameras made up by the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from occluded_reid.data.dataset import load_dataset
from occluded_reid.errors import DataError

from .trees import make_tree

# Query and gallery of person 5 were seen by camera 2: the names say so, the protocol does not care.
TREE = [
    "train/occluded_body_images/0001/0001_c2_f0046182.jpg",
    "train/occluded_body_images/0008/0008_c2_f0046182.jpg",
    "train/whole_body_images/0001/0001_c3_f0046182.JPG",
    "train/whole_body_images/0008/0008_c5_f0046182.jpg",
    "test/occluded_body_images/0005/0005_c2_f0000001.jpg",
    "test/occluded_body_images/0006/0006_c1_f0000001 (2).jpg",
    "test/whole_body_images/0005/0005_c2_f0000002.jpg",
    "test/whole_body_images/0005/Thumbs.db",
    "test/whole_body_images/0006/0006_c1_f0000003.tif",
]


@pytest.mark.parametrize("folder", ["P-DukeMTMC-reid", "P-DukeMTMC-reID"])
def test_the_tree(tmp_path: Path, folder: str) -> None:
    data = load_dataset("p_dukemtmc", make_tree(tmp_path / folder, TREE))
    assert [(s.identity, s.camera) for s in data.train] == [("0001", 0), ("0008", 0), ("0001", 1), ("0008", 1)]
    assert [(s.identity, s.camera) for s in data.query] == [("0005", 0), ("0006", 0)]
    assert [(s.identity, s.camera) for s in data.gallery] == [("0005", 1), ("0006", 1)]
    assert data.query[1].name == TREE[5]
    assert data.distractors == frozenset()
    # By the cameras in the names both queries would lose their only match.
    assert data.unanswerable() == ()
    assert data.notes[0].startswith("P-DukeMTMC-reID is withdrawn")
    assert len(data.notes) == 1


def test_without_a_training_side(tmp_path: Path) -> None:
    data = load_dataset("p_dukemtmc_reid", make_tree(tmp_path, TREE[4:]))
    assert (len(data.train), len(data.query), len(data.gallery)) == (0, 2, 2)
    assert "there is no train/: queries and a gallery only" in data.notes


def test_half_of_a_training_side_is_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path, TREE[2:])
    with pytest.raises(DataError, match="has no train/occluded_body_images/, although training takes"):
        load_dataset("p_dukemtmc", root)


def test_half_extracted(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [*TREE[:6], "P-DukeMTMC-reid.zip"])
    with pytest.raises(
        DataError, match=r"only a part of P-DukeMTMC-reID.*test/whole_body_images/ is missing.*archives"
    ):
        load_dataset("p_dukemtmc", root)


def test_names_that_are_strange(tmp_path: Path) -> None:
    more = ["test/whole_body_images/0006/cover.jpg", "test/whole_body_images/0006/0005_c4_f0000009.jpg"]
    data = load_dataset("p_dukemtmc", make_tree(tmp_path, [*TREE, *more]))
    assert data.gallery[-2].identity == "0005"
    assert len(data.gallery) == 3
    assert any("1 images left out, not named like" in note and "(cover.jpg)" in note for note in data.notes)
    assert any("1 images are in the folder of another identity" in note for note in data.notes)
    other = make_tree(tmp_path / "other", [*TREE[:6], "test/whole_body_images/0005/a.jpg"])
    with pytest.raises(DataError, match="holds 1 images, none of them named like"):
        load_dataset("p_dukemtmc", other)


def test_masks_beside(tmp_path: Path) -> None:
    root = make_tree(tmp_path, [*TREE, f"masks/{Path(TREE[4]).with_suffix('.png').as_posix()}"])
    data = load_dataset("p_dukemtmc", root)
    assert data.query[0].mask == root / "masks" / Path(TREE[4]).with_suffix(".png")
    assert data.query[1].mask is None


def test_a_root_wrong_by_a_folder(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "P-DukeMTMC-reid", TREE)
    with pytest.raises(DataError, match="one too high") as high:
        load_dataset("p_dukemtmc", tmp_path)
    assert f"Give '{root}'" in str(high.value)
    for low in ("test", "test/whole_body_images", "test/whole_body_images/0005"):
        with pytest.raises(DataError, match="one folder too low") as found:
            load_dataset("p_dukemtmc", root / low)
        assert f"Give '{root}'" in str(found.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        load_dataset("p_dukemtmc", tmp_path / "empty")


def test_a_person_behind_a_link(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", TREE)
    person = root / "test/whole_body_images/0005"
    person.rename(tmp_path / "0005")
    person.symlink_to(tmp_path / "0005")
    with pytest.raises(DataError, match=r"0005' is a link to a folder"):
        load_dataset("p_dukemtmc", root)
