import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.search import InMemoryRows, RowSource


def test_tiles_cover_the_rows_in_order_and_take_keeps_the_order_asked_for() -> None:
    slot = torch.arange(10.0).reshape(5, 2)
    source: RowSource = InMemoryRows(PartEmbeddings(("a",), (slot,), torch.ones(5, 1)))
    tiles = list(source.tiles(2))
    assert [start for start, _ in tiles] == [0, 2, 4]
    assert torch.equal(torch.cat([tile.slot("a") for _, tile in tiles]), slot)
    assert tiles[1][1].slot("a").data_ptr() == slot[2:].data_ptr()
    assert torch.equal(source.take([3, 0, 3]).slot("a"), slot[[3, 0, 3]])
    assert len(source) == 5
