"""What is wrong with a data set is found, counted and named, and nothing of it is raised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid.data.dataset import load_dataset
from occluded_reid.data.verify import DatasetReport, verify_dataset

GOOD = {
    "bounding_box_train": ["0002_c1_0.png", "0002_c2_0.png", "0004_c1_0.png", "0004_c2_0.png"],
    "query": ["0001_c1_0.png", "0003_c2_0.png"],
    "bounding_box_test": ["0000_c1_0.png", "0001_c2_0.png", "0003_c1_0.png"],
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    number = 0
    for folder, names in GOOD.items():
        (root / folder).mkdir(parents=True)
        (root / "masks" / folder).mkdir(parents=True)
        for name in names:
            number += 1
            Image.new("RGB", (2, 4), (number, 0, 0)).save(root / folder / name)
            Image.new("L", (2, 4), 1).save(root / "masks" / folder / name)
    return root


def verify(root: Path) -> DatasetReport:
    return verify_dataset(load_dataset("market1501", root, own=True))


def copy(root: Path, source: str, target: str) -> None:
    (root / target).write_bytes((root / source).read_bytes())


def test_a_good_set(tree: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = verify_dataset(
        load_dataset("market1501", tree, own=True), progress=lambda done, total: seen.append((done, total))
    )
    assert report.ok
    assert report.problems == report.warnings == ()
    assert report.images == {"train": 4, "query": 2, "gallery": 3}
    assert report.identities == {"train": 2, "query": 2, "gallery": 2}
    assert report.cameras == {1: 5, 2: 4}
    assert (report.distractors, report.masks) == (1, 9)
    assert seen == [(i, 9) for i in range(1, 10)]
    content = json.loads(json.dumps(report.to_dict()))
    assert content["ok"] is True
    assert content["cameras"] == {"1": 5, "2": 4}
    text = "\n".join(report.lines())
    assert "train         4 images of 2 identities" in text
    assert text.endswith("all files can be used")


def test_unreadable_files_are_named(tree: Path) -> None:
    (tree / "query/0001_c1_0.png").write_bytes(b"")
    (tree / "bounding_box_train/0002_c1_0.png").write_bytes(b"junk")
    report = verify(tree)
    assert not report.ok
    assert [f.name for f in report.unreadable] == ["bounding_box_train/0002_c1_0.png", "query/0001_c1_0.png"]
    assert "is empty" in report.unreadable[1].reason
    assert any(line.startswith("problem: 2 images cannot be read: bounding_box_train") for line in report.lines())


def test_identities_in_training_and_test(tree: Path) -> None:
    Image.new("RGB", (2, 4), (99, 0, 0)).save(tree / "bounding_box_train/0001_c4_0.png")
    report = verify(tree)
    assert report.shared_identities == ("0001",)
    assert not report.ok
    assert report.single_images == ("0001",)


def test_duplicates_are_judged(tree: Path) -> None:
    copy(tree, "query/0001_c1_0.png", "bounding_box_test/0001_c1_0.png")  # as in Occluded-DukeMTMC: no harm
    report = verify(tree)
    assert [(d.names, d.splits, d.problem) for d in report.duplicates] == [
        (("query/0001_c1_0.png", "bounding_box_test/0001_c1_0.png"), ("query", "gallery"), "")
    ]
    assert not any("identical" in problem for problem in report.problems)
    assert "1 groups of identical files do no harm" in report.warnings[0]

    copy(tree, "query/0001_c1_0.png", "bounding_box_test/0001_c5_0.png")
    assert verify(tree).duplicates[0].problem == "answer a query with itself, under another camera"

    copy(tree, "query/0003_c2_0.png", "bounding_box_train/0004_c3_0.png")
    assert {d.problem for d in verify(tree).duplicates} >= {"carry different identities"}


def test_a_duplicate_in_training_and_test(tree: Path) -> None:
    copy(tree, "query/0003_c2_0.png", "bounding_box_train/0003_c2_0.png")
    report = verify(tree)
    assert [d.problem for d in report.duplicates] == ["are in training and in queries or gallery"]
    assert not report.ok


def test_a_copy_under_unknown_cameras_answers_itself(tmp_path: Path) -> None:
    for folder, colour in (("train/a", "blue"), ("train/b", "green"), ("query/c", "red"), ("gallery/c", "red")):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (1, 1), colour).save(tmp_path / folder / "1.png")
    report = verify_dataset(load_dataset("folder", tmp_path))
    assert [d.problem for d in report.duplicates] == ["answer a query with itself, under another camera"]
    assert report.cameras == {}
    assert "cameras: unknown" in report.lines()


def test_queries_without_a_match(tree: Path) -> None:
    (tree / "bounding_box_test/0001_c2_0.png").rename(tree / "bounding_box_test/0001_c1_9.png")
    (tree / "masks/bounding_box_test/0001_c2_0.png").rename(tree / "masks/bounding_box_test/0001_c1_9.png")
    report = verify(tree)
    assert report.unanswerable == ("query/0001_c1_0.png",)
    assert report.ok
    assert len(report.warnings) == 1
    (tree / "query/0003_c2_0.png").unlink()
    report = verify(tree)
    assert not report.warnings
    assert report.problems == (
        "1 queries, which is all of them, have no match under another camera: nothing can be measured without "
        "--no-exclude-same-camera: query/0001_c1_0.png",
    )


def test_masks_that_are_missing_or_wrong(tree: Path) -> None:
    folder = tree / "masks/bounding_box_train"
    (folder / "0002_c1_0.png").unlink()
    Image.new("L", (4, 2)).save(folder / "0002_c2_0.png")
    Image.fromarray(np.full((4, 2), 9, np.uint8)).save(folder / "0004_c1_0.png")
    report = verify(tree)
    assert report.missing_masks == ("bounding_box_train/0002_c1_0.png",)
    assert [f.name for f in report.bad_masks] == [
        "bounding_box_train/0002_c2_0.png",
        "bounding_box_train/0004_c1_0.png",
    ]
    assert "4×2, its image 2×4" in report.bad_masks[0].reason
    assert "class 9" in report.bad_masks[1].reason
    assert len(report.problems) == 2


def test_a_set_without_masks_misses_none(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (1, 1), "red" if "1" in name else "blue").save(tmp_path / name)
    report = verify_dataset(load_dataset("folder", tmp_path))
    assert report.ok
    assert report.missing_masks == ()
    assert "one identity" in report.warnings[0]


def test_long_lists_are_cut(tree: Path) -> None:
    for i in range(8):
        (tree / f"query/0001_c1_{i}.png").write_bytes(b"")
    line = next(line for line in verify(tree).lines() if "cannot be read" in line)
    assert "8 images cannot be read" in line
    assert line.endswith("… and 3 more")
    lines = verify(tree).lines()  # and the others each on a line of its own: every one has to be mended
    unreadable = [line for line in lines if "cannot be read" in line]
    assert all(sum(f"query/0001_c1_{i}.png:" in line for line in unreadable) == 1 for i in range(8))
    assert sum(line.startswith("cannot be read: query/0001_c1_") for line in lines) == 3


def test_the_counts_of_a_published_set(tree: Path) -> None:
    report = verify_dataset(load_dataset("market1501", tree))
    assert not report.ok
    assert report.counts is not None
    assert report.problems[0].startswith("train: 4 of 12,936 images, 2 of 751 identities; 12,932 missing")
    assert report.lines()[-1] == f"{len(report.problems)} kinds of problems"
    content = json.loads(json.dumps(report.to_dict()))
    assert content["counts"]["expected"]["query"] == {"images": 3368, "identities": 750, "distractors": 0}
    assert len(content["counts"]["differences"]) == 4
    assert content["problems"] == list(report.problems)
    # A hold-out has other splits: nothing to compare.
    held = verify_dataset(load_dataset("market1501", tree, holdout=1))
    assert held.counts is not None
    assert held.counts.differences == ()
    assert len(held.problems) == 1, "two images of one person, both of them queries: nothing can be found"
    assert any(line.startswith("counts: not compared with a whole Market-1501") for line in held.lines())
    assert verify(tree).to_dict()["counts"] is None


def test_one_picture_under_two_names(tree: Path) -> None:
    Image.new("RGB", (2, 4), (77, 0, 0)).save(tree / "query/0001_c1_0.jpg")
    Image.new("RGB", (2, 4), (78, 0, 0)).save(tree / "query/0003_c2_0.PNG")
    report = verify(tree)
    assert report.twice == (
        ("query/0001_c1_0.jpg", "query/0001_c1_0.png"),
        ("query/0003_c2_0.PNG", "query/0003_c2_0.png"),
    )
    assert any(p.startswith("2 images are there twice, under names that differ in suffix") for p in report.problems)


def test_rubbish_is_no_image(tree: Path) -> None:
    for name in ("Thumbs.db", ".DS_Store", "._0001_c1_0.png", "readme.txt"):
        (tree / "query" / name).write_bytes(b"\x00")
    report = verify(tree)
    assert report.ok
    assert report.images["query"] == 2
