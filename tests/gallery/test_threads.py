"""One gallery object, several threads: each search is answered from one version, whatever is written meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery import Gallery, TableRows
from occluded_reid.gallery.storage.store import Store

Rows = Callable[..., PartEmbeddings]
COUNT = 12


@pytest.fixture
def gallery(tmp_path: Path, make_rows: Rows) -> Gallery:
    gallery = Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    keys = [f"k{i}" for i in range(COUNT)]
    gallery.add(make_rows(COUNT), keys=keys, camera=[i % 3 for i in range(COUNT)])
    return gallery


def in_a_thread(work: Callable[[], Any]) -> Any:
    """What `work` returns or raises, done by another thread while this one waits."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(60)


def answer(gallery: Gallery, query: PartEmbeddings, **options: Any) -> list[tuple[str, float]]:
    return [(hit.key, hit.distance) for hit in gallery.search(query, 99, **options)[0]]


@pytest.mark.parametrize("options", [{}, {"where": "camera < 2"}, {"query_camera": 1}, {"threshold": 1e9}], ids=str)
def test_a_search_is_answered_from_the_version_that_it_began_with(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    before = answer(gallery, make_rows(1), **options)
    gallery._known = None
    times = {"records": 0}
    true = TableRows.records

    def records(self: TableRows, *arguments: Any) -> Any:
        times["records"] += 1
        if times["records"] == 1:  # the rows' addresses are known by now, and none of them has been read
            in_a_thread(lambda: gallery.remove(["k0", "k3"]))
            in_a_thread(lambda: gallery.add(make_rows(20)[12:], keys=[f"n{i}" for i in range(8)], camera=0))
        return true(self, *arguments)

    monkeypatch.setattr(TableRows, "records", records)
    assert answer(gallery, make_rows(1), **options) == before
    monkeypatch.undo()
    after = answer(gallery, make_rows(1), **options)
    assert after == answer(Gallery.open(gallery.path), make_rows(1), **options)
    assert after != before


def test_a_search_whose_version_is_dropped_begins_again_with_the_newest(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"records": 0}
    true = TableRows.records

    def records(self: TableRows, *arguments: Any) -> Any:
        times["records"] += 1
        if times["records"] == 1:
            in_a_thread(lambda: gallery.erase(["k0"]))
        return true(self, *arguments)

    monkeypatch.setattr(TableRows, "records", records)
    found = answer(gallery, make_rows(1))
    assert times["records"] > 2
    assert found == answer(Gallery.open(gallery.path), make_rows(1))
    assert "k0" not in dict(found)


def test_what_does_not_count_yet_is_not_found(
    gallery: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, bool]] = []
    true = Store.acknowledge

    def acknowledge(self: Store, action: str) -> None:
        def look() -> tuple[int, int, bool]:
            keys = [key for key, _ in answer(gallery, make_rows(1))]
            gallery.refresh()
            return len(gallery), gallery.version, "new" in keys

        seen.append(in_a_thread(look))
        true(self, action)

    monkeypatch.setattr(Store, "acknowledge", acknowledge)
    before = gallery.version
    gallery.add(make_rows(13)[12:], keys=["new"])
    assert seen == [(COUNT, before, False)]
    assert len(gallery) == COUNT + 1


def test_labels_are_numbered_by_one_thread(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = TableRows(gallery._read())
    found: list[np.ndarray] = []
    waiting = threading.Barrier(4)

    def ask() -> None:
        waiting.wait()
        found.append(rows.codes("key"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sorted(codes.tolist()) == list(range(COUNT)) for codes in found)
    assert all(codes is found[0] for codes in found)


def test_searching_while_another_thread_writes(gallery: Gallery, make_rows: Rows) -> None:
    rows, stop, searched = make_rows(COUNT), threading.Event(), threading.Semaphore(0)

    def search(first: int) -> list[str]:
        kept, place, wrong = [0, 2, 4, 6], first, []
        while not stop.is_set():
            i = kept[place % len(kept)]
            place += 1
            hit = gallery.search(rows[[i]], 1, query_camera=None if place % 2 else (i + 1) % 3)[0][0]
            if hit.key != f"k{i}":
                wrong.append(f"k{i}: {hit}")
            searched.release()
        return wrong

    with ThreadPoolExecutor(2) as pool:
        searches = [pool.submit(search, number) for number in range(2)]
        for number in range(6):
            gallery.add(make_rows(2, seed=100 + number), keys=[f"n{number}", f"m{number}"], camera=9)
            gallery.remove([f"k{2 * number + 1}"] if number < 4 else [f"m{number}"])
            if number % 2:
                gallery.compact(1)
            searched.acquire(timeout=20)
        stop.set()
        assert [done.result() for done in searches] == [[], []]
    assert gallery.verify().ok
