"""Embeddings that are kept between the searches of a gallery: never others than the table's."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.search import rows
from occluded_reid.gallery.search.memory import RowMemory
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.matchers import Matcher, PlainMatcher, Prepared, VisibilityWeightedMatcher
from occluded_reid.search.tiles import Tiles

Rows = Callable[..., PartEmbeddings]


@pytest.fixture
def manifest(make_rows: Rows) -> Manifest:
    return Manifest(created="", slots=make_rows(1).widths, matcher={})


def test_any_versions_in_any_order_give_their_own_rows(manifest: Manifest, make_rows: Rows) -> None:
    everything = make_rows(700)
    memory = RowMemory(manifest)
    source = np.random.default_rng(0)
    read: list[int] = []
    held: list[tuple[np.ndarray, PartEmbeddings]] = []
    last = 0
    for turn in range(60):
        last = min(700, last + int(source.integers(0, 25)))
        numbers = np.flatnonzero(source.random(last) > (0.1 if turn % 4 == 3 else 0))

        def take(positions: np.ndarray, of: np.ndarray = numbers) -> PartEmbeddings:
            read.append(len(positions))
            return everything[of[positions]]

        found = memory.rows(numbers, take)
        assert found is not None
        held.append((numbers, found))
    for numbers, found in held:  # those of earlier versions as well, whatever has come after them
        assert torch.equal(found.concatenate(), everything[numbers].concatenate())
        assert torch.equal(found.visibility, everything[numbers].visibility)


def test_additions_are_all_that_is_read(manifest: Manifest, make_rows: Rows) -> None:
    everything, memory, read = make_rows(300), RowMemory(manifest), [0]

    def take(positions: np.ndarray) -> PartEmbeddings:
        read[0] += len(positions)
        return everything[positions]

    for count in range(300):
        memory.rows(np.arange(count), take)
    assert read == [299]
    memory.rows(np.arange(150), take)
    assert read == [299]


def test_a_large_gallery_is_not_held(manifest: Manifest, make_rows: Rows) -> None:
    memory = RowMemory(manifest, numbers=18 * 10)
    assert memory.rows(np.arange(10), lambda positions: make_rows(len(positions))) is not None
    assert memory.rows(np.arange(11), lambda positions: make_rows(len(positions))) is None


def test_a_search_reads_what_is_new_and_answers_as_a_fresh_one(
    tmp_path: Path, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = make_rows(90)
    gallery = Gallery.create(tmp_path / "g", slots=everything.widths)
    gallery.add(everything[:60], keys=[f"k{n}" for n in range(60)])
    gallery.search(everything[:1], 5)
    read = [0]
    real = rows.TableRows._read

    def counted(self: rows.TableRows, positions: np.ndarray) -> PartEmbeddings:
        read[0] += len(positions)
        return real(self, positions)

    monkeypatch.setattr(rows.TableRows, "_read", counted)
    for number in range(60, 80):
        gallery.add(everything[[number]], keys=[f"k{number}"])
        assert gallery.search(everything[[number]], 1)[0][0].key == f"k{number}"
    assert read == [20]
    gallery.remove(["k3", "k70"])
    gallery.add(everything[[80]], keys=["k4"], replace=True)
    gallery.relabel("k5", identity="new")
    assert gallery.search(everything[:9], 90) == Gallery.open(gallery.path).search(everything[:9], 90)


def test_another_copy_in_the_place_of_a_gallery_is_read_anew(tmp_path: Path, make_rows: Rows) -> None:
    everything = make_rows(30)
    gallery = Gallery.create(tmp_path / "g", slots=everything.widths)
    gallery.add(everything[:5], keys=list("abcde"))
    shutil.copytree(tmp_path / "g", tmp_path / "copy")
    gallery.add(everything[5:10], keys=list("fghij"))
    assert gallery.search(everything[[7]], 1)[0][0].key == "h"
    Gallery.open(tmp_path / "copy").add(everything[10:15], keys=list("fghij"))  # the same versions and numbers
    shutil.rmtree(tmp_path / "g")
    (tmp_path / "copy").rename(tmp_path / "g")
    gallery.add(everything[[20]], keys=["k"])
    assert gallery.search(everything[[12]], 1)[0][0].key == "h"
    assert gallery.search(everything[[12]], 1)[0][0].distance == pytest.approx(0, abs=1e-6)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tiles, "_tile_rows", lambda self: 16)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many gallery rows were prepared, call by call; queries have one row."""
    counts: list[int] = []
    real = VisibilityWeightedMatcher.prepare

    def counted(self: VisibilityWeightedMatcher, rows: PartEmbeddings) -> Prepared:
        if len(rows) > 1:
            counts.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(VisibilityWeightedMatcher, "prepare", counted)
    return counts


def same_as_fresh(gallery: Gallery, query: PartEmbeddings, matcher: Matcher | None = None) -> bool:
    """Whether the answer is, digit by digit, that of a gallery that has searched for nothing before."""
    with Gallery.open(gallery.path, matcher=matcher) as fresh:
        return gallery.search(query, 7) == fresh.search(query, 7) == gallery.search(query, 7)


def test_full_tiles_are_prepared_once(tmp_path: Path, make_rows: Rows, small_tiles: None, prepared: list[int]) -> None:
    everything = make_rows(80)
    gallery = Gallery.create(tmp_path / "g", slots=everything.widths)
    gallery.add(everything[:70], keys=[f"k{n}" for n in range(70)])
    gallery.search(everything[:1], 5)
    assert prepared == [16, 16, 16, 16, 6]
    del prepared[:]
    gallery.search(everything[1:2], 5)
    assert not prepared
    gallery.add(everything[70:72], keys=["a", "b"])
    gallery.search(everything[1:2], 5)
    assert prepared == [8]
    del prepared[:]
    gallery.remove("k40")
    gallery.search(everything[1:2], 5)
    assert prepared == [16, 16, 7]  # what lies before the row that went is kept


def test_prepared_tiles_change_no_answer(tmp_path: Path, make_rows: Rows, small_tiles: None) -> None:
    everything = make_rows(200)
    query = make_rows(5, seed=9)
    gallery = Gallery.create(tmp_path / "g", slots=everything.widths)
    reader = Gallery.open(gallery.path)
    gallery.add(everything[:90], keys=[f"k{n}" for n in range(90)])
    assert same_as_fresh(gallery, query)
    gallery.add(everything[90:97], keys=[f"k{n}" for n in range(90, 97)])
    assert same_as_fresh(gallery, query)
    gallery.remove([f"k{n}" for n in range(20, 50)])
    assert same_as_fresh(gallery, query)
    gallery.add(everything[100:110], keys=[f"k{n}" for n in range(10)], replace=True)
    assert same_as_fresh(gallery, query)
    gallery.compact()
    assert same_as_fresh(gallery, query)
    for seen in range(2):
        reader.refresh()
        assert same_as_fresh(reader, query)
        gallery.add(everything[[150 + seen]], keys=[f"new{seen}"])


def test_each_matcher_has_its_own_tiles(manifest: Manifest, make_rows: Rows) -> None:
    everything = make_rows(40)
    memory, numbers = RowMemory(manifest), np.arange(40)
    tile = memory.rows(numbers, lambda positions: everything[positions])
    assert tile is not None
    changing = VisibilityWeightedMatcher()
    name = everything.names[0]
    for weight in (1.0, 3.0, 0.0):
        changing.weights[name] = weight
        for matcher in (changing, PlainMatcher(), VisibilityWeightedMatcher(metric="euclidean"), changing):
            for _ in range(2):
                found, wanted = memory.prepared(0, numbers, tile, matcher), matcher.prepare(everything)
                assert all(torch.equal(*pair) for pair in zip(found.factors, wanted.factors, strict=True))
                assert torch.equal(found.shared, wanted.shared)
                assert (found.always, found.scale) == (wanted.always, wanted.scale)


def test_prepared_tiles_take_no_more_than_the_rows(manifest: Manifest, make_rows: Rows) -> None:
    everything, numbers = make_rows(100), np.arange(100)
    memory = RowMemory(manifest, numbers=manifest.width * 100)
    tile = memory.rows(numbers, lambda positions: everything[positions])
    assert tile is not None
    matcher = VisibilityWeightedMatcher(metric="euclidean")  # twice the bytes
    made = [memory.prepared(s, numbers[s : s + 10], tile[s : s + 10], matcher) for s in range(0, 100, 10)]
    again = [memory.prepared(s, numbers[s : s + 10], tile[s : s + 10], matcher) for s in range(0, 100, 10)]
    kept = [old for old, new in zip(made, again, strict=True) if old is new]
    size = sum(t.untyped_storage().nbytes() for p in kept for t in (*p.factors, p.shared))
    assert 0 < len(kept) < 6
    assert size <= 4 * manifest.width * 100


def test_a_search_of_an_earlier_version_keeps_nothing_that_was_removed(manifest: Manifest, make_rows: Rows) -> None:
    everything, memory, matcher = make_rows(40), RowMemory(manifest), PlainMatcher()
    before, after = np.arange(40), np.delete(np.arange(40), 25)
    rows_before = memory.rows(before, lambda positions: everything[before[positions]])
    rows_after = memory.rows(after, lambda positions: everything[after[positions]])
    assert rows_before is not None
    assert rows_after is not None
    part = slice(20, 30)
    old = memory.prepared(20, before[part], rows_before[part], matcher)
    assert torch.equal(old.factors[0], matcher.prepare(everything[before[part]]).factors[0])
    assert memory.prepared(20, before[part], rows_before[part], matcher) is not old
    new = memory.prepared(20, after[part], rows_after[part], matcher)
    assert torch.equal(new.factors[0], matcher.prepare(everything[after[part]]).factors[0])
    assert memory.prepared(20, after[part], rows_after[part], matcher) is new


def test_threads_that_search_while_another_writes_find_what_is_there(
    tmp_path: Path, make_rows: Rows, small_tiles: None
) -> None:
    everything = make_rows(120)
    gallery = Gallery.create(tmp_path / "g", slots=everything.widths)
    gallery.add(everything[:60], keys=[f"k{n}" for n in range(60)])
    wrong: list[object] = []
    done = threading.Event()

    def look(first: int) -> None:
        while not done.is_set():
            for n in range(first, 40, 2):
                try:
                    hit = gallery.search(everything[[n]], 1)[0][0]
                except Exception as error:  # noqa: BLE001 - a thread's error would be lost
                    wrong.append(error)
                    return
                if hit.key != f"k{n}" or hit.distance > 1e-6:
                    wrong.append((n, hit))

    threads = [threading.Thread(target=look, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for n in range(60, 72):
        gallery.add(everything[[n]], keys=[f"k{n}"])
        gallery.remove(f"k{n - 20}")
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert same_as_fresh(gallery, everything[:9])


def test_a_search_in_inference_mode_leaves_rows_that_can_grow(tmp_path: Path, make_rows: Rows) -> None:
    everything = make_rows(9)
    gallery = Gallery.create(tmp_path / "g", slots=everything.widths)
    gallery.add(everything[:5], keys=list("abcde"))
    with torch.inference_mode():
        gallery.search(everything[:1], 2)
    gallery.add(everything[5:], keys=list("fghi"))
    assert gallery.search(everything[[7]], 1)[0][0].key == "h"
