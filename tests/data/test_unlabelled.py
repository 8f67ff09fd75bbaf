"""Crops of people whom nobody has named: trees, flat folders, lists, and what their paths say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from occluded_reid.data import ReIDData, load_dataset
from occluded_reid.data.folder import load_folder
from occluded_reid.data.times import read_time, time_text
from occluded_reid.data.unlabelled import load_images, unlabelled
from occluded_reid.errors import DataError


def plant(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 4, 3), number, np.uint8)).save(root / name)
    return root


def told(data: ReIDData) -> list[tuple[str, int | str | None, float | None]]:
    assert not data.train
    assert not data.query
    assert {sample.identity for sample in data.gallery} <= {None}
    return [(s.name, data.camera_label(s.camera), s.time) for s in data.gallery]


def test_any_tree(tmp_path: Path) -> None:
    root = plant(tmp_path / "crops", "b.png", "hall/1.png", "hall/deep/2.JPG", ".hidden/3.png")
    (root / "note.txt").touch()
    data = load_dataset("images", root)
    assert told(data) == [("b.png", None, None), ("hall/1.png", None, None), ("hall/deep/2.JPG", None, None)]
    assert not data.cameras_known
    assert all(sample.path.is_absolute() for sample in data.gallery)
    assert "nobody has said who is on the 3 images" in data.notes[0]
    assert any("note.txt" in note for note in data.notes[1:])
    with pytest.raises(DataError, match=r"3 of 3 images .* have no identity"):
        data.train_classes()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").touch()
    with pytest.raises(DataError, match="holds no image"):
        load_dataset("images", tmp_path / "none")


def test_cameras_of_paths(tmp_path: Path) -> None:
    root = plant(tmp_path / "crops", "1/hall/c05_a.png", "2/door/c5.0_b.png", "z.png")
    by_folder = load_dataset("images", root, camera_from="folder")
    assert [camera for _, camera, _ in told(by_folder)] == ["hall", "door", "crops"]
    assert by_folder.cameras_known
    (root / "z.png").unlink()
    assert [camera for _, camera, _ in told(load_images(root, camera_pattern=r"c([\d.]+)_"))] == [5, 5]
    named = load_images(root, camera_pattern=r"^(\d)/(?P<camera>\w+)/")
    assert [camera for _, camera, _ in told(named)] == ["hall", "door"]
    assert sorted(named.camera_names.values()) == ["door", "hall"]


def test_times_of_paths(tmp_path: Path) -> None:
    root = plant(tmp_path / "crops", "a_20240501_093000_1.png", "b_20240501_093001_2.png")
    wanted = [1714555800.0, 1714555801.0]
    assert [time for *_, time in told(load_images(root, time_pattern=r"_(\d{8}_\d{6})_"))] == wanted
    times = told(load_images(root, time_pattern=r"_(\d{8}_\d{6})_", time_format="%Y%d%m_%H%M%S"))
    assert times[0][2] == pytest.approx(1704447000.0)  # the 5th of January
    assert [time for *_, time in told(load_images(root, time_pattern=r"_(?P<time>\d)\.png"))] == [1, 2]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"camera_pattern": r"c(\d)"}, r"finds no camera in 2 of 2 paths: 'a_1\.png', 'b\.png'"),
        ({"camera_pattern": "c"}, "has no group; put the camera in parentheses"),
        ({"camera_pattern": "("}, "is not a regular expression"),
        ({"camera_pattern": "(.)", "camera_from": "folder"}, "both given"),
        ({"camera_from": "name"}, "camera_from is 'name'; give 'folder'"),
        ({"time_pattern": r"_(\d)"}, r"finds no time in 1 of 2 paths: 'b\.png'"),
        ({"time_pattern": r"^(\w)"}, r"finds 'a' in 'a_1\.png', which is no time .*ISO 8601.*time_format="),
        ({"time_format": "%Y"}, "without time_pattern"),
        ({"time_pattern": "(.)", "time_format": "%Y"}, "which is no time"),
    ],
)
def test_patterns_that_do_not_fit(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        load_images(plant(tmp_path / "crops", "a_1.png", "b.png"), **options)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("000123", 123.0),
        ("-1.5", -1.5),
        ("1714555800000", 1714555800.0),
        ("20240501093000", 1714555800.0),
        ("20240501-093000", 1714555800.0),
        ("20240501T093000.250", 1714555800.25),
        ("2024-05-01_09-30-00", 1714555800.0),
        ("2024-05-01T09:30:00Z", 1714555800.0),
        ("2024-05-01 11:30:00+02:00", 1714555800.0),
    ],
)
def test_read_time(text: str, seconds: float) -> None:
    assert read_time(text) == seconds
    assert read_time(time_text(seconds)) == pytest.approx(seconds, rel=1e-14)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1714557600.0, "2024-05-01T10:00:00Z"),
        (1714557600.5, "2024-05-01T10:00:00.5Z"),
        (1e8, "1973-03-03T09:46:40Z"),
        (99_999_999.0, "99999999"),
        (1714557600000.0, "1714557600000"),
        (12.5, "12.5"),
        (-3.0, "-3"),
        (0.0, "0"),
    ],
)
def test_times_are_shown_as_dates_where_they_can_be_one(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


@pytest.mark.parametrize("text", ["", "noon", "99999999999999", "9" * 400, "2024-13-01T00:00:00"])
def test_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_time(text)


def test_a_flat_folder_and_a_list_of_paths_are_of_unknown_people(tmp_path: Path) -> None:
    root = plant(tmp_path / "flat", "c1_a.png", "c2_b.png")
    data = load_folder(root)
    assert told(data) == [("c1_a.png", None, None), ("c2_b.png", None, None)]
    assert any("nobody has said who is on the 2 images" in note for note in data.notes)
    assert [c for _, c, _ in told(load_folder(root, camera_pattern=r"(c\d)_"))] == ["c1", "c2"]
    (root / "list.csv").write_text("path,camera,time\nc2_b.png,hall,8\nc1_a.png,1.0,\n")
    data = load_folder(root, csv="list.csv")
    assert told(data) == [("c2_b.png", "hall", 8.0), ("c1_a.png", 1, None)]
    assert data.notes == ("nobody has said who is on the 2 images: they can be indexed and searched",)
    for header in ("path,person", "path,pid", "path,idenity"):
        (root / "list.csv").write_text(f"{header}\nc2_b.png,anna\n")
        with pytest.raises(DataError, match=r"lacks the column\(s\) identity"):
            load_folder(root, csv="list.csv")


def test_numbers_that_a_table_writes_with_a_point_stay_numbers(tmp_path: Path) -> None:
    root = plant(tmp_path / "flat", "a.png", "b.png", "c.png")
    (root / "list.csv").write_text("path,identity,camera\na.png,x,3\nb.png,x,1.0\nc.png,x,hall\n")
    data = load_folder(root, csv="list.csv")
    assert [data.camera_label(s.camera) for s in data.train] == [3, 1, "hall"]
    assert data.train[2].camera not in (1, 3)


def test_a_list_of_files_is_named_from_a_root(tmp_path: Path) -> None:
    root = plant(tmp_path / "a", "b/1.png", "2.png")
    elsewhere = plant(tmp_path / "c", "3.png") / "3.png"
    data = unlabelled([root / "b/1.png", elsewhere], root)
    assert told(data) == [("b/1.png", None, None), (elsewhere.as_posix(), None, None)]
