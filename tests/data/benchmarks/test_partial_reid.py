"""Partial-REID: two protocols under one name, folders or lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.benchmark import Counts, benchmark_of
from occluded_reid.data.dataset import load_dataset
from occluded_reid.errors import DataError, UnknownOptionError

NAMES = [f"{p:03d}_{k:03d}.jpg" for p in (1, 2, 60) for k in (1, 2)]
KINDS = ["occluded", "partial"]


def plant(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for name in NAMES:
            Image.new("RGB", (4, 8)).save(root / folder / name)
    return root


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folders = ("occluded_body_images", "partial_body_images", "whole_body_images")
    return plant(tmp_path / "Partial-REID_Dataset", *folders)


def write_lists(root: Path, kind: str) -> Path:
    (root / "Probe.txt").write_text("".join(f"{kind}_body_images/{name}\r\n" for name in reversed(NAMES)))
    (root / "Gallery.txt").write_text("\n".join(f"whole_body_images/{name}" for name in NAMES))
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_of_queries(whole: Path, kind: str) -> None:
    data = load_dataset("partial_reid", whole, queries=kind)
    assert [s.name for s in data.query] == [f"{kind}_body_images/{name}" for name in NAMES]
    assert [s.name for s in data.gallery] == [f"whole_body_images/{name}" for name in NAMES]
    assert {s.camera for s in data.query} == {0}
    assert {s.camera for s in data.gallery} == {1}
    assert data.identities("query") == ["001", "002", "060"]
    assert data.variant == kind
    assert data.unanswerable() == ()
    assert any(f"queries are the {kind} images" in note for note in data.notes)


def test_the_default_is_what_a_camera_gives(whole: Path) -> None:
    assert load_dataset("partial_reid", whole).variant == "occluded"
    with pytest.raises(UnknownOptionError, match="queries"):
        load_dataset("partial_reid", whole, queries="cropped")


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_is_enough_for_its_protocol(tmp_path: Path, kind: str) -> None:
    root = plant(tmp_path / "set", f"{kind}_body_images", "whole_body_images")
    assert len(load_dataset("partial_reid", root, queries=kind).query) == 6
    other = next(k for k in KINDS if k != kind)
    with pytest.raises(DataError, match=rf"no {other}_body_images/.*queries='{kind}'"):
        load_dataset("partial_reid", root, queries=other)


@pytest.mark.parametrize("kind", KINDS)
def test_lists(tmp_path: Path, kind: str) -> None:
    root = plant(tmp_path / "a set", f"{kind}_body_images", "whole_body_images")
    expected = load_dataset("partial_reid", root, queries=kind)
    (root / "whole_body_images").rename(root / "gallery images")
    write_lists(root, kind)
    (root / "Gallery.txt").write_text("\n".join(f"gallery images/{name}" for name in NAMES))
    data = load_dataset("partial_reid", root, queries=kind)
    assert [(s.name, s.identity, s.camera) for s in data.query] == [
        (s.name, s.identity, s.camera) for s in expected.query
    ]
    assert [s.name for s in data.gallery] == [f"gallery images/{name}" for name in NAMES]
    other = next(k for k in KINDS if k != kind)
    with pytest.raises(DataError, match=rf"lists {kind} queries .*queries='{other}' was asked for"):
        load_dataset("partial_reid", root, queries=other)


def test_lists_that_do_not_say_which_kind(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", "asked", "whole")
    (root / "Probe.txt").write_text("\n".join(f"asked/{name}" for name in NAMES))
    (root / "Gallery.txt").write_text("\n".join(f"whole/{name}" for name in NAMES))
    data = load_dataset("partial_reid", root, queries="partial")
    assert data.variant == "partial"
    assert data.notes[0] == "Probe.txt does not say of which kind its queries are; taken for partial, as asked for"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("occluded_body_images/999_001.jpg", "missing in"),
        ("../elsewhere/001_001.jpg", "leads out of"),
        ("/etc/001_001.jpg", "leads out of"),
        (f"occluded_body_images/{NAMES[0]}", "again"),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, line: str, message: str) -> None:
    root = plant(tmp_path / "set", "occluded_body_images", "whole_body_images")
    (root / "whole_body_images").rename(root / "whole")
    write_lists(root, "occluded")
    (root / "Gallery.txt").write_text(f"whole/{NAMES[0]}\n")
    with (root / "Probe.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=message):
        load_dataset("partial_reid", root)


def test_a_list_of_other_files(tmp_path: Path) -> None:
    root = write_lists(plant(tmp_path / "set", "occluded_body_images"), "occluded")
    (root / "odd.jpg").touch()
    (root / "Gallery.txt").write_text("odd.jpg\n")
    with pytest.raises(DataError, match=r"names 'odd\.jpg'; wanted names such as 001_001\.jpg"):
        load_dataset("partial_reid", root)
    (root / "Gallery.txt").write_text("\n\n")
    with pytest.raises(DataError, match="is empty"):
        load_dataset("partial_reid", root)


def test_roots_that_are_wrong(whole: Path) -> None:
    with pytest.raises(DataError, match=r"one too high\. Give '.*Partial-REID_Dataset'"):
        load_dataset("partial_reid", whole.parent)
    with pytest.raises(DataError, match="one folder too low"):
        load_dataset("partial_reid", whole / "whole_body_images", queries="partial")


def test_counts() -> None:
    benchmark = benchmark_of("partial_reid")
    assert benchmark is not None
    assert benchmark.counts == {kind: {"query": Counts(300, 60), "gallery": Counts(300, 60)} for kind in KINDS}
