"""Rows in tiles, one by one, in place, and read ahead."""

import threading

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.search import InMemoryRows, RowSource
from occluded_reid.search.rows import moved, read_ahead, rows_at, tiles_on

CPU = torch.device("cpu")


def make(rows: int) -> PartEmbeddings:
    return PartEmbeddings(("a",), (torch.arange(2.0 * rows).reshape(rows, 2),), torch.ones(rows, 1))


def test_tiles_cover_the_rows_in_order_and_take_keeps_the_order_asked_for() -> None:
    rows = make(5)
    slot = rows.slot("a")
    source: RowSource = InMemoryRows(rows)
    tiles = list(source.tiles(2))
    assert [start for start, _ in tiles] == [0, 2, 4]
    assert torch.equal(torch.cat([tile.slot("a") for _, tile in tiles]), slot)
    assert tiles[1][1].slot("a").data_ptr() == slot[2:].data_ptr()
    assert torch.equal(source.take([3, 0, 3]).slot("a"), slot[[3, 0, 3]])
    assert len(source) == 5


class Stored:
    """Rows that are not in memory: only the protocol."""

    def __init__(self, rows: PartEmbeddings) -> None:
        self.rows = rows
        self.taken: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def tiles(self, rows: int):
        for start in range(0, len(self.rows), rows):
            yield start, self.rows[start : start + rows]

    def take(self, positions):
        self.taken.append(np.asarray(positions).tolist())
        return self.rows[np.asarray(positions).tolist()]


@pytest.mark.parametrize("wanted", [[2], [0, 1, 2, 3], [5, 7, 8, 11], [0, 39], [3, 20, 38], list(range(40)), []])
@pytest.mark.parametrize("stored", [False, True])
def test_rows_are_found_at_their_places(wanted, stored) -> None:
    rows = make(40)
    positions = np.array(wanted, dtype=np.int64)
    held, places = rows_at(Stored(rows) if stored else InMemoryRows(rows), positions)
    assert torch.equal(held.slot("a")[places], rows.slot("a")[positions])
    assert torch.equal(held.visibility[places], rows.visibility[positions])


def test_rows_close_together_in_memory_are_not_copied_and_others_are_fetched_once() -> None:
    rows, source = make(40), Stored(make(40))
    held, _ = rows_at(InMemoryRows(rows), np.array([10, 12, 15]))
    assert held.slot("a").data_ptr() == rows.slot("a")[10:].data_ptr()
    held, _ = rows_at(InMemoryRows(rows), np.array([0, 39]))
    assert len(held) == 2
    rows_at(source, np.array([10, 12, 15]))
    assert source.taken == [[10, 12, 15]]


def test_rows_on_their_device_stay_themselves() -> None:
    rows = make(7)
    assert moved(rows, CPU) is rows
    tiles = list(tiles_on(Stored(rows), 3, CPU))
    assert [start for start, _, _ in tiles] == [0, 3, 6]
    assert all(there is tile for _, tile, there in tiles)


def test_reading_ahead_changes_neither_order_nor_errors() -> None:
    assert list(read_ahead(iter([]))) == []
    assert list(read_ahead(iter([0, None, 2]))) == [0, None, 2]

    def broken():
        yield 1
        raise OSError("the disk is gone")

    ahead = read_ahead(broken())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_one_item_is_made_while_another_is_used_and_no_more() -> None:
    made: list[int] = []
    second = threading.Event()

    def items():
        for n in range(10):
            made.append(n)
            if n == 1:
                second.set()
            yield n

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert second.wait(timeout=60), "the second item is made while the first is used"
    ahead.close()
    assert made == [0, 1], "whoever stops has one item made in vain"
