"""Which layout a folder has, and what is said when it has none: too high, too low, half there, still packed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.benchmark import Layout
from occluded_reid.data.layouts import find_layout
from occluded_reid.errors import DataError

PLAIN = Layout("plain", {"query": ("query",), "gallery": ("gallery",)}, example="1.jpg")
LISTED = Layout("listed", {"query": ("images",)}, files=("query.txt",))
BOTH = (PLAIN, LISTED)


def plant(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".JPG", ".tif"):
            Image.new("RGB", (4, 8)).save(path)
        else:
            path.touch()
    return root


def complaint(root: Path) -> str:
    with pytest.raises(DataError) as found:
        find_layout(root, "Toy", BOTH)
    return str(found.value)


def test_the_first_whole_layout_is_taken(tmp_path: Path) -> None:
    plain = plant(tmp_path / "a b", "query/1.JPG", "gallery/1.tif")
    assert find_layout(plain, "Toy", BOTH) == (plain, PLAIN)
    listed = plant(tmp_path / "l", "images/1.jpg", "query.txt")
    assert find_layout(str(listed), "Toy", BOTH) == (listed, LISTED)
    both = plant(plain, "images/1.jpg", "query.txt")
    assert find_layout(both, "Toy", BOTH)[1] is PLAIN


def test_a_folder_that_may_be_missing(tmp_path: Path) -> None:
    layout = Layout("plain", {"train": ("train",), "query": ("query",)}, optional=("train",))
    root = plant(tmp_path, "query/1.jpg")
    assert find_layout(root, "Toy", [layout]) == (root, layout)
    assert layout.tree == "plain: train/, query/"


@pytest.mark.parametrize("below", ["Toy", "download/Toy-v1"])
def test_too_high(tmp_path: Path, below: str) -> None:
    right = plant(tmp_path / below, "query/1.jpg", "gallery/1.jpg")
    assert complaint(tmp_path).endswith(f"the root is one too high. Give '{right}'.")


@pytest.mark.parametrize("low", ["query", "gallery/0001", "gallery/0001/more"])
def test_too_low(tmp_path: Path, low: str) -> None:
    plant(tmp_path, "query/1.jpg", "gallery/0001/more/1.jpg")
    assert complaint(tmp_path / low).endswith(f"the root is one folder too low. Give '{tmp_path.resolve()}'.")


def test_half_of_it(tmp_path: Path) -> None:
    plant(tmp_path, "query/1.jpg")
    text = complaint(tmp_path)
    assert "holds only a part of Toy (plain): query is there, gallery/ is missing or empty" in text
    assert "again, whole" in text
    plant(tmp_path, "gallery/Thumbs.db", "gallery/._1.jpg", "toy.tar.gz")
    assert "gallery/ is missing or empty. There are archives (toy.tar.gz): extract them there first." in complaint(
        tmp_path
    )


def test_a_list_without_its_images(tmp_path: Path) -> None:
    assert "(listed): query.txt is there, images/ is missing or empty" in complaint(plant(tmp_path, "query.txt"))


def test_still_packed(tmp_path: Path) -> None:
    text = complaint(plant(tmp_path, "a.zip", "b.part", "c.RAR", "d.7z", "readme.txt"))
    assert "is not Toy. Wanted the folder that holds plain: query/, gallery/ (images such as 1.jpg); or listed" in text
    assert "There are archives (a.zip, b.part, c.RAR, …): extract them there first." in text


def test_something_else(tmp_path: Path) -> None:
    text = complaint(plant(tmp_path, "anna/1.jpg", "bert/1.jpg"))
    assert "is not Toy" in text
    assert "use the data set 'folder'" in text
    assert "archives" not in text


def test_shadows_and_masks_are_no_data_set(tmp_path: Path) -> None:
    plant(tmp_path, "__MACOSX/query/1.jpg", "__MACOSX/gallery/1.jpg", "masks/query/1.jpg", "masks/gallery/1.jpg")
    assert "is not Toy" in complaint(tmp_path)
    right = plant(tmp_path / "set", "query/1.jpg", "gallery/1.jpg")
    assert f"Give '{right}'" in complaint(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    assert "does not exist" in complaint(tmp_path / "none")
    assert "is empty" in complaint(tmp_path)
    (tmp_path / "file").touch()
    assert "is a file" in complaint(tmp_path / "file")
