"""Lists of images: order kept, nothing twice, nothing outside, all that is missing counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occluded_reid.data.lists import list_lines, read_list
from occluded_reid.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/two words.jpg", "b/1.jpg", "b/3.jpg", "b/deep/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def listed(root: Path, text: str | bytes) -> Path:
    path = root / "some.list"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_first_folder_that_has_it(root: Path) -> None:
    path = listed(root, "\ufeff3.jpg\r\n\r\n  1.jpg \ndeep\\4.jpg\ntwo words.jpg")
    assert read_list(path, root, ("a", "b")) == [
        root / name for name in ("b/3.jpg", "a/1.jpg", "b/deep/4.jpg", "a/two words.jpg")
    ]
    assert list(list_lines(path))[:2] == [(1, "3.jpg"), (3, "1.jpg")]


@pytest.mark.parametrize("cut", ["\u2028", "\u2029", "\x85", "\f", "\v", "\x1c", "\r"])
def test_lines_end_at_line_feeds_alone(root: Path, cut: str) -> None:
    (root / "a" / f"x{cut}y.jpg{cut}").touch()
    assert list(list_lines(listed(root, f"x{cut}y.jpg{cut}z\n1.jpg"))) == [(1, f"x{cut}y.jpg{cut}z"), (2, "1.jpg")]


def test_links_to_another_disk_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("disk") / "9.jpg"
    elsewhere.touch()
    (root / "a" / "9.jpg").symlink_to(elsewhere)
    assert read_list(listed(root, "9.jpg"), root, ("a",)) == [root / "a/9.jpg"]


def test_all_that_is_missing_is_counted(root: Path) -> None:
    text = "\n".join(["1.jpg", *(f"none{i}.jpg" for i in range(5))])
    with pytest.raises(DataError, match="names 6 images, of which 5 are missing in") as found:
        read_list(listed(root, text), root, ("a", "b"))
    assert "'none0.jpg' (line 2), 'none1.jpg' (line 3), 'none2.jpg' (line 4) and 2 more" in str(found.value)


def test_twice(root: Path) -> None:
    with pytest.raises(DataError, match=r"line 3 of '.*some.list' names '1.jpg' again, after line 1"):
        read_list(listed(root, "1.jpg\n3.jpg\n1.jpg\n"), root, ("b",))
    with pytest.raises(DataError, match="again, after line 1"):
        read_list(listed(root, "deep/4.jpg\ndeep\\4.jpg\n"), root, ("b",))


@given(st.lists(st.sampled_from(["..", ".", "a", "b"]), max_size=5))
def test_nothing_outside_is_ever_read(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.mktemp("set")
    (root / "a").mkdir()
    name = "/".join([*parts, "1.jpg"])
    if ".." in parts:
        with pytest.raises(DataError, match="leads out of"):
            read_list(listed(root, name), root, ("a",))
    else:
        with pytest.raises(DataError, match="1 are missing"):
            read_list(listed(root, name), root, ("a",))


@pytest.mark.parametrize("name", ["/a/1.jpg", "C:\\1.jpg", "\\\\server\\share\\1.jpg", "C:1.jpg"])
def test_absolute_paths_are_refused(root: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"line 1 of .* leads out of"):
        read_list(listed(root, name), root, ("a",))


def test_lists_that_cannot_be_read(root: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_list(root / "none.list", root, ("a",))
    with pytest.raises(DataError, match="cannot be read"):
        read_list(listed(root, b"\xff\xfe1\x00"), root, ("a",))
    with pytest.raises(DataError, match="is empty; wanted the name of an image"):
        read_list(listed(root, " \n\n"), root, ("a",))
