"""Images that cannot be read are left out where that is asked for, counted and named; who is held out stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.dataset import ReIDData, load_dataset
from occluded_reid.data.readable import without_unreadable
from occluded_reid.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for person in range(6):
        for image in range(4):
            name = tmp_path / f"{person:02d}" / f"c{image % 2}_{image}.png"
            name.parent.mkdir(exist_ok=True)
            Image.new("RGB", (2, 4), (person * 40, image * 40, 0)).save(name)
    return tmp_path


def load(root: Path, **options: object) -> ReIDData:
    return load_dataset("folder", root, camera_pattern=r"c(\d)", **options)  # type: ignore[arg-type]


def test_they_are_counted_and_named(root: Path) -> None:
    (root / "01" / "c0_0.png").write_bytes(b"cut")
    (root / "03" / "c1_1.png").write_bytes(b"")
    whole = load(root)
    assert len(whole.train) == 24
    seen: list[tuple[int, int]] = []
    data = without_unreadable(whole, progress=lambda done, total: seen.append((done, total)))
    assert data.notes[-1] == "2 images left out, cannot be read (01/c0_0.png, 03/c1_1.png)"
    assert {s.name for s in whole.train} - {s.name for s in data.train} == {"01/c0_0.png", "03/c1_1.png"}
    assert seen[-1] == (24, 24)
    assert load(root, skip_unreadable=True) == data
    assert without_unreadable(whole, ("query", "gallery")) == whole


def test_a_whole_data_set_stays_as_it_is(root: Path) -> None:
    assert load(root, skip_unreadable=True) == load(root)


def test_who_is_held_out_does_not_hang_on_what_can_be_read(root: Path) -> None:
    before = load(root, holdout=2, seed=5)
    for sample in load(root).train:
        if sample.identity == before.query[0].identity and sample.name != before.query[0].name:
            sample.path.write_bytes(b"")
    after = load(root, holdout=2, seed=5, skip_unreadable=True)
    assert after.identities("train") == before.identities("train")
    assert after.identities("query") == before.identities("query")


def test_a_split_of_which_nothing_is_left_is_refused(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 24 images of '.*' in train can be read, the first is '00/c0_0"):
        load(root, skip_unreadable=True)
