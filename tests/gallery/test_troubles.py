"""A full disk, a folder that may not be written to, a newer format: clear errors, and nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery import Gallery

Rows = Callable[..., PartEmbeddings]

resource = pytest.importorskip("resource", reason="limits of a process are POSIX")


def wide(count: int, seed: int = 0) -> PartEmbeddings:
    source = torch.Generator().manual_seed(seed)
    return PartEmbeddings(("global",), (torch.randn(count, 512, generator=source),), torch.ones(count, 1))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a disk of its own can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def require_whole(path: Path, count: int, first: int = 0) -> None:
    with Gallery.open(path) as gallery:
        assert len(gallery) == count - first
        assert {hit.key for hit in gallery.search(wide(1), 10_000)[0]} == {f"k{i}" for i in range(first, count)}
        gallery.verify().raise_if_damaged()


def test_a_full_disk_loses_nothing(disk: Path) -> None:
    path = disk / "g"
    gallery = Gallery.create(path, slots={"global": 512})
    gallery.add(wide(300), keys=[f"k{i}" for i in range(300)])
    with pytest.raises(GalleryError, match=r"could not be written: .*No space left.*Free some space"):
        gallery.add(wide(3000, 1), keys=[f"x{i}" for i in range(3000)])
    assert len(gallery) == 300
    require_whole(path, 300)
    ballast = disk / "ballast"
    for left in range(0, 5):  # so full that the data may fit but the checksums may not
        with ballast.open("wb") as file:
            while os.statvfs(disk).f_bavail > left:
                file.write(b"x" * 4096)
                file.flush()
        for change in (
            lambda: gallery.remove([f"k{i}" for i in range(299)]),
            lambda: gallery.add(wide(8, 2), keys=[f"y{i}" for i in range(8)]),
            lambda: gallery.compact(1),
            lambda: gallery.erase("k0"),
        ):
            with pytest.raises(GalleryError, match=r"No space left"):
                change()
            require_whole(path, 300)
        ballast.unlink()
    begun = gallery.verify().unfinished  # an erasure that was written down is finished once there is space
    assert gallery.remove("k299") == 1
    require_whole(path, 299, first=1 if begun else 0)
    gallery.compact(1)
    report = gallery.verify()
    assert (report.damaged, report.leftovers) == ({}, ())


def test_a_file_that_cannot_grow_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "g"
    gallery = Gallery.create(path, slots={"global": 512})
    gallery.add(wide(20), keys=[f"k{i}" for i in range(20)])
    for limit in (100_000, 300, 0):
        with largest_file(limit), pytest.raises(GalleryError, match=r"could not be .*(too large|Free some space)"):
            gallery.add(wide(300, 1), keys=[f"x{i}" for i in range(300)])
        require_whole(path, 20)
    assert gallery.add(wide(21)[20:], keys=["k20"]).added == 1
    require_whole(path, 21)


def test_a_folder_for_reading_only(disk: Path, tree_hash: Callable[..., Any]) -> None:
    path = disk / "g"
    gallery = Gallery.create(path, slots={"global": 512})
    gallery.add(wide(5), keys=[f"k{i}" for i in range(5)])
    (path / "writer.lock").unlink()
    before = tree_hash(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for change in (
        lambda: gallery.add(wide(1, 1), keys=["x"]),
        lambda: gallery.remove("k0"),
        lambda: gallery.erase("k0"),
        gallery.compact,
    ):
        with pytest.raises(GalleryError, match=r"could not be written: .*Read-only file system.*Choose a folder"):
            change()
    with pytest.raises(GalleryError, match=r"could not be created: .*Read-only"):
        Gallery.create(disk / "other", slots={"global": 512})
    require_whole(path, 5)
    assert tree_hash(disk) == before


def test_a_gallery_of_a_newer_format_is_neither_read_nor_written(tmp_path: Path, tree_hash: Callable[..., Any]) -> None:
    Gallery.create(tmp_path / "g", slots={"global": 512}).close()
    file = tmp_path / "g" / "gallery.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99, "unheard": "of"}))
    before = tree_hash(tmp_path)
    with pytest.raises(GalleryError, match=r"has format 99; this library reads formats up to 2\. Update it"):
        Gallery.open(tmp_path / "g")
    assert tree_hash(tmp_path) == before


def test_keys_and_filters_with_quotes(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(4)
    keys = ["O'Brien", 'a"b', "x'; DROP TABLE images; --", "`c`\\"]
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    gallery.add(rows, keys=keys, identity=keys)
    for key in keys:
        assert [hit.key for hit in gallery.search(rows[:1], where={"key": key})[0]] == [key]
        text = key.replace("'", "''")
        assert [hit.key for hit in gallery.search(rows[:1], where=f"identity = '{text}'")[0]] == [key]
    with pytest.raises(GalleryError, match=r"is not understood.*with a quote inside a string doubled"):
        gallery.search(rows[:1], where="identity = 'O'Brien'")
    assert gallery.remove(keys[2]) == 1
    assert gallery.erase([keys[0], keys[2]]).images == 2
    assert len(gallery) == 2
