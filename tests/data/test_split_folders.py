"""No split becomes a person, however its folder is spelt; other folders beside splits are left out and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.dataset import ReIDData
from occluded_reid.data.folder import load_folder
from occluded_reid.errors import DataError


def plant(root: Path, *folders: str) -> Path:
    """Two people, of one image each, in each folder; one that ends in a file name is that image alone."""
    for folder in folders:
        for name in [folder] if folder.endswith(".png") else [f"{folder}/0001/1.png", f"{folder}/0002/2.png"]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 4)).save(root / name)
    return root


def images(data: ReIDData) -> dict[str, list[str]]:
    return {
        split: [sample.name.partition("/")[0] for sample in data.split(split)]
        for split in ("train", "query", "gallery")
    }


@pytest.mark.parametrize(
    ("train", "query", "gallery"),
    [
        ("train", "query", "gallery"),
        ("Train", "Query", "GALLERY"),
        ("training", "queries", "galleries"),
        ("TRAINING", "probe", "gallery"),
        ("bounding_box_train", "query", "bounding_box_test"),
        ("Bounding-Box-Train", "Probe", "boundingboxtest"),
        ("train", "query", "test"),
        ("train_set", "query-images", "Gallery Split"),
    ],
)
def test_splits_in_any_spelling(tmp_path: Path, train: str, query: str, gallery: str) -> None:
    data = load_folder(plant(tmp_path, train, query, gallery))
    assert images(data) == {"train": [train] * 2, "query": [query] * 2, "gallery": [gallery] * 2}
    assert data.identities("train") == ["0001", "0002"]


def test_test_with_queries_and_a_gallery_in_it(tmp_path: Path) -> None:
    data = load_folder(plant(tmp_path, "train", "test/query", "test/gallery"))
    assert [s.name for s in data.query] == ["test/query/0001/1.png", "test/query/0002/2.png"]
    assert [s.name for s in data.gallery] == ["test/gallery/0001/1.png", "test/gallery/0002/2.png"]


@pytest.mark.parametrize("other", ["val", "Valid", "validation", "extra", "train_all", "multi-query"])
def test_what_is_beside_the_splits_is_left_out_and_named(tmp_path: Path, other: str) -> None:
    data = load_folder(plant(tmp_path, "train", "query", "gallery", other))
    assert images(data) == {"train": ["train"] * 2, "query": ["query"] * 2, "gallery": ["gallery"] * 2}
    assert [note for note in data.notes if f"({other})" in note and note.startswith("1 folders left out")]


def test_training_never_takes_the_test_side(tmp_path: Path) -> None:
    data = load_folder(plant(tmp_path, "train", "val", "test"))
    assert images(data) == {"train": ["train"] * 2, "query": [], "gallery": []}
    assert any("(test)" in note and "query/ and gallery/ are needed" in note for note in data.notes)
    assert any("(val)" in note and "validation=N" in note for note in data.notes)


def test_folders_of_other_programs_and_hidden_ones_are_nobody(tmp_path: Path) -> None:
    data = load_folder(plant(tmp_path, "anna/1.png", "bert/2.png", "__MACOSX", ".cache"))
    assert data.identities("train") == ["anna", "bert"]
    assert any("(__MACOSX)" in note for note in data.notes)
    assert any("hidden (.cache)" in note for note in data.notes)
    inner = load_folder(
        plant(tmp_path / "more", "anna/1.png", "anna/__MACOSX/1.png", "anna/.x/1.png", "anna/sub/1.png")
    )
    assert [s.name for s in inner.train] == ["anna/1.png", "anna/sub/1.png"]
    assert any("(anna/__MACOSX)" in note for note in inner.notes)


def test_trees_of_masks_are_nobody(tmp_path: Path) -> None:
    data = load_folder(plant(tmp_path, "anna/1.png", "masks/anna/1.png"))
    assert data.identities("train") == ["anna"]
    assert any("mirror the people and are none (masks)" in note for note in data.notes)
    assert not any(
        "masks" in note for note in load_folder(plant(tmp_path / "s", "query", "gallery", "masks/query")).notes
    )


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["val", "test"], "neither train/ nor query/ and gallery/"),
        (["train", "Training", "query"], "Training/, train/, which are names of one and the same split"),
        (["query", "probe", "gallery"], "probe/, query/, which are names of one"),
        (["train", "anna/1.png"], "'train', which is the name of a split, beside 1 folders of images such as 'anna'"),
        (["market/train", "market/query", "market/gallery"], "market' holds gallery/, query/, train/.*as the root"),
        (["anna/1.png", "bert/train/0001/1.png"], "bert' holds train/, which are names of splits"),
        (["train/1.png", "val/1.png"], "has the name of a split and holds 1 images"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path: Path, folders: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_folder(plant(tmp_path, *folders))


def test_a_sub_folder_of_a_person_may_be_called_as_it_likes(tmp_path: Path) -> None:
    data = load_folder(plant(tmp_path, "anna/test/1.png", "bert/1.png"))
    assert [(s.identity, s.name) for s in data.train] == [("anna", "anna/test/1.png"), ("bert", "bert/1.png")]
