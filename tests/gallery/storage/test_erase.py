from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import DataError, GalleryError
from occluded_reid.gallery import Gallery, TableRows
from occluded_reid.gallery.storage import checksums, tasks
from occluded_reid.gallery.storage.links import links_below
from occluded_reid.gallery.storage.store import Store
from occluded_reid.models.cropping import CropCache

Rows = Callable[..., PartEmbeddings]
KEYS = [f"somebody-{i:03d}-{'qwertyuiopasdfghjklz'[i]}" for i in range(20)]


def fill(path: Path, rows: PartEmbeddings, count: int = 20) -> Gallery:
    gallery = Gallery.create(path, slots=rows.widths)
    for first in range(0, count, 5):
        part = slice(first, first + 5)
        gallery.add(
            rows[part],
            keys=KEYS[part],
            identity=[f"identity of {key}" for key in KEYS[part]],
            path=[f"/pictures/of/{key}.jpg" for key in KEYS[part]],
            track=[f"track of {key}" for key in KEYS[part]],
            metadata=[{"note": f"note on {key}"} for key in KEYS[part]],
        )
    return gallery


def traces(folder: Path, keys: list[str], rows: PartEmbeddings) -> set[str]:
    """Files that hold the name of an image, or the bytes of an embedding as it is stored."""
    wanted = [key.encode() for key in keys]
    wanted += [slot[i].half().numpy().tobytes() for slot in rows.embeddings for i in range(len(rows))]
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)) for file in files if any(text in file.read_bytes() for text in wanted)}


def stored(gallery: Gallery) -> tuple[list[str], torch.Tensor]:
    table = TableRows(Store(gallery.path, gallery.manifest))
    keys = table.records(range(len(table)), ["key"]).column("key").to_pylist()
    return keys, table.take(range(len(table))).concatenate()


def test_no_byte_is_left_of_an_erased_image(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(20)
    gallery = fill(tmp_path / "g", rows)
    gallery.remove([KEYS[7], KEYS[8]])
    gallery.add(rows[:1], keys=[KEYS[2]], replace=True)  # the row that it replaces is hidden, and must go as well
    index = gallery.path / "indexes" / "build"
    index.mkdir(parents=True)
    (index / "slot").write_bytes(rows.embeddings[0][3].half().numpy().tobytes())
    checksums.write(index)
    gone = [2, 3, 7, 11]
    names = [KEYS[i] for i in gone]
    kept = [i for i in range(20) if i not in (*gone, 8)]
    for i in gone:  # the search for bytes finds them, before: the name, and the embedding
        assert traces(gallery.path, [KEYS[i]], rows[:0])
        assert traces(gallery.path, [], rows[i : i + 1])
    result = gallery.erase([*names, names[0]])
    assert (result.images, result.indexes_dropped, result.crops_forgotten) == (4, ("build",), 0)
    assert result.versions_dropped == 6
    assert traces(gallery.path, names, rows[gone]) == set()
    assert traces(gallery.path, [KEYS[8]], rows[[8]]) == set()  # hidden before: what is hidden goes with it
    assert traces(gallery.path, [KEYS[kept[1]]], rows[:0])
    assert traces(gallery.path, [], rows[[kept[1]]])
    keys, embeddings = stored(gallery)
    assert keys == [KEYS[i] for i in kept]
    assert torch.equal(embeddings, rows[kept].concatenate())
    assert [version.images for version in gallery.versions()] == [15]
    assert gallery.versions()[0].action == "erase 4"
    for version in (1, 3, 6):
        with pytest.raises(GalleryError, match=f"has no version {version}"):
            Gallery.open(gallery.path, version=version)
    report = gallery.verify()
    assert (report.damaged, report.leftovers, report.unfinished) == ({}, (), False)
    assert gallery.add(rows[3:4], keys=[KEYS[3]]).added == 1


def test_an_unknown_key_stops_all(tmp_path: Path, make_rows: Rows, tree_hash: Callable[..., Any]) -> None:
    gallery = fill(tmp_path / "g", make_rows(20), 10)
    before = tree_hash(gallery.path)
    with pytest.raises(GalleryError, match=r"1 of 2 keys are in no version .*'nobody'\. Nothing was erased"):
        gallery.erase([KEYS[0], "nobody"])
    assert gallery.erase([]).images == 0
    assert tree_hash(gallery.path) == before
    gallery.remove(KEYS[4])
    gallery.compact(2)
    with pytest.raises(GalleryError, match=r"in no version .* compact\(keep_versions=1\) deletes what is left"):
        gallery.erase(KEYS[4])
    gallery.compact(1)
    assert traces(gallery.path, [KEYS[4]], make_rows(20)[[4]]) == set()
    old = Gallery.open(gallery.path, version=gallery.version)
    with pytest.raises(GalleryError, match="for reading only"):
        old.erase(KEYS[0])


@pytest.mark.parametrize("rows_at_a_time", [1, 3, 1000])
def test_survivors_are_moved_in_pieces(
    tmp_path: Path, make_rows: Rows, monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int
) -> None:
    monkeypatch.setattr("occluded_reid.gallery.storage.tasks._REWRITTEN_NUMBERS", 18 * rows_at_a_time)
    rows = make_rows(20)
    gallery = fill(tmp_path / "g", rows)
    assert gallery.erase([KEYS[0], KEYS[6]]).images == 2
    kept = [i for i in range(20) if i not in (0, 6)]
    keys, embeddings = stored(gallery)
    assert keys == [KEYS[i] for i in kept]
    assert torch.equal(embeddings, rows[kept].concatenate())
    assert traces(gallery.path, [KEYS[0], KEYS[6]], rows[[0, 6]]) == set()


def test_everybody_may_be_erased(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(20)
    gallery = fill(tmp_path / "g", rows)
    assert gallery.erase(KEYS).images == 20
    assert len(gallery) == 0
    assert traces(gallery.path, KEYS, rows) == set()
    assert gallery.add(rows[:1], keys=KEYS[:1]).added == 1


def pixels(picture: Path) -> bytes:
    with Image.open(picture) as image:
        return hashlib.sha256(f"{image.size}".encode() + image.convert("RGB").tobytes()).hexdigest().encode()


def test_caches_of_crops_forget_them(tmp_path: Path, model: Any, pictures: list[Path]) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    gallery.add(pictures)
    folder = tmp_path / "cache"
    images = [Image.open(path).convert("RGB") for path in pictures]
    for key in ("one parser", "another"):
        CropCache(folder, key).get(images, lambda some: [(0, 0, 2, 2)] * len(some))
    file = folder / "crops.sqlite"
    assert all(pixels(path) in file.read_bytes() for path in pictures)
    assert gallery.erase(pictures[2].as_posix(), caches=[folder]).crops_forgotten == 2
    assert pixels(pictures[2]) not in file.read_bytes()
    assert all(pixels(path) in file.read_bytes() for path in pictures if path != pictures[2])
    # A picture that has changed since can no longer be told from the others: the cache is emptied.
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(pictures[3])
    assert gallery.erase(pictures[3].as_posix(), caches=[folder]).crops_forgotten == 12
    assert not any(pixels(path) in file.read_bytes() for path in pictures)
    CropCache(folder, "one parser").get(images[:1], lambda some: [None] * len(some))
    pictures[4].unlink()
    assert gallery.erase(pictures[4].as_posix(), caches=[folder]).crops_forgotten == 1
    before = len(gallery)
    with pytest.raises(DataError, match=r"there is no cache of crops .*elsewhere"):
        gallery.erase(pictures[5].as_posix(), caches=[tmp_path / "elsewhere"])
    assert len(gallery) == before
    file.write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="could not be written"):
        gallery.erase(pictures[5].as_posix(), caches=[folder])


def test_an_erasure_follows_no_link(make_rows: Rows, tmp_path: Path) -> None:
    gallery = fill(tmp_path / "g", make_rows(20))
    gallery.build_index("Flat")
    indexes, elsewhere = gallery.path / "indexes", tmp_path / "elsewhere"
    build = next(indexes.glob("build-*"))
    build.rename(elsewhere)
    build.symlink_to(elsewhere)
    (elsewhere / "mine.txt").write_text("somebody's own")
    before = sorted(file.name for file in elsewhere.rglob("*"))
    key = KEYS[3]
    with pytest.raises(GalleryError, match=r"is a link to .*follows no links.*Nothing was erased") as refused:
        gallery.erase([key])
    assert str(build) in str(refused.value)
    assert not (gallery.path / "unfinished.json").exists()
    assert gallery.add(make_rows(40)[39:], keys=["after"]).added == 1
    assert sorted(file.name for file in elsewhere.rglob("*")) == before
    assert not list(links_below(indexes))  # the build that was linked was replaced by one of the gallery's own
    assert gallery.erase([key]).images == 1


def test_a_linked_folder_of_indexes_is_neither_written_nor_emptied(
    make_rows: Rows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = fill(tmp_path / "g", make_rows(20))
    gallery.build_index("Flat")
    gallery.build_neighbours(3)
    indexes, elsewhere = gallery.path / "indexes", tmp_path / "elsewhere"
    indexes.rename(elsewhere)
    indexes.symlink_to(elsewhere)
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "thesis.txt").write_text("somebody's own")
    before = {file: file.read_bytes() for file in elsewhere.rglob("*") if file.is_file()}
    key = KEYS[3]
    for write in (
        lambda: gallery.erase([key]),
        lambda: gallery.build_index("Flat"),
        lambda: gallery.build_neighbours(3),
    ):
        with pytest.raises(GalleryError, match="is a link"):
            write()
    assert {file: file.read_bytes() for file in elsewhere.rglob("*") if file.is_file()} == before
    # An erasure that a crash had broken off is finished: the link goes, and the log says what cannot be promised.
    tasks._drop_indexes(gallery.path)
    assert not indexes.is_symlink()
    assert "may hold copies of what is erased" in caplog.text
    assert {file: file.read_bytes() for file in elsewhere.rglob("*") if file.is_file()} == before
