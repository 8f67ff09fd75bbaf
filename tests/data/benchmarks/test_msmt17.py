"""MSMT17: four lists, two versions, and people who would share a name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.benchmark import Counts, benchmark_of
from occluded_reid.data.dataset import load_dataset
from occluded_reid.errors import DataError

LISTS = {
    "train": ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_000_15_0303noon_0008_0.JPG 1"],
    "val": ["0000/0000_001_05_0303morning_0020_1.jpg 0"],
    "query": ["0000/0000_000_03_0113noon_0008_0.jpg 0", "0001/0001_000_04_0113noon_0008_0.jpg 1"],
    "gallery": [
        "0001/0001_001_03_0113noon_0008_0.jpg 1",
        "0000/0000_001_10_0113noon_0008_0.jpg 0",
        "0000/0000_002_03_0113noon_0009_0.jpg 0",
    ],
}
PLACES = {1: ("train", "test"), 2: ("mask_train_v2", "mask_test_v2")}


def plant(root: Path, version: int = 1, lists: dict[str, list[str]] = LISTS) -> Path:
    for name, lines in lists.items():
        place = root / PLACES[version][name in ("query", "gallery")]
        for line in lines:
            path = place / line.rpartition(" ")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 8)).save(path)
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions(tmp_path: Path, version: int) -> None:
    root = plant(tmp_path / f"an MSMT17_V{version}", version)
    data = load_dataset("msmt17", root)
    learn, test = PLACES[version]
    assert [s.name for s in data.train] == [f"{learn}/{line.split()[0]}" for line in LISTS["train"]]
    assert [s.name for s in data.gallery] == [f"{test}/{line.split()[0]}" for line in LISTS["gallery"]]
    assert all(s.path.is_file() for s in (*data.train, *data.query, *data.gallery))
    assert [s.camera for s in data.train] == [1, 15]
    assert [s.camera for s in data.query] == [3, 4]
    assert [s.camera for s in data.gallery] == [3, 10, 3]
    assert data.unanswerable() == ()


def test_nobody_of_training_is_tested(tmp_path: Path) -> None:
    data = load_dataset("msmt17", plant(tmp_path / "set"))
    assert data.identities("train") == ["train_0000", "train_0001"]
    assert data.identities("query") == data.identities("gallery") == ["test_0000", "test_0001"]
    train, test = (set(data.labels(samples)[0].tolist()) for samples in (data.train, data.query))
    assert not train & test


def test_val_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    root = plant(tmp_path / "set")
    without, with_val = load_dataset("msmt17", root), load_dataset("msmt17", root, val_in_train=True)
    assert (len(without.train), len(with_val.train)) == (2, 3)
    assert with_val.train[2].identity == "train_0000"
    assert with_val.train[2].camera == 5
    assert without.variant == "without list_val"
    assert with_val.variant == "with list_val"
    assert without.notes[0].startswith("1 images of list_val are left out of training")
    assert with_val.notes[0].startswith("1 images of list_val are in training")


def test_an_image_in_both_lists(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", lists={**LISTS, "val": LISTS["train"][:1]})
    assert len(load_dataset("msmt17", root).train) == 2
    with pytest.raises(DataError, match=r"1 images are in list_train\.txt and in list_val\.txt"):
        load_dataset("msmt17", root, val_in_train=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0007/0007_000_03_0113noon_0008_0.jpg 7", "no file in"),
        ("../train/0000/0000_000_01_0303morning_0008_0.jpg 0", "leads out of"),
        ("/0000_000_01_0303morning_0008_0.jpg 0", "leads out of"),
        ("0000/0000_000_03_0113noon_0008_0.jpg", "wanted a path and a person's number"),
        ("0000/0000_000_03_0113noon_0008_0.jpg x", "wanted a path and a person's number"),
        ("0000/0000_000_16_0113noon_0008_0.jpg 0", "no camera from 1 to 15"),
        ("0000/0000_000_00_0113noon_0008_0.jpg 0", "no camera from 1 to 15"),
        ("0000/a.jpg 0", "no camera from 1 to 15"),
        ("./0000/0000_000_03_0113noon_0008_0.jpg 0", "again, after line 1"),
    ],
)
def test_lines_that_are_wrong(tmp_path: Path, line: str, message: str) -> None:
    root = plant(tmp_path / "set")
    with (root / "list_query.txt").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("msmt17", root)
    assert "line 4 of" in str(caught.value)
    assert "list_query.txt" in str(caught.value)


def test_tabs_blank_lines_and_spaces(tmp_path: Path) -> None:
    spaced = {**LISTS, "query": ["0000/0000_000_03_0113noon_0008_0 copy.jpg 0"]}
    root = plant(tmp_path / "set", lists=spaced)
    text = (root / "list_gallery.txt").read_text().replace(" ", "\t").replace("\n", "\r\n\r\n")
    (root / "list_gallery.txt").write_text(text)
    data = load_dataset("msmt17", root)
    assert data.query[0].path.name == "0000_000_03_0113noon_0008_0 copy.jpg"
    assert len(data.gallery) == 3


def test_folders_that_are_links(tmp_path: Path) -> None:
    root = plant(tmp_path / "set")
    (root / "test").rename(tmp_path / "another disk")
    (root / "test").symlink_to(tmp_path / "another disk", target_is_directory=True)
    assert len(load_dataset("msmt17", root).gallery) == 3


def test_roots_that_are_wrong_and_half_a_copy(tmp_path: Path) -> None:
    root = plant(tmp_path / "MSMT17_V1")
    with pytest.raises(DataError, match=r"one too high\. Give '.*MSMT17_V1'"):
        load_dataset("msmt17", tmp_path)
    with pytest.raises(DataError, match="one folder too low"):
        load_dataset("msmt17", root / "train")
    (root / "list_val.txt").unlink()
    with pytest.raises(DataError, match=r"only a part of MSMT17 \(MSMT17_V1\).*list_val\.txt is missing"):
        load_dataset("msmt17", root)


def test_counts() -> None:
    benchmark = benchmark_of("msmt17")
    assert benchmark is not None
    counts = benchmark.counts
    assert counts["with list_val"]["train"].images == counts["without list_val"]["train"].images + 2_373 == 32_621
    assert counts["with list_val"]["query"] == Counts(11_659, 3_060)
    assert counts["without list_val"]["gallery"] == Counts(82_161, 3_060)
    assert benchmark.cameras == 15
