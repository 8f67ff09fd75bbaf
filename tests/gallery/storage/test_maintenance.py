from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import pytest
import torch

from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.gallery import Gallery, TableRows
from occluded_reid.gallery.storage import ledger, tasks
from occluded_reid.gallery.storage.ledger import Ledger, manifest_versions
from occluded_reid.gallery.storage.store import Store

Rows = Callable[..., Any]


def keys_of(path: Path, version: int | None = None) -> list[str]:
    with Gallery.open(path, version=version) as gallery:
        table = TableRows(Store(path, gallery.manifest, version))
        return list(table.records(range(len(table)), ["key"]).column("key").to_pylist())


@pytest.fixture
def gallery(tmp_path: Path, make_rows: Rows) -> Gallery:
    gallery = Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    gallery.add(make_rows(10), keys=[f"k{i}" for i in range(10)])
    gallery.remove(["k0", "k4"])
    gallery.add(make_rows(14)[10:], keys=["a", "b", "c", "k5"], replace=True)
    return gallery


class Crash(Exception):
    """A process that dies here."""


def dying(function: Callable[..., Any], folder: Path, place: int, steps: list[str]) -> Callable[..., Any]:
    """The function, which crashes once a task is written down and `place` calls of such functions were made."""

    def step(*arguments: Any, **named: Any) -> Any:
        if (folder / "unfinished.json").exists():
            if len(steps) == place:
                raise Crash
            steps.append(function.__name__)
        return function(*arguments, **named)

    return step


def test_versions_are_told_and_opened(gallery: Gallery) -> None:
    told = [(version.version, version.images, version.action) for version in gallery.versions()]
    assert told == [(1, 0, "create"), (2, 10, "add 10"), (3, 8, "remove 2"), (4, 11, "add or replace 4")]
    times = [version.time for version in gallery.versions()]
    assert times == sorted(times)
    assert [len(keys_of(gallery.path, version)) for version in (1, 2, 3, 4)] == [0, 10, 8, 11]
    with pytest.raises(GalleryError, match=r"has no version 9\. It has kept 1, 2, 3, 4\."):
        Gallery.open(gallery.path, version=9)
    assert Gallery.open(gallery.path, version=2).versions() == gallery.versions()


@pytest.mark.parametrize("keep", [1, 2, 3, 99])
def test_compaction_keeps_the_rows_and_the_newest_versions(gallery: Gallery, make_rows: Rows, keep: int) -> None:
    before = keys_of(gallery.path)
    rows = TableRows(Store(gallery.path, gallery.manifest))
    embeddings = rows.take(range(len(rows))).concatenate()
    told: list[tuple[int, int]] = []
    result = gallery.compact(keep, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    kept = [version.version for version in gallery.versions()]
    assert list(result.versions) == kept
    assert len(kept) == min(keep, 5)
    assert kept[:-1] == [1, 2, 3, 4][4 - len(kept) + 1 :]
    assert set(manifest_versions(gallery.path)) == set(kept)
    assert result.bytes_after == sum(file.stat().st_size for file in gallery.path.rglob("*") if file.is_file())
    assert (result.bytes_after < result.bytes_before) or keep > 1
    assert keys_of(gallery.path) == before
    rows = TableRows(Store(gallery.path, gallery.manifest))
    assert torch.equal(rows.take(range(len(rows))).concatenate(), embeddings)
    for version in kept:
        keys_of(gallery.path, version)
    with pytest.raises(GalleryError, match="has no version 77"):
        Gallery.open(gallery.path, version=77)
    report = gallery.verify()
    assert (report.damaged, report.leftovers) == ({}, ())
    assert gallery.add(make_rows(15)[14:], keys=["later"]).added == 1
    assert gallery.verify().ok


def test_compaction_with_one_version_leaves_nothing_of_removed_images(gallery: Gallery) -> None:
    gallery.remove(["b"])
    gallery.compact(keep_versions=1)
    assert not (gallery.path / "images.lance" / "_deletions").exists() or not list(
        (gallery.path / "images.lance" / "_deletions").iterdir()
    )
    assert gallery.compact(keep_versions=1).bytes_after <= gallery.compact(keep_versions=1).bytes_before
    for keep in (0, -1, True, 1.5):
        with pytest.raises(GalleryError, match="keep_versions is"):
            gallery.compact(keep)  # type: ignore[arg-type]


def test_damage_is_not_copied(gallery: Gallery, tree_hash: Callable[..., Any]) -> None:
    file = next((gallery.path / "images.lance" / "data").iterdir())
    content = bytearray(file.read_bytes())
    content[5] ^= 4
    file.write_bytes(content)
    before = tree_hash(gallery.path)
    for change in (gallery.compact, lambda: gallery.erase("a")):
        with pytest.raises(GalleryError, match=rf"is damaged: 'images.lance/data/{file.name}' has other content"):
            change()
    assert tree_hash(gallery.path) == before


def test_a_commit_that_was_not_acknowledged_is_never_seen(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise Crash

    before = keys_of(gallery.path)
    changes: list[Callable[[], object]] = [
        lambda: gallery.add(make_rows(20)[14:], keys=list("uvwxyz")),
        lambda: gallery.add(make_rows(20)[14:16], keys=["a", "x"], replace=True),
        lambda: gallery.remove(["k1", "k2"]),
    ]
    for change in changes:
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "acknowledge", crash)
            with pytest.raises(Crash):
                change()
        assert max(manifest_versions(gallery.path)) > gallery.versions()[-1].version
        assert keys_of(gallery.path) == before
        report = gallery.verify()
        assert report.ok
        assert len(report.leftovers) >= 2
        assert len(gallery) == len(before)  # nor by the handle that failed
    reader = Gallery.open(gallery.path)
    assert gallery.remove("k1") == 1
    assert gallery.versions()[-2].action == "undo of a write that was broken off"
    assert keys_of(gallery.path) == [key for key in before if key != "k1"]
    assert len(reader) == len(before)
    assert gallery.verify().ok
    gallery.compact(1)
    assert gallery.verify().leftovers == ()


@pytest.mark.parametrize("task", ["compact", "erase"])
def test_a_task_that_was_broken_off_anywhere_is_finished_by_the_next_writer(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str
) -> None:
    """After the task was written down, the process "dies" at its first step, at its second, … until it lives."""
    before = keys_of(gallery.path)
    kept = [key for key in before if task == "compact" or key != "k1"]
    for place in range(99):
        path = tmp_path / str(place)
        shutil.copytree(gallery.path, path)
        with monkeypatch.context() as patch:
            steps: list[str] = []
            for owner, name in (
                (Path, "unlink"),
                (ledger, "seal"),
                (tasks, "join_pieces"),
                (lancedb.table.LanceTable, "add"),
                (lancedb.table.LanceTable, "delete"),
            ):
                patch.setattr(owner, name, dying(getattr(owner, name), path, place, steps))
            with Gallery.open(path) as victim:
                try:
                    victim.compact(2) if task == "compact" else victim.erase(["k1", "k4"])
                except Crash:
                    pass
                else:
                    assert place > 8
                    return
        assert (path / "unfinished.json").exists()
        report = Gallery.open(path).verify()
        assert report.damaged == {}
        assert report.unfinished
        assert keys_of(path) in (before, kept)
        with Gallery.open(path) as other:
            other.add(make_rows(15)[14:], keys=["later"])
        assert keys_of(path) == [*kept, "later"]
        report = Gallery.open(path).verify()
        assert (report.damaged, report.leftovers, report.unfinished) == ({}, (), False)
        if task == "erase":
            assert not any(b"k4" in file.read_bytes() for file in path.rglob("*") if file.is_file())


def test_a_writer_without_the_lock_is_noticed(gallery: Gallery, make_rows: Rows) -> None:
    """Another program that writes to the table: before a commit, or in between."""
    store = Store(gallery.path, gallery.manifest)
    before = keys_of(gallery.path)
    other = lancedb.connect(str(gallery.path)).open_table("images")
    with store.writing():
        other.delete("`row` < 0 OR `key` = 'k7'")
        with pytest.raises(GalleryLockedError, match=r"from version 4 to 5 .* without one"):
            store.hide([1])

    def write_both() -> None:
        with store.writing(), store.committing() as table:
            other.checkout_latest()
            other.delete("`key` = 'k8'")
            table.delete("`key` = 'k9'")

    with pytest.raises(GalleryLockedError, match="does not count"):
        write_both()
    assert keys_of(gallery.path) == before
    assert gallery.remove("a") == 1  # and what was not acknowledged is undone
    assert keys_of(gallery.path) == [key for key in before if key != "a"]


def test_a_torn_version_of_a_lost_machine_is_passed_over(gallery: Gallery, make_rows: Rows) -> None:
    before = keys_of(gallery.path)
    newest = manifest_versions(gallery.path)[4]
    torn = newest.with_name(f"{int(newest.stem) - 1}.manifest")
    torn.write_bytes(b"")
    assert keys_of(gallery.path) == before
    assert not torn.exists()
    newest.write_bytes(b"")
    with pytest.raises(GalleryError, match="could not be opened"):
        Gallery.open(gallery.path)


def test_a_gallery_of_format_1_is_read_and_taken_over_by_the_first_write(gallery: Gallery, make_rows: Rows) -> None:
    shutil.rmtree(gallery.path / "checksums")
    with pytest.raises(GalleryError, match="has lost its folder 'checksums'"):
        Gallery.open(gallery.path)
    file = gallery.path / "gallery.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 1}))
    old = Gallery.open(gallery.path)
    assert len(old) == 11
    assert len(Gallery.open(gallery.path, version=2)) == 10
    assert [version.version for version in old.versions()] == [4]
    with pytest.raises(GalleryError, match="is of format 1, which has no checksums"):
        old.verify()
    assert not (gallery.path / "checksums").exists()
    assert old.add(make_rows(15)[14:], keys=["later"]).added == 1
    assert json.loads(file.read_text())["format_version"] == 2
    report = Gallery.open(gallery.path).verify()
    assert (report.damaged, report.leftovers, report.versions) == ({}, (), (4, 5))
    assert len(keys_of(gallery.path)) == 12


def test_files_beside_the_table_are_verified(gallery: Gallery) -> None:
    store = Store(gallery.path, gallery.manifest)
    for content in ("one", "two"):
        with store.writing(), store.ledger.side_file("calibration.json") as path:
            path.write_text(content)
        assert gallery.verify().leftovers == ()
    (gallery.path / "calibration.json").write_text("twp")
    assert set(gallery.verify().damaged) == {"calibration.json"}

    def crash() -> None:
        with store.ledger.side_file("calibration.json") as path:
            path.write_text("three")
            raise Crash

    with pytest.raises(Crash):
        crash()
    report = gallery.verify()
    assert (report.damaged, report.leftovers) == ({}, ("calibration.json",))


def test_a_reader_of_a_dropped_version_goes_on_or_is_told(gallery: Gallery, make_rows: Rows) -> None:
    reader, pinned = Gallery.open(gallery.path), Gallery.open(gallery.path, version=3)
    again = Gallery.open(gallery.path)
    gallery.remove(["k1"])
    gallery.compact(1)
    assert len(reader.search(make_rows(1), 99)[0]) == 10
    assert len(reader) == 10
    assert (len(again), again.version) == (10, gallery.version)
    with pytest.raises(GalleryError, match=r"could not be read at version 3.*dropped since.*open the gallery again"):
        pinned.search(make_rows(1))
    with pytest.raises(GalleryError, match=r"could not be read at version 3.*dropped since"):
        len(pinned)


def test_refresh_shows_what_others_wrote(gallery: Gallery, make_rows: Rows) -> None:
    reader = Gallery.open(gallery.path)
    gallery.add(make_rows(15)[14:], keys=["new"])
    gallery.remove(["a"])
    assert "new" not in [hit.key for hit in reader.search(make_rows(1), 99)[0]]
    assert reader.refresh() == gallery.version
    found = [hit.key for hit in reader.search(make_rows(1), 99)[0]]
    assert "new" in found
    assert "a" not in found
    gallery.erase(["b"])
    assert "b" not in [hit.key for hit in reader.search(make_rows(1), 99)[0]]
    assert reader.refresh() == reader.refresh() == gallery.version
    with pytest.raises(GalleryError, match=r"opened at version \d+, to stay there"):
        Gallery.open(gallery.path, version=gallery.version).refresh()
    reader.close()
    with pytest.raises(GalleryError, match="was closed"):
        reader.refresh()


def test_rows_of_many_pieces_are_moved_a_few_pieces_at_a_time(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_PIECES", 2)
    before = set(keys_of(gallery.path))
    named: list[str] = []
    true = tasks._range_of

    def range_of(ids: Any) -> str:
        named.append(true(ids))
        return named[-1]

    monkeypatch.setattr(tasks, "_range_of", range_of)
    gallery.erase(["k1", "a"])
    assert set(keys_of(gallery.path)) == before - {"k1", "a"}
    assert named
    assert all(text.count(" OR ") < 2 for text in named)
