"""Files that are not loaded are counted and named, by reason; what Pillow reads is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.dataset import load_dataset
from occluded_reid.data.images import IMAGE_SUFFIXES, image_files, open_image
from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError

PICTURE = Image.new("RGB", (8, 16), (200, 10, 30))


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(root / name, format="PNG")
    return root


@pytest.mark.parametrize(
    "suffix", ["jfif", "jpe", "JFIF", "jp2", "tga", "dib", "pbm", "ppm", "webp", "gif", "qoi", "apng"]
)
def test_pictures_of_other_suffixes_are_loaded(tmp_path: Path, suffix: str) -> None:
    path = plant(tmp_path, "anna/0.png") / "anna" / f"1.{suffix}"
    if suffix == "qoi":
        path.write_bytes(b"qoif" + bytes([0, 0, 0, 1, 0, 0, 0, 1, 3, 0, 0xFE, 1, 2, 3]) + bytes(7) + b"\1")
    else:
        PICTURE.convert("1" if suffix == "pbm" else "RGB").save(path)
    data = load_dataset("folder", tmp_path)
    assert [s.path.name for s in data.train] == ["0.png", path.name]
    assert open_image(path).mode == "RGB"


def test_documents_are_no_pictures() -> None:
    assert not {".eps", ".ps", ".pdf", ".svg"} & IMAGE_SUFFIXES  # Pillow would start another program for some of them


def test_everything_that_is_passed_over_is_counted(tmp_path: Path) -> None:
    plant(tmp_path, "anna/0.png", "anna/.1.png", "loose.png")
    for name in ("film.mp4", "list.txt", "Thumbs.db", ".DS_Store"):
        (tmp_path / "anna" / name).touch()
    (tmp_path / "anna" / "gone.png").symlink_to("/nowhere/1.png")
    (tmp_path / "bert").mkdir()
    os.mkfifo(tmp_path / "anna" / "pipe.png")
    data = load_dataset("folder", tmp_path)
    assert [s.name for s in data.train] == ["anna/0.png"]
    assert set(data.notes[1:]) == {
        "2 files left out, no images by their suffix (anna/film.mp4, anna/list.txt)",
        "1 files left out, links that lead nowhere (anna/gone.png)",
        "1 files left out, hidden (anna/.1.png)",
        "1 files left out, no regular files (anna/pipe.png)",
        "1 folders left out, without images (bert)",
        "1 images left out, beside the sub-folders and so nobody's (loose.png)",
    }


def test_many_are_counted_and_the_first_named() -> None:
    left_out = LeftOut()
    for name in "dcab":
        left_out.add(name, "odd")
    assert left_out.notes("q: ") == ["q: 4 files left out, odd (a, b, c, …)"]


def test_published_layouts_say_it_too(tmp_path: Path) -> None:
    for folder in ("query", "bounding_box_test"):
        plant(tmp_path, f"{folder}/0001_c1s1_000001_00.jpg", f"{folder}/0001C1.jpg", f"{folder}/more/1.jpg")
        (tmp_path / folder / "0002_c1s1_000001_00.jpg").symlink_to("/nowhere.jpg")
    data = load_dataset("market1501", tmp_path, own=True)
    assert len(data.query) == len(data.gallery) == 1
    for said in ("not named like", "links that lead nowhere (0002_c1s1", "not looked into (more)"):
        assert sum(said in note for note in data.notes) == 2


@pytest.fixture
def unprivileged(tmp_path: Path) -> None:
    (tmp_path / "closed").touch(mode=0o000)
    try:
        (tmp_path / "closed").read_bytes()
    except PermissionError:
        return
    pytest.skip("an administrator may read everything")


@pytest.mark.usefixtures("unprivileged")
def test_folders_that_may_not_be_read(tmp_path: Path) -> None:
    root = plant(tmp_path / "set", "anna/0.png", "anna/deep/1.png", "bert/0.png", "cora/0.png")
    closed = {root / "anna" / "deep": 0o000, root / "bert": 0o400}
    for folder, mode in closed.items():
        folder.chmod(mode)
    try:
        data = load_dataset("folder", root)
        (tmp_path).chmod(0o600)
        with pytest.raises(DataError, match="cannot be"):
            load_dataset("folder", root)
    finally:
        tmp_path.chmod(0o755)
        for folder in closed:
            folder.chmod(0o755)
    assert [s.name for s in data.train] == ["anna/0.png", "cora/0.png"]
    assert sum("cannot be read (Permission denied)" in note for note in data.notes) >= 1
    assert any("anna/deep" in note for note in data.notes)
    assert any("bert" in note for note in data.notes)


def test_folders_that_may_not_be_listed_by_whoever_runs_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path, "anna/0.png", "anna/deep/1.png", "bert/0.png")
    real = os.scandir

    def scandir(path: str | Path = ".") -> object:
        if Path(path).name in ("deep", "bert"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    data = load_dataset("folder", root)
    assert [s.name for s in data.train] == ["anna/0.png"]
    assert "2 folders left out, cannot be read (Permission denied) (anna/deep, bert)" in data.notes
    left_out = LeftOut()
    assert image_files(root / "anna", recursive=True, left_out=left_out) == [root / "anna" / "0.png"]
    assert left_out.notes() == ["1 folders left out, cannot be read (Permission denied) (deep)"]
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        image_files(root / "bert")
