from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, GalleryError, GalleryMismatchError, ImageError
from occluded_reid.gallery import AddResult, Gallery, TableRows
from occluded_reid.gallery.storage.manifest import Manifest, describe_slots
from occluded_reid.gallery.storage.store import Store
from occluded_reid.matchers import Matcher, PlainMatcher

Rows = Callable[..., PartEmbeddings]


def stored(gallery: Gallery) -> PartEmbeddings:
    rows = TableRows(Store(gallery.path, gallery.manifest))
    return rows.take(range(len(rows)))


def keys_of(gallery: Gallery, query: PartEmbeddings) -> set[str]:
    return {hit.key for hit in gallery.search(query, 10_000)[0]}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_come_back_as_they_were_stored(tmp_path: Path, make_rows: Rows, dtype: Any) -> None:
    rows = make_rows(9)
    rows = PartEmbeddings(rows.names, tuple(e * 1.001 for e in rows.embeddings), rows.visibility * 0.7)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths, dtype=dtype)
    gallery.add(rows, keys=[str(i) for i in range(9)])
    back = stored(gallery)
    assert torch.equal(back.visibility, rows.visibility)
    for mine, given in zip(back.embeddings, rows.embeddings, strict=True):
        assert torch.equal(mine, given.half().float() if dtype == "float16" else given)


@pytest.mark.parametrize("tile", [1, 4, 7, 100])
def test_table_rows_are_tiled_and_taken_in_order(tmp_path: Path, make_rows: Rows, tile: int) -> None:
    rows = make_rows(23)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    for first in (0, 3, 4, 15):
        last = {0: 3, 3: 4, 4: 15, 15: 23}[first]
        gallery.add(rows[first:last], keys=[f"k{i}" for i in range(first, last)], camera=list(range(first, last)))
    gallery.remove(["k1", "k20"])
    kept = [i for i in range(23) if i not in (1, 20)]
    source = TableRows(Store(gallery.path, gallery.manifest))
    assert len(source) == len(kept)
    starts, sizes, tiles = zip(*((s, len(t), t) for s, t in source.tiles(tile)), strict=True)
    assert list(starts) == list(range(0, len(kept), tile))
    assert max(sizes) <= tile
    assert torch.equal(PartEmbeddings.cat(tiles).concatenate(), rows[kept].concatenate())
    some = [5, 0, 5, 9]
    assert torch.equal(source.take(some).concatenate(), rows[[kept[i] for i in some]].concatenate())
    assert [source.code_of("camera", c) for c in kept] == source.codes("camera").tolist()
    assert source.code_of("camera", 1) == source.code_of("camera", None) == -2
    assert source.passing("camera % 2 = 0").tolist() == [p for p, i in enumerate(kept) if i % 2 == 0]


def test_opening_and_searching_change_nothing(tmp_path: Path, make_rows: Rows, tree_hash: Callable[..., Any]) -> None:
    rows = make_rows(5)
    with Gallery.create(tmp_path / "g", slots=rows.widths) as gallery:
        gallery.add(rows, keys=list("abcde"))
        gallery.remove("c")
    before = tree_hash(tmp_path)
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.search(rows, 3, where="key <> 'a'", query_camera=1, group_by="identity")
        assert len(gallery) == 4
    with Gallery.open(tmp_path / "g", version=2) as gallery:
        gallery.search(rows, 3)
    for path in ("nowhere", "g/images.lance"):
        with pytest.raises(GalleryError):
            Gallery.open(tmp_path / path)
    with pytest.raises(GalleryError):
        Gallery.open(tmp_path / "g", version=99)
    assert tree_hash(tmp_path) == before


def test_adding_again_is_skipped_and_other_content_is_refused(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(6)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    labels: dict[str, Any] = {"camera": [1, 2, None, 4], "time": 3, "metadata": {"b": 1, "a": [2]}}
    assert gallery.add(rows[:4], keys=list("abcd"), **labels) == AddResult(4, 0, 0)
    version = gallery.version
    labels["metadata"] = {"a": [2], "b": 1}
    nearly = PartEmbeddings(rows.names, tuple(e * 1.00001 for e in rows.embeddings), rows.visibility)
    assert gallery.add(nearly[:4], keys=list("abcd"), path=list("wxyz"), **labels) == AddResult(0, 4, 0)
    assert gallery.version == version
    with pytest.raises(GalleryError, match=r"the 2 keys 'b', 'd' are in the gallery .* replace=True"):
        gallery.add(rows[[4, 5, 4, 5]], keys=["x", "b", "y", "d"])
    with pytest.raises(GalleryError, match="the key 'a' is in the gallery"):
        gallery.add(rows[:1], keys=["a"], camera=[9], time=3, metadata={"a": [2], "b": 1})
    assert gallery.version == version
    keys = ["d", "x", "a", "b"]
    result = gallery.add(
        rows[[5, 4, 0, 1]], keys=keys, replace=True, camera=[4, 4, 1, 2], time=3, metadata=labels["metadata"]
    )
    assert result == AddResult(added=1, skipped=2, replaced=1)
    assert len(gallery) == 5
    assert gallery.search(rows[5:6], 1)[0][0].key == "d"


def test_what_relabel_has_said_is_no_conflict_when_images_are_added_again(
    tmp_path: Path, pictures: list[Path], model: Any
) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    gallery.add(pictures[:3], keys=list("abc"), track="t1")
    gallery.relabel("a", identity="anna", camera="hall", time=5)
    result = gallery.add(pictures[:4], keys=list("abcd"))
    assert (result.added, result.skipped, result.replaced) == (1, 3, 0)
    kept = gallery.get("a")
    assert (kept.identity, kept.camera_name, kept.time, kept.track) == ("anna", "hall", 5.0, "t1")
    with pytest.raises(GalleryError, match=r"the key 'a' is in the gallery .* with relabel"):
        gallery.add(pictures[:1], keys=["a"], identity="ben")
    with pytest.raises(GalleryError, match="the key 'a' is in the gallery"):
        gallery.add(pictures[1:2], keys=["a"])
    assert gallery.add(pictures[:1], keys=["a"], replace=True).replaced == 1
    assert gallery.get("a").identity is None


def test_a_key_twice_in_one_call(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(3)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    assert gallery.add(rows[[0, 1, 0]], keys=["a", "b", "a"]) == AddResult(2, 1, 0)
    assert gallery.add(rows[[0, 1, 0]], keys=["a", "b", "a"]) == AddResult(0, 3, 0)
    for replace in (False, True):
        with pytest.raises(GalleryError, match="the key 'c' is given twice with different content"):
            gallery.add(rows[[0, 1, 2]], keys=["c", "d", "c"], replace=replace)
    assert len(gallery) == 2


def test_removed_images_are_hidden_and_may_return(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(6)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    gallery.add(rows, keys=list("abcdef"))
    reader = Gallery.open(tmp_path / "g")
    with pytest.raises(GalleryError, match=r"2 of 3 keys are not in the gallery .*'x', 'y'"):
        gallery.remove(["a", "y", "x"])
    assert len(gallery) == 6
    assert gallery.remove(["f", "b", "b"]) == 2
    assert gallery.remove([]) == 0
    assert keys_of(gallery, rows[:1]) == set("acde")
    assert keys_of(reader, rows[:1]) == set("abcdef")  # a reader stays at the version that it has opened
    assert gallery.add(rows[1:2], keys=["b"]).added == 1
    scan = Store(gallery.path, gallery.manifest).scan(["row"])
    assert len({number for batch in scan for number in batch.column("row").to_pylist()}) == 5
    assert keys_of(Gallery.open(tmp_path / "g"), rows[:1]) == set("abcde")


def test_two_handles_add_one_after_the_other(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(4)
    first = Gallery.create(tmp_path / "g", slots=rows.widths)
    second = Gallery.open(tmp_path / "g")
    first.add(rows[:2], keys=["a", "b"])
    assert second.add(rows[:3], keys=["a", "b", "c"]) == AddResult(1, 2, 0)
    assert first.remove("c") == 1
    assert len(Gallery.open(tmp_path / "g")) == 2


def test_images_are_embedded_once(tmp_path: Path, pictures: list[Path], model: Any) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    seen: list[tuple[int, int]] = []
    result = gallery.add(pictures, batch_size=3, identity="7", progress=lambda done, total: seen.append((done, total)))
    assert result == AddResult(7, 0, 0)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (7, 7)
    assert gallery.add([str(p) for p in pictures], identity="7") == AddResult(0, 7, 0)
    assert model.embedded == 7
    wanted = model.embed(model.preprocess(pictures))
    assert torch.equal(stored(gallery).concatenate(), wanted.concatenate().half().float())
    hit = gallery.search(pictures[0], 1, exclude_self=False)[0][0]
    assert hit.key == hit.path == pictures[0].as_posix()
    assert hit.identity == "7"
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(pictures[1])
    with pytest.raises(GalleryError, match=r"1.png' is in the gallery"):
        gallery.add(pictures, identity="7")
    assert gallery.add(pictures, identity="7", replace=True) == AddResult(0, 6, 1)


def test_arrays_and_pil_images_are_known_by_their_pixels(tmp_path: Path, model: Any) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    arrays = np.random.default_rng(0).integers(0, 200, (3, 6, 4, 3), dtype=np.uint8)
    assert gallery.add(arrays) == AddResult(3, 0, 0)
    assert gallery.add([Image.fromarray(a) for a in arrays]) == AddResult(0, 3, 0)
    assert gallery.add(arrays[0]) == AddResult(0, 1, 0)
    with pytest.raises(GalleryError, match="got int"):
        gallery.add([3])  # type: ignore[list-item]


def test_an_unreadable_image_is_named_and_nothing_of_its_group_added(
    tmp_path: Path, pictures: list[Path], model: Any
) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    pictures[4].write_bytes(pictures[4].read_bytes()[:30])
    missing = tmp_path / "missing.png"
    with pytest.raises(ImageError, match=r"4\.png"):
        gallery.add(pictures, batch_size=2)
    with pytest.raises(ImageError, match=r"missing\.png"):
        gallery.add([*pictures[:2], missing])
    assert len(gallery) == 0
    result = gallery.add([*pictures, missing], batch_size=2, skip_unreadable=True)
    assert (result.added, set(result.unreadable)) == (6, {pictures[4].as_posix(), missing.as_posix()})
    assert len(gallery) == 6
    assert gallery.search(pictures[5], 1, exclude_self=False)[0][0].key == pictures[5].as_posix()
    assert gallery.add([missing], skip_unreadable=True).added == 0


def test_an_image_that_gives_nan_is_named(tmp_path: Path, pictures: list[Path], model: Any) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    Image.fromarray(np.full((6, 4, 3), 255, np.uint8)).save(pictures[3])
    with pytest.raises(EmbeddingError, match=r"cannot embed '.*3\.png'.*NaN"):
        gallery.add(pictures)
    assert len(gallery) == 0
    with pytest.raises(EmbeddingError, match=r"3\.png"):
        gallery.search(pictures[3])


def test_numbers_that_float16_cannot_hold(tmp_path: Path) -> None:
    rows = PartEmbeddings(("a",), (torch.tensor([[1.0, 2.0], [7e4, 0.0]]),), torch.ones(2, 1))
    small = PartEmbeddings(("a",), (torch.tensor([[1e-9, 0.0]]),), torch.ones(1, 1))
    gallery = Gallery.create(tmp_path / "half", slots={"a": 2})
    with pytest.raises(GalleryError, match=r"slot 'a' of 'big' does not fit into float16.*7e.04.*float32"):
        gallery.add(rows, keys=["x", "big"])
    with pytest.raises(GalleryError, match="'tiny' does not fit"):
        gallery.add(small, keys=["tiny"])
    assert len(gallery) == 0
    assert Gallery.create(tmp_path / "full", slots={"a": 2}, dtype="float32").add(rows, keys=["x", "big"]).added == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "without keys"),
        ({"keys": ["a"]}, "keys has 1 values for 2 images"),
        ({"keys": ["a", ""]}, "number 1 is ''"),
        ({"keys": ["a", 3]}, "number 1 is 3"),
        ({"keys": ["a", "\udcff"]}, "number 1 is"),
        ({"keys": "ab"}, "keys is 'ab'"),
        ({"keys": ["a", "b"], "camera": [1]}, "camera has 1 values"),
        ({"keys": ["a", "b"], "camera": [1, 2.5]}, "camera of 'b' is 2.5; give a whole number"),
        ({"keys": ["a", "b"], "identity": [None, 2.5]}, "identity of 'b' is 2.5; give a text"),
        ({"keys": ["a", "b"], "time": [0, float("nan")]}, "time of 'b' is nan"),
        ({"keys": ["a", "b"], "metadata": [{}, {"x": object()}]}, "metadata of 'b' cannot be kept as JSON"),
        ({"keys": ["a", "b"], "metadata": [{}, 3]}, "metadata of 'b' is 3"),
        ({"keys": ["a", "b"], "batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, make_rows: Rows, arguments: dict[str, Any], message: str) -> None:
    gallery = Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    with pytest.raises(GalleryError, match=message):
        gallery.add(make_rows(2), **arguments)
    assert len(gallery) == 0


def test_embeddings_that_do_not_fit_are_refused(tmp_path: Path, make_rows: Rows) -> None:
    gallery = Gallery.create(tmp_path / "mall", slots=make_rows(1).widths, fingerprint="sorn@3f9a")
    with pytest.raises(GalleryMismatchError, match=r"sorn@3f9a \(global 8, part_1..2 5\); these .*\(global 8\)"):
        gallery.add(make_rows(1).select(["global"]), keys=["a"])
    with pytest.raises(GalleryMismatchError, match=r"\(global 8, part_1..2 4\)"):
        gallery.add(make_rows(1, slots={"global": 8, "part_1": 4, "part_2": 4}), keys=["a"])
    with pytest.raises(EmbeddingError, match="NaN"):
        gallery.add(PartEmbeddings(("a",), (torch.tensor([[torch.nan]]),), torch.ones(1, 1)), keys=["a"])


def test_the_wrong_model_is_refused_with_both_named(tmp_path: Path, model: Any, make_rows: Rows) -> None:
    Gallery.create(tmp_path / "mall", model=model).close()
    assert "fake@1234 (global 3, part_1 3)" in repr(Gallery.open(tmp_path / "mall", model=model))
    other = type(model)("fake@5678")
    other.slots = {"global": 3, "part_1": 3, "part_2": 3}
    with pytest.raises(GalleryMismatchError) as caught:
        Gallery.open(tmp_path / "mall", model=other)
    assert str(caught.value) == (
        f"the gallery '{tmp_path}/mall/' holds embeddings of fake@1234 (global 3, part_1 3); this model is fake@5678 "
        "(global 3, part_1..2 3). Open it with the model that built it, or index the images again."
    )
    other.slots = dict(model.slots)
    with pytest.raises(GalleryMismatchError, match="fake@5678"):
        Gallery.open(tmp_path / "mall", model=other)
    Gallery.create(tmp_path / "nameless", slots=model.slots).close()
    assert Gallery.open(tmp_path / "nameless", model=model).matcher.config["options"]["metric"] == "cosine"


def test_describe_slots() -> None:
    assert describe_slots({"part_1": 4, "part_2": 4, "part_4": 4, "a": 1, "b": 1}) == "part_1..2 4, part_4 4, a 1, b 1"
    assert describe_slots({"part_9": 4, "part_10": 4, "part_11": 5}) == "part_9..10 4, part_11 5"


def test_gallery_json_says_what_it_is(tmp_path: Path, model: Any) -> None:
    Gallery.create(tmp_path / "g", model=model, matcher=PlainMatcher(weights={"global": 2}), dtype="float32")
    content = json.loads((tmp_path / "g" / "gallery.json").read_text())
    assert (content["format"], content["format_version"]) == ("occluded_reid.gallery", 2)
    assert (content["name"], content["fingerprint"], content["dtype"]) == ("fake", "fake@1234", "float32")
    assert content["slots"] == {"global": 3, "part_1": 3}
    again = Gallery.open(tmp_path / "g", model=model)
    assert isinstance(again.matcher, PlainMatcher)
    assert again.matcher.config == content["matcher"]


def test_create_refuses_what_it_cannot_make(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    Gallery.create(tmp_path / "empty", model=model)
    for path, message in (
        ("full", "exists and is no gallery"),
        ("full/file", "exists and is no gallery"),
        ("empty", "is a gallery already; open it"),
        ("full/file/below", "could not be created: Not a directory"),
    ):
        with pytest.raises(GalleryError, match=message):
            Gallery.create(tmp_path / path, model=model)
    for arguments, message in (
        ({"fingerprint": "x@1"}, "either a model, or the slots"),
        ({"model": model, "slots": {"a": 1}}, "either a model, or the slots"),
        ({"model": model, "fingerprint": "x@1"}, "either a model, or the slots"),
        ({"slots": {}}, "slots are {}"),
        ({"slots": {"a": 0}}, "slots are {'a': 0}"),
        ({"slots": {"a": 1}, "dtype": "int8"}, "dtype is 'int8'"),
        ({"slots": {"a": 1}, "matcher": PlainMatcher(weights={"b": 2})}, "'b'"),
    ):
        with pytest.raises(GalleryError, match=message):
            Gallery.create(tmp_path / "new", **arguments)  # type: ignore[arg-type]

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(GalleryError, match="No space left"):
        Gallery.create(tmp_path / "new", model=model)
    assert {p.name for p in tmp_path.iterdir()} == {"full", "empty"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "could not be read as JSON"),
        ('{"a": 1}', "does not describe a gallery"),
        ("[]", "does not describe a gallery"),
        ({"format_version": 3}, "has format 3; this library reads formats up to 2. Update"),
        ({"slots": {"a": -1}}, "damaged: slots.a"),
        ({"dtype": None}, "damaged: dtype"),
        ({"slots": {f"s{i}": 2 for i in range(5)}}, "has not the columns"),
        ({"slots": {"global": 9, "part_1": 5, "part_2": 5}}, "has not the columns"),
        ({"matcher": {"type": "nobody", "options": {}}}, "matcher of the gallery.*nobody.*matcher="),
        ({"matcher": {}}, "matcher of the gallery"),
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, make_rows: Rows, change: Any, message: str) -> None:
    Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    file = tmp_path / "g" / "gallery.json"
    file.write_text(change if isinstance(change, str) else json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(GalleryError, match=message):
        Gallery.open(tmp_path / "g")


def test_a_folder_without_table_or_description_is_no_gallery(tmp_path: Path, make_rows: Rows) -> None:
    Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    (tmp_path / "g" / "images.lance").rename(tmp_path / "elsewhere")
    with pytest.raises(GalleryError, match="could not be opened"):
        Gallery.open(tmp_path / "g")
    (tmp_path / "g" / "gallery.json").unlink()
    with pytest.raises(GalleryError, match=r"is no gallery: it has no gallery.json"):
        Gallery.open(tmp_path / "g")
    with pytest.raises(GalleryError, match="there is no gallery"):
        Gallery.open(tmp_path / "nowhere")


def test_a_damaged_table_is_named(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(50)
    with Gallery.create(tmp_path / "g", slots=rows.widths) as gallery:
        gallery.add(rows, keys=[str(i) for i in range(50)])
    for file in (tmp_path / "g" / "images.lance" / "data").iterdir():
        file.write_bytes(b"")
    for where in (None, "time > 3"):
        with pytest.raises(GalleryError, match=r"could not be read.*Restore"):
            Gallery.open(tmp_path / "g").search(rows[:1], where=where)


def test_a_failing_commit_is_named_and_changes_nothing(tmp_path: Path, make_rows: Rows) -> None:
    gallery = Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    data = tmp_path / "g" / "images.lance" / "data"
    data.write_text("a file where a folder must be made, so that nothing can be written")
    with pytest.raises(GalleryError, match=r"could not be written: .* may be written to"):
        gallery.add(make_rows(2), keys=["a", "b"])
    data.unlink()
    assert len(Gallery.open(tmp_path / "g")) == 0
    assert gallery.add(make_rows(2), keys=["a", "b"]).added == 2


def test_a_closed_or_pinned_gallery_is_not_written(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(2)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    gallery.add(rows, keys=["a", "b"])
    old = Gallery.open(tmp_path / "g", version=1)
    assert len(old) == 0
    for change in (lambda: old.add(rows, keys=["c", "d"]), lambda: old.remove("a")):
        with pytest.raises(GalleryError, match="opened at version 1, for reading only"):
            change()
    gallery.close()
    gallery.close()
    assert "closed" in repr(gallery)
    for use in (lambda: gallery.search(rows), lambda: len(gallery), lambda: gallery.remove("a")):
        with pytest.raises(GalleryError, match="was closed"):
            use()


def test_a_matcher_that_is_not_registered_is_asked_for(tmp_path: Path, make_rows: Rows) -> None:
    class Own(PlainMatcher):
        @property
        def config(self) -> dict[str, Any]:
            return {"type": "own_of_this_test", "options": {}}

    own: Matcher = Own()
    Gallery.create(tmp_path / "g", slots=make_rows(1).widths, matcher=own)
    with pytest.raises(GalleryError, match=r"own_of_this_test.*Register it"):
        Gallery.open(tmp_path / "g")
    assert Gallery.open(tmp_path / "g", matcher=own).matcher is own


def test_layout_is_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="there is no gallery"):
        Manifest.read(tmp_path / "x")
