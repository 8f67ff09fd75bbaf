"""`occluded-reid index` with unlabelled crops, on one day and the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from occluded_reid.cli.given_images import given_images
from occluded_reid.gallery import Gallery
from occluded_reid.models import build_model

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as it comes from the recipe: what is tested is what becomes of names."""
    folder = tmp_path_factory.mktemp("model") / "model"
    network = build_model("sorn_lite", backbone="test_efficientnet", **{"model.input": {"height": 96, "width": 32}})
    network.save(folder)
    return folder


def plant(root: Path, *names: str, seed: int = 0) -> Path:
    source = np.random.default_rng(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.integers(0, 255, (24, 8, 3), dtype=np.uint8)).save(root / name)
    return root


def listed(folder: Path) -> list[tuple[str, str | None, str | int | None]]:
    with Gallery.open(folder) as gallery:
        return [(image.key, image.identity, image.camera_name or image.camera) for image in gallery.list()]


def test_a_folder_of_any_shape(cli: Cli, model: Path, tmp_path: Path) -> None:
    photos = plant(tmp_path / "photos", "a_20240501_093000.png", "hall/b_20240501_093001.png")
    command = ["index", tmp_path / "mall", photos, "--model", model]
    found = cli(*command, "--camera-from", "folder", "--time-pattern", r"_(\d{8}_\d{6})", "--json")
    assert found.code == 0, found.err
    assert (found.json["added"], found.json["total"], found.json["prefix"]) == (2, 2, "")
    assert listed(tmp_path / "mall") == [
        ("a_20240501_093000.png", None, "photos"),
        ("hall/b_20240501_093001.png", None, "hall"),
    ]
    with Gallery.open(tmp_path / "mall") as gallery:
        image = gallery.get("hall/b_20240501_093001.png")
        assert image.time == 1714555801.0
        assert image.path == (photos / "hall/b_20240501_093001.png").as_posix()
    again = cli(*command, "--camera-from", "folder", "--time-pattern", r"_(\d{8}_\d{6})", "--json")
    assert (again.json["added"], again.json["skipped"]) == (0, 2)
    named = cli(*command, "--camera-pattern", r"^(?:\w+/)?(\w)_")
    assert named.code == 1
    assert "Pass replace=True (--replace)" in named.err
    replaced = cli(*command, "--camera-pattern", r"^(?:\w+/)?(\w)_", "--replace")
    assert "0 images added, 0 were there already, 2 were replaced, 2 in all" in replaced.out
    assert {camera for _, _, camera in listed(tmp_path / "mall")} == {"a", "b"}


def test_a_second_day_with_the_same_names(cli: Cli, model: Path, tmp_path: Path) -> None:
    days = [plant(tmp_path / day / "crops", "1.png", "p/2.png", seed=n) for n, day in enumerate(("mon", "tue", "wed"))]
    for _ in range(2):  # the second time nothing is added, and nothing is called otherwise
        for number, day in enumerate(days):
            found = cli("index", tmp_path / "mall", day, "--model", model)
            assert found.code == 0, found.err
            assert ("keys begin with" in found.err) == (number > 0)
        assert [key for key, *_ in listed(tmp_path / "mall")] == [
            "1.png",
            "p/2.png",
            "crops/1.png",
            "crops/p/2.png",
            "wed/crops/1.png",
            "wed/crops/p/2.png",
        ]
    plant(days[1], "3.png", seed=9)
    assert cli("index", tmp_path / "mall", days[1], "--model", model, "--json").json["prefix"] == "crops/"
    assert cli("index", tmp_path / "mall", days[0], "--model", model, "--prefix", "monday/").code == 0
    assert cli("index", tmp_path / "mall", days[0], "--model", model, "--root", tmp_path).code == 0
    assert [key for key, *_ in listed(tmp_path / "mall")][6:] == [
        "crops/3.png",
        "monday/1.png",
        "monday/p/2.png",
        "mon/crops/1.png",
        "mon/crops/p/2.png",
    ]
    # A file that has changed is not called otherwise: it is to be replaced, or not.
    plant(days[0], "1.png", seed=7)
    refused = cli("index", tmp_path / "mall", days[0], "--model", model)
    assert refused.code == 1
    assert "--replace" in refused.err
    assert "--prefix" in refused.err
    assert cli("index", tmp_path / "mall", days[0], "--model", model, "--replace", "--json").json["replaced"] == 1


def test_lists_and_single_files(cli: Cli, model: Path, tmp_path: Path) -> None:
    photos = plant(tmp_path / "photos", "a.png", "b/c.png", "d.png")
    found = cli("index", tmp_path / "files", photos / "a.png", photos / "b", photos / "a.png", "--model", model)
    assert found.code == 0, found.err
    assert [key for key, *_ in listed(tmp_path / "files")] == ["a.png", "b/c.png"]
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists" / "crops.csv"
    table.write_text(f"path;camera\na.png;hall\n{photos / 'd.png'};hall\nb/../b/c.png;1.0\n")
    refused = cli("index", tmp_path / "table", table, "--model", model)
    assert refused.code == 1
    found = cli("index", tmp_path / "table", table, "--root", photos, "--model", model)
    assert found.code == 0, found.err
    assert listed(tmp_path / "table") == [("a.png", None, "hall"), ("d.png", None, "hall"), ("b/c.png", None, 1)]
    people = cli("index", tmp_path / "people", photos, "--dataset", "folder", "--model", model)
    assert people.code == 0, people.err
    assert listed(tmp_path / "people") == [("b/c.png", "b", None)]


def test_wrong_words(cli: Cli, model: Path, tmp_path: Path) -> None:
    photos = plant(tmp_path / "photos", "a.png")
    (photos / "a.txt").touch()
    for arguments, code, why in (
        ([], 2, "give the images to index"),
        ([photos, "--data", photos], 2, "give the images to index"),
        ([photos, photos, "--dataset", "folder"], 2, "are given alone"),
        ([photos / "a.png", photos / "none.png"], 2, "none.png' does not exist"),
        ([photos / "a.png", photos / "a.txt"], 1, "a.txt' is no image by its suffix"),
        ([photos, "--camera-pattern", "c(x)"], 1, "finds no camera in 1 of 1 paths"),
        ([photos, "--root", tmp_path / "elsewhere"], 1, "does not lie below --root"),
        ([photos, "--wait", "-1"], 2, "--wait"),
    ):
        found = cli("index", tmp_path / "mall", *arguments, "--model", model)
        assert found.code == code, (arguments, found.err)
        assert why in " ".join(found.err.replace("│", " ").split()), found.err
        assert not (tmp_path / "mall").exists()


def test_what_is_read_and_how() -> None:
    labels = {"camera_pattern": "c(.)", "time_pattern": None}
    found = given_images([Path("a.csv")], None, None, None, labels)
    assert (found.paths, found.dataset, dict(found.labels)) == ([Path("a.csv")], None, {"camera_pattern": "c(.)"})
    assert given_images(None, Path("market"), None, None, {}).dataset == "market1501"
