"""Embeddings that are kept between the searches of a gallery: never others than the table's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery import Gallery, rows
from occluded_reid.gallery.layout import Layout
from occluded_reid.gallery.memory import RowMemory

Rows = Callable[..., PartEmbeddings]


@pytest.fixture
def layout(make_rows: Rows) -> Layout:
    return Layout(created="", slots=make_rows(1).widths, matcher={})


def test_any_versions_in_any_order_give_their_own_rows(layout: Layout, make_rows: Rows) -> None:
    everything = make_rows(700)
    memory = RowMemory(layout)
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


def test_additions_are_all_that_is_read(layout: Layout, make_rows: Rows) -> None:
    everything, memory, read = make_rows(300), RowMemory(layout), [0]

    def take(positions: np.ndarray) -> PartEmbeddings:
        read[0] += len(positions)
        return everything[positions]

    for count in range(300):
        memory.rows(np.arange(count), take)
    assert read == [299]
    memory.rows(np.arange(150), take)
    assert read == [299]


def test_a_large_gallery_is_not_held(layout: Layout, make_rows: Rows) -> None:
    memory = RowMemory(layout, numbers=18 * 10)
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
