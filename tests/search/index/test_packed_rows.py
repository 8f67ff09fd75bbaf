"""PackedWriter and PackedRows: what goes in comes out, in bounded memory, and damage is named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, GalleryError, ShapeError
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows, exact_topk
from occluded_reid.search.index.packed_rows import PackedRows, PackedWriter


def make(rows: int, seed: int = 0) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    slots = (torch.randn(rows, 5, generator=generator), torch.randn(rows, 3, generator=generator))
    return PartEmbeddings(("global", "part_1"), slots, torch.rand(rows, 2, generator=generator))


def write(folder: Path, rows: PartEmbeddings, dtype: str = "float16", step: int = 7) -> PackedRows:
    with PackedWriter(folder, rows.widths, dtype) as writer:
        for start in range(0, len(rows), step):
            writer.append(rows[start : start + step])
            assert len(writer) == min(start + step, len(rows))
    return PackedRows.open(folder)


def equal(found: PartEmbeddings, expected: PartEmbeddings) -> None:
    assert found.names == expected.names
    for ours, theirs in zip(found.embeddings, expected.embeddings, strict=True):
        assert torch.equal(ours.double(), theirs.double())
    assert torch.equal(found.visibility, expected.visibility)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_tiles_and_single_rows_are_what_was_written(dtype, tmp_path) -> None:
    rows = make(50)
    packed = write(tmp_path, rows, dtype)
    kept = rows.to(dtype=torch.float16) if dtype == "float16" else rows
    tiles = list(packed.tiles(12))  # kept all at once: a tile must not change when the next is read
    assert [(start, len(tile)) for start, tile in tiles] == [(0, 12), (12, 12), (24, 12), (36, 12), (48, 2)]
    for start, tile in tiles:
        equal(tile, kept[start : start + 12])
    chosen = [3, 49, 0, 3]
    equal(packed.take(chosen), kept[chosen])
    equal(packed.take(np.empty(0, np.int64)), kept[:0])
    assert (len(packed), packed.slots) == (50, {"global": 5, "part_1": 3})


def test_the_files_are_plain_arrays(tmp_path) -> None:
    rows = make(9)
    write(tmp_path, rows)
    values = np.fromfile(tmp_path / "embeddings.bin", "<f2").reshape(9, 8)
    np.testing.assert_array_equal(values, rows.concatenate().half().numpy())
    np.testing.assert_array_equal(
        np.fromfile(tmp_path / "visibility.bin", "<f4").reshape(9, 2), rows.visibility.numpy()
    )


def test_search_over_it_is_search_over_the_rows(tmp_path) -> None:
    rows, query, matcher = make(200).to(dtype=torch.float16), make(8, 1), VisibilityWeightedMatcher()
    found = exact_topk(query, write(tmp_path, rows), matcher, 5, tile_rows=16)
    expected = exact_topk(query, InMemoryRows(rows), matcher, 5)
    for q in range(8):
        np.testing.assert_array_equal(found.positions[q], expected.positions[q])
        np.testing.assert_array_equal(found.distances[q], expected.distances[q])


def test_giving_pages_back_changes_nothing(tmp_path) -> None:
    rows = PartEmbeddings(
        ("a",), (torch.randn(500, 1000, generator=torch.Generator().manual_seed(0)),), torch.ones(500, 1)
    )
    with PackedWriter(tmp_path, rows.widths, "float32") as writer:
        writer.append(rows)
    packed = PackedRows(tmp_path, resident=1 << 17)
    order = np.random.default_rng(0).permutation(500)
    for part in np.split(order, 50):
        equal(packed.take(part), rows[part])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells which pages of a file are held")
def test_pages_of_the_file_are_not_kept(tmp_path) -> None:
    def held() -> int:
        """KiB of embeddings.bin that this process holds."""
        lines, total, mine = Path("/proc/self/smaps").read_text().splitlines(), 0, False
        for line in lines:
            if "-" in line.split()[0] and not line.split()[0].endswith(":"):
                mine = str(tmp_path / "embeddings.bin") in line
            elif mine and line.startswith("Rss:"):
                total += int(line.split()[1])
        return total

    width, count = 1024, 4096  # 16 MiB
    with PackedWriter(tmp_path, {"a": width}, "float32") as writer:
        for _ in range(8):
            writer.append(PartEmbeddings(("a",), (torch.ones(count // 8, width),), torch.ones(count // 8, 1)))
    packed = PackedRows(tmp_path, resident=1 << 20)
    most = 0
    for _ in packed.tiles(512):
        most = max(most, held())
    assert most < 4096
    for start in range(0, count, 512):
        packed.take(np.arange(start, start + 64))
        packed.take(np.arange(start + 256, start + 320))
        most = max(most, held())
    assert most < 8192  # the kernel may map more around a page than was asked for


def test_nothing_written_is_an_empty_source(tmp_path) -> None:
    with PackedWriter(tmp_path, {"global": 5, "part_1": 3}):
        pass
    packed = PackedRows.open(tmp_path)
    assert (len(packed), list(packed.tiles(4)), len(packed.take([]))) == (0, [], 0)


def test_a_writer_that_failed_leaves_nothing_that_opens(tmp_path) -> None:
    with pytest.raises(EmbeddingError, match="slots do not fit"), PackedWriter(tmp_path, make(1).widths) as writer:
        writer.append(make(4).select(["global"]))
    with pytest.raises(GalleryError, match=r"packed\.json"):
        PackedRows.open(tmp_path)
    write(tmp_path, make(5))  # and is written over


def test_refusals(tmp_path) -> None:
    rows = make(6)
    write(tmp_path / "full", rows)
    with pytest.raises(GalleryError, match="holds packed rows already"):
        PackedWriter(tmp_path / "full", rows.widths)
    with pytest.raises(ShapeError, match="float16 or float32"):
        PackedWriter(tmp_path / "other", rows.widths, "int8")
    (tmp_path / "file").write_text("")
    with pytest.raises(GalleryError, match="could not be written"):
        PackedWriter(tmp_path / "file", rows.widths)
    writer = PackedWriter(tmp_path / "more", rows.widths)
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        writer.append(rows.select(["part_1"]))
    with pytest.raises(EmbeddingError, match=r"float16 cannot hold these rows.*65504"):
        writer.append(PartEmbeddings(rows.names, tuple(1e6 * e for e in rows.embeddings), rows.visibility))
    writer.append(rows)
    writer.close()
    equal(PackedRows.open(tmp_path / "more").take([5]), rows.to(dtype=torch.float16)[[5]])


def test_damage_is_named(tmp_path) -> None:
    write(tmp_path, make(6))
    described = (tmp_path / "packed.json").read_text()
    for wrong, message in [
        (described.replace('"format": 1', '"format": 2'), "this version reads 1"),
        (described.replace('"rows": 6', '"rows": 7'), "has 48 bytes; 56 were written"),
        (described.replace("float16", "float99"), "holds no packed rows"),
        ("[]", "holds no packed rows"),
        ("{", "could not be read"),
    ]:
        (tmp_path / "packed.json").write_text(wrong)
        with pytest.raises(GalleryError, match=message):
            PackedRows.open(tmp_path)
    (tmp_path / "packed.json").write_text(described)
    (tmp_path / "visibility.bin").unlink()
    with pytest.raises(GalleryError, match=r"visibility\.bin' could not be opened"):
        PackedRows.open(tmp_path)
