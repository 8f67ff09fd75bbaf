from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.storage import ledger
from occluded_reid.gallery.storage.lock import LOCK_FILE, WriterLock

Rows = Callable[..., Any]

HOLDER = """
import json, os, sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    with open(sys.argv[1], "w") as file:
        json.dump({"pid": os.getpid(), "host": "here", "since": "now"}, file)
    print("held", flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "die":
        os.kill(os.getpid(), 9)
"""
"""Another writer, without the seconds that importing the library takes."""


@pytest.fixture
def gallery(tmp_path: Path, make_rows: Rows) -> Gallery:
    gallery = Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    gallery.add(make_rows(3), keys=["a", "b", "c"])
    return gallery


def test_a_second_writer_is_refused_at_once_and_the_first_is_named(gallery: Gallery, make_rows: Rows) -> None:
    lock = WriterLock(gallery.path)
    changes = [
        lambda: gallery.add(make_rows(4)[3:], keys=["d"]),
        lambda: gallery.remove("a"),
        lambda: gallery.erase("a"),
        lambda: gallery.compact(),
    ]
    with lock.hold():
        for change in changes:
            with pytest.raises(GalleryLockedError, match=rf"process {os.getpid()} on '.*' \(since 2.*writer\.lock'"):
                change()
        with pytest.raises(GalleryLockedError, match=r"waited 0\.01 s"):
            gallery.remove("a", wait=0.01)
        assert len(Gallery.open(gallery.path)) == 3  # readers do not ask
        (gallery.path / LOCK_FILE).write_text("{")
        with pytest.raises(GalleryLockedError, match="written by another process"):
            gallery.remove("a")
    assert (gallery.path / LOCK_FILE).read_text() == ""
    assert gallery.remove("a") == 1


def test_the_lock_may_be_nested_and_is_let_go_after_an_error(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path)

    def fail() -> None:
        with lock.hold() as outer, lock.hold() as inner:
            assert (outer, inner) == (True, False)
            assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with lock.hold() as outermost:
        assert outermost
    for wait in (-1, float("nan"), float("inf")):
        with pytest.raises(GalleryError, match="wait is"), lock.hold(wait):
            pass


@pytest.mark.parametrize("end", ["go", "die"])
def test_the_lock_ends_with_its_process(gallery: Gallery, end: str) -> None:
    arguments = [sys.executable, "-c", HOLDER, str(gallery.path / LOCK_FILE), end]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(GalleryLockedError, match=f"process {process.pid} "):
            gallery.remove("a")
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait()
    assert gallery.remove("a") == 1  # although a killed holder could not tidy up
    assert gallery.verify().ok


def test_waiting_for_a_writer_that_goes(gallery: Gallery) -> None:
    arguments = [sys.executable, "-c", HOLDER, str(gallery.path / LOCK_FILE), "go"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        assert gallery.remove("a", wait=60) == 1


def test_a_lock_file_that_is_deleted_lets_nobody_in(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever deletes it while a commit is being hashed: at most one writer is told that its images are there."""
    real = ledger.make_durable

    def delete_and_write(folder: Path, names: Any) -> Any:
        monkeypatch.setattr(ledger, "make_durable", real)
        (gallery.path / LOCK_FILE).unlink()
        with pytest.raises(GalleryLockedError):
            Gallery.open(gallery.path).add(make_rows(1, 5), keys=["second"])
        return real(folder, names)

    monkeypatch.setattr(ledger, "make_durable", delete_and_write)
    with pytest.raises(GalleryLockedError, match=r"writer\.lock' was deleted or replaced.*not acknowledged"):
        gallery.add(make_rows(1, 6), keys=["first"])
    assert len(gallery) == 3
    assert gallery.add(make_rows(1, 6), keys=["first"]).added == 1
    assert len(Gallery.open(gallery.path)) == 4
    assert gallery.verify().ok
    gallery.compact(1)


def test_without_locks_on_folders_the_second_writer_wins_and_the_first_is_told(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ledger.make_durable
    monkeypatch.setattr("occluded_reid.gallery.storage.lock._lock_folder", lambda _: None)

    def delete_and_write(folder: Path, names: Any) -> Any:
        monkeypatch.setattr(ledger, "make_durable", real)
        (gallery.path / LOCK_FILE).unlink()
        assert Gallery.open(gallery.path).add(make_rows(1, 5), keys=["second"]).added == 1
        return real(folder, names)

    monkeypatch.setattr(ledger, "make_durable", delete_and_write)
    with pytest.raises(GalleryLockedError, match="not acknowledged"):
        gallery.add(make_rows(1, 6), keys=["first"])
    with Gallery.open(gallery.path) as again:
        assert {hit.key for hit in again.search(make_rows(1), 9)[0]} == {"a", "b", "c", "second"}
        assert again.verify().ok
        assert again.compact(1).versions == (again.version,)


def test_who_has_acknowledged_meanwhile_is_noticed_without_the_lock(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose locks do nothing, the chain of versions is compared."""
    real = ledger.make_durable
    monkeypatch.setattr("occluded_reid.gallery.storage.lock._lock_folder", lambda _: None)
    monkeypatch.setattr("occluded_reid.gallery.storage.lock._lock", lambda _: True)

    def write_beside(folder: Path, names: Any) -> Any:
        monkeypatch.setattr(ledger, "make_durable", real)
        assert Gallery.open(gallery.path).add(make_rows(1, 5), keys=["second"]).added == 1
        return real(folder, names)

    monkeypatch.setattr(ledger, "make_durable", write_beside)
    with pytest.raises(GalleryLockedError, match=r"another writer has acknowledged version \d+ .*not acknowledged"):
        gallery.add(make_rows(1, 6), keys=["first"])
    assert Gallery.open(gallery.path).verify().ok


@pytest.mark.parametrize("target", ["file", "nothing", "folder", "pipe"])
def test_a_link_in_the_place_of_the_lock_is_refused(gallery: Gallery, tmp_path: Path, target: str) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("precious", encoding="utf-8")
    lock = gallery.path / LOCK_FILE
    lock.unlink()
    if target == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to({"file": precious, "nothing": tmp_path / "made", "folder": tmp_path}[target])
    for change in (lambda: gallery.remove("a"), gallery.compact, lambda: gallery.erase("a")):
        with pytest.raises(GalleryError, match=r"writer\.lock' is a link, or no file at all; nothing was written"):
            change()
    assert precious.read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "made").exists()
    assert len(Gallery.open(gallery.path)) == 3


def test_another_name_of_the_lock_file_keeps_its_content(gallery: Gallery, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("precious", encoding="utf-8")
    (gallery.path / LOCK_FILE).unlink()
    os.link(precious, gallery.path / LOCK_FILE)
    assert gallery.remove("a") == 1
    assert precious.read_text(encoding="utf-8") == "precious"


def test_a_lock_belongs_to_one_thread(gallery: Gallery) -> None:
    said: list[str] = []

    def write() -> None:
        try:
            gallery.remove("a")
        except GalleryLockedError as cause:
            said.append(str(cause))

    with gallery._opened().writing():
        beside = threading.Thread(target=write)
        beside.start()
        beside.join()
    assert len(said) == 1
    assert f"process {os.getpid()}" in said[0]
    assert gallery.remove("a") == 1
