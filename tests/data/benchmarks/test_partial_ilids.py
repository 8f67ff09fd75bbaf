"""Partial-iLIDS: names that are numbers, cropped and uncropped queries."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.benchmark import Counts, benchmark_of
from occluded_reid.data.dataset import load_dataset
from occluded_reid.errors import DataError

NUMBERS = (1, 2, 9, 10, 11, 119)
PLAIN = [f"{n}.jpg" for n in NUMBERS]
PADDED = [f"{n:03d}.JPG" for n in NUMBERS]
PEOPLE = [f"{n:03d}" for n in NUMBERS]


def plant(root: Path, tree: dict[str, list[str]]) -> Path:
    for folder, names in tree.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (4, 8)).save(root / folder / name)
    return root


TREES = {
    "cropped": {"Probe": PLAIN, "Gallery": PLAIN},
    "as partial": {"partial_body_images": PLAIN, "whole_body_images": PADDED},
    "nocrop inside": {"partial_iLIDS_Probe_nocrop": PADDED, "Gallery": PLAIN, "Probe": PLAIN},
    "nocrop beside": {
        "partial_iLIDS_Probe_nocrop": PADDED,
        "Partial_iLIDS/Gallery": PLAIN,
        "Partial_iLIDS/Probe": PLAIN,
    },
}


@pytest.mark.parametrize("tree", TREES)
def test_trees_and_the_order_of_numbers(tmp_path: Path, tree: str) -> None:
    cropped = not tree.startswith("nocrop")
    data = load_dataset("partial_ilids", plant(tmp_path / tree, TREES[tree]), cropped=cropped)
    assert [s.identity for s in data.query] == PEOPLE == [s.identity for s in data.gallery]
    assert [s.path.name for s in data.query] == (PLAIN if cropped else PADDED)
    assert {s.camera for s in data.query} == {0}
    assert {s.camera for s in data.gallery} == {1}
    assert data.variant == ("cropped" if cropped else "uncropped")
    assert data.unanswerable() == ()
    assert sorted(data.identities("query"), key=int) == data.identities("query")


def test_both_kinds_from_one_root(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", TREES["nocrop inside"])
    assert load_dataset("partial_ilids", root).query[3].name == "Probe/10.jpg"
    assert load_dataset("partial_ilids", root, cropped=False).query[3].name == "partial_iLIDS_Probe_nocrop/010.JPG"


def test_lists(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", {"parts": PLAIN, "whole": PLAIN})
    (root / "Probe.txt").write_text("\n".join(f"parts/{name}" for name in sorted(PLAIN)))
    (root / "Gallery.txt").write_text("\n".join(f"whole/{name}" for name in PLAIN))
    data = load_dataset("partial_ilids", root)
    assert [s.name for s in data.query] == [f"parts/{name}" for name in PLAIN]
    (root / "parts").rename(root / "partial_iLIDS_Probe_nocrop")
    (root / "Probe.txt").write_text("\n".join(f"partial_iLIDS_Probe_nocrop/{name}" for name in PLAIN))
    with pytest.raises(DataError, match=r"lists uncropped queries .*cropped=False"):
        load_dataset("partial_ilids", root)


def test_uncropped_queries_that_are_not_there(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", TREES["cropped"])
    with pytest.raises(DataError, match=r"no partial_iLIDS_Probe_nocrop/.*cropped=True"):
        load_dataset("partial_ilids", root, cropped=False)


def test_a_person_twice(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", TREES["cropped"])
    Image.new("RGB", (4, 8)).save(root / "Gallery" / "009.jpg")
    with pytest.raises(DataError, match=r"person 9 is there twice: 'Gallery/009\.jpg' and 'Gallery/9\.jpg'"):
        load_dataset("partial_ilids", root)


def test_roots_that_are_wrong(tmp_path: Path) -> None:
    root = plant(tmp_path / "Partial_iLIDS", TREES["cropped"])
    with pytest.raises(DataError, match=r"one too high\. Give '.*Partial_iLIDS'"):
        load_dataset("partial_ilids", tmp_path)
    with pytest.raises(DataError, match="one folder too low"):
        load_dataset("partial_ilids", root / "Probe")
    beside = plant(tmp_path / "both", TREES["nocrop beside"])
    with pytest.raises(DataError, match=r"one folder too low\. Give '.*both'"):
        load_dataset("partial_ilids", beside / "Partial_iLIDS", cropped=False)
    (root / "Gallery").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="Gallery/ is missing"):
        load_dataset("partial_ilids", root)


def test_counts() -> None:
    benchmark = benchmark_of("partial_ilids")
    assert benchmark is not None
    both = {"query": Counts(119, 119), "gallery": Counts(119, 119)}
    assert benchmark.counts == {"cropped": both, "uncropped": both}
    assert "Rank-3" in benchmark.metrics
    assert 3 in benchmark.ranks
