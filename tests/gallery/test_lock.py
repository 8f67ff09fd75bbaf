from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.lock import LOCK_FILE, WriterLock

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
