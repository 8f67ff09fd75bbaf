from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid.errors import GalleryError
from occluded_reid.gallery import Gallery, verify_folder
from occluded_reid.gallery.storage import checksums

Rows = Callable[..., Any]


@pytest.fixture
def gallery(tmp_path: Path, make_rows: Rows) -> Gallery:
    """A gallery with additions, a removal, a replacement, a sealed index, and several versions."""
    rows = make_rows(30)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    gallery.add(rows[:10], keys=[f"k{i}" for i in range(10)])
    gallery.add(rows[10:20], keys=[f"k{i}" for i in range(10, 20)], metadata={"n": 1})
    gallery.remove(["k3", "k12"])
    gallery.add(rows[20:23], keys=["k1", "k2", "new"], replace=True)
    return gallery


def test_a_flipped_bit_in_any_file_is_named(gallery: Gallery) -> None:
    index = gallery.path / "indexes" / "build"
    index.mkdir(parents=True)
    (index / "slot.faiss").write_bytes(b"an index")
    checksums.write(index)
    checksums.seal(gallery.path / "indexes" / "current.json", {"build": "build"})
    report = gallery.verify()
    assert (report.ok, report.leftovers, report.unfinished) == (True, (), False)
    assert report.versions == tuple(version.version for version in gallery.versions()) == (1, 2, 3, 4, 5)
    files = [file for file in sorted(gallery.path.rglob("*")) if file.is_file() and file.name != "writer.lock"]
    kinds = {".json", ".lance", ".manifest", ".txn", ".arrow", ".faiss"}
    assert {file.suffix for file in files} == kinds
    for file in files:
        whole = file.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            for bit in (0, 5, 7):
                content = bytearray(whole)
                content[place] ^= 1 << bit
                file.write_bytes(content)
                damaged = gallery.verify().damaged
                assert set(damaged) == {file.relative_to(gallery.path).as_posix()}
        file.write_bytes(whole)
    assert gallery.verify().ok


def test_a_missing_or_cut_file_is_named(gallery: Gallery) -> None:
    for file in sorted((gallery.path / "images.lance").rglob("*")):
        if file.is_file() and "hint" not in file.name:
            whole, name = file.read_bytes(), file.relative_to(gallery.path).as_posix()
            file.write_bytes(whole[:-1])
            what = f"has {len(whole) - 1} bytes instead of {len(whole)}"
            assert gallery.verify().damaged == {name: what}
            file.unlink()
            assert gallery.verify().damaged == {name: "is missing"}
            file.write_bytes(whole)
    (gallery.path / "checksums" / "3.json").unlink()
    assert gallery.verify().damaged == {"checksums/3.json": "is missing"}
    (gallery.path / "checksums" / "gallery.json.json").unlink()
    assert set(gallery.verify().damaged) >= {"checksums/3.json"}


def test_the_report_prints_and_insists(gallery: Gallery) -> None:
    told: list[tuple[int, int]] = []
    report = gallery.verify(progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (report.bytes, report.bytes)
    report.raise_if_damaged()
    assert str(report).startswith(f"{gallery.path}: {report.files} files")
    assert str(report).endswith("every bit as it was written")
    file = gallery.path / "gallery.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "name": "other"}))
    report = gallery.verify()
    assert not report.ok
    assert "1 DAMAGED\n  damaged: gallery.json has" in str(report)
    with pytest.raises(GalleryError, match=r"damaged: gallery\.json(.|\n)*Restore these files"):
        report.raise_if_damaged()


def test_what_a_crash_has_left_is_no_damage(gallery: Gallery) -> None:
    (gallery.path / "images.lance" / "data" / ".tmpAbC").write_bytes(b"x")
    (gallery.path / "checksums" / ".9.json.abc.tmp").write_bytes(b"x")
    (gallery.path / "indexes" / "half").mkdir(parents=True)
    (gallery.path / "indexes" / "half" / "slot").write_bytes(b"x")
    report = gallery.verify()
    assert report.ok
    assert len(report.leftovers) == 3
    assert "3 files of writes that were broken off" in str(report)
    gallery.compact()
    assert gallery.verify().leftovers == ("indexes/half/slot",)


def test_nothing_is_changed_by_verification(gallery: Gallery, tree_hash: Callable[..., Any]) -> None:
    before = tree_hash(gallery.path)
    gallery.verify()
    assert tree_hash(gallery.path) == before
    assert Gallery.open(gallery.path, version=3).verify().ok


@pytest.mark.parametrize("break_more", [False, True])
@pytest.mark.parametrize("name", ["gallery.json", "checksums/5.json", "newest.json", "checksums/gallery.json.json"])
def test_damage_that_keeps_a_gallery_from_opening_is_listed_with_all_other(
    gallery: Gallery, name: str, break_more: bool
) -> None:
    gallery.close()
    wanted = {name}
    (gallery.path / name).write_bytes(b"no JSON")
    if break_more:
        brought = gallery.path / "checksums" / "2.json"  # a list that stays whole
        data = next(file for file in json.loads(brought.read_text())["files"] if file.endswith(".lance"))
        (gallery.path / data).write_bytes((gallery.path / data).read_bytes()[:-1])
        wanted.add(data)
    report = verify_folder(gallery.path)
    assert set(report.damaged) == wanted
    assert report.leftovers == ()
    assert bool(report.unchecked) == name.startswith("checksums/")
    with pytest.raises(GalleryError, match=r"is no gallery: it has no gallery\.json|there is no gallery"):
        verify_folder(gallery.path / "indexes")
