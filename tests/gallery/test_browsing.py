"""Looking into a gallery, asking for what is in it, and putting labels right."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.gallery import KEEP, Gallery, GalleryImage, mean_query

Rows = Callable[..., PartEmbeddings]
SLOTS = {"global": 8, "part_1": 5, "part_2": 5}


@pytest.fixture
def filled(tmp_path: Path, make_rows: Rows) -> Gallery:
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    rows = make_rows(6)
    labels: dict[str, Any] = {
        "identity": ["anna", None, "ben", "anna", None, None],
        "camera": ["hall", 3, None, "hall", "door", 3],
        "time": [5, None, 1.5, 7, 8, 9],
        "track": ["t1", "t1", None, "t2", None, None],
        "metadata": [{"n": n} for n in range(6)],
    }
    gallery.add(rows[:4], keys=list("dcba"), **{name: values[:4] for name, values in labels.items()})
    gallery.add(rows[4:], keys=list("fe"), **{name: values[4:] for name, values in labels.items()})
    return gallery


def keys(images: Any) -> str:
    return "".join(image.key for image in images)


def test_list(filled: Gallery) -> None:
    assert keys(filled.list()) == "dcbafe"  # in the order of the gallery
    assert keys(filled.list(limit=2)) == "dc"
    assert keys(filled.list(offset=4, limit=9)) == "fe"
    assert keys(filled.list(limit=0)) == keys(filled.list(offset=6)) == ""
    assert keys(filled.list({"identity": None})) == "cfe"
    assert keys(filled.list("camera = 'hall' OR time < 2")) == "dba"
    assert filled.list(limit=1)[0] == GalleryImage("d", "anna", 1000, "hall", 5.0, "t1", None, None, {"n": 0})
    assert json.loads(json.dumps(filled.list(limit=2)[1].to_dict()))["camera"] == 3
    for wrong in ({"limit": -1}, {"offset": 1.0}, {"limit": True}):
        with pytest.raises(GalleryError, match="give a whole number from 0 on"):
            filled.list(**wrong)  # type: ignore[arg-type]
    filled.remove("c")
    assert keys(filled.list()) == "dbafe"


def test_get(filled: Gallery, make_rows: Rows) -> None:
    found = filled.get("a")
    assert (found.key, found.identity, found.camera_name, found.metadata) == ("a", "anna", "hall", {"n": 3})
    assert found.embeddings is not None
    assert torch.equal(found.embeddings.visibility, make_rows(6)[3:4].visibility)
    assert torch.equal(found.embeddings.slot("part_1").float(), make_rows(6)[3:4].slot("part_1"))
    for key in ("none", "", "\udcff", 7):
        with pytest.raises(GalleryError, match=r"not in the gallery|give a text that UTF-8 can hold"):
            filled.get(key)  # type: ignore[arg-type]


def test_info(filled: Gallery) -> None:
    filled.name_cameras({"yard": 3, "gate": 4})
    info = filled.info()
    assert (info.images, info.identities, info.unidentified, info.tracks) == (6, 2, 3, 2)
    assert info.times == (1.5, 9.0)
    assert [(c.number, c.name, c.images) for c in info.cameras] == [
        (3, "yard", 2),
        (4, "gate", 0),
        (1000, "hall", 2),
        (1001, "door", 1),
        (None, None, 1),
    ]
    assert (info.slots, info.dtype, info.model, info.index, info.calibrated) == (SLOTS, "float16", None, None, False)
    assert info.version == filled.version
    assert info.versions == len(filled.versions())
    assert info.bytes == sum(file.stat().st_size for file in filled.path.rglob("*") if file.is_file())
    assert json.loads(json.dumps(info.to_dict()))["cameras"][0] == {"number": 3, "name": "yard", "images": 2}
    text = "\n".join(info.lines())
    assert "cameras: 4 (yard: 2, gate: 0, hall: 2, door: 1); 1 images without" in text
    assert "people: 2 with a name; 3 images without" in text
    filled.build_index("Flat")
    index = filled.info().index
    assert index is not None
    assert "index: " in "\n".join(filled.info().lines())


def test_info_of_nothing(tmp_path: Path) -> None:
    info = Gallery.create(tmp_path / "g", slots=SLOTS).info()
    assert (info.images, info.times, info.cameras) == (0, None, ())
    assert "cameras: 0; 0 images without" in info.lines()


def test_relabel_changes_what_is_said_and_nothing_else(filled: Gallery, make_rows: Rows) -> None:
    before = {image.key: filled.get(image.key) for image in filled.list()}
    order, version = keys(filled.list()), filled.version
    assert filled.relabel(["c", "e", "a"], identity=["carl", "carl", "anna"]) == 2
    assert keys(filled.list()) == order
    assert filled.version > version
    assert [image.identity for image in filled.list()] == ["anna", "carl", "ben", "anna", None, "carl"]
    after = {image.key: filled.get(image.key) for image in filled.list()}
    for key, image in after.items():
        old = before[key]
        assert (image.camera, image.time, image.track, image.metadata) == (
            old.camera,
            old.time,
            old.track,
            old.metadata,
        )
        assert image.embeddings is not None
        assert old.embeddings is not None
        for slot, kept in zip(image.embeddings.embeddings, old.embeddings.embeddings, strict=True):
            assert torch.equal(slot, kept)
    # The same again changes nothing, and makes no version.
    version = filled.version
    assert filled.relabel(["c", "e", "a"], identity=["carl", "carl", "anna"]) == 0
    assert filled.version == version
    assert filled.relabel("c", camera="attic", time=datetime(1970, 1, 1, 0, 1, tzinfo=UTC), track=7, metadata=None) == 1
    changed = filled.get("c")
    assert (changed.identity, changed.camera_name, changed.time, changed.track, changed.metadata) == (
        "carl",
        "attic",
        60.0,
        "7",
        {},
    )
    assert filled.relabel(list("dcbafe"), camera=None, identity=KEEP) == 5
    assert {image.camera for image in filled.list()} == {None}
    # An older version still holds what was said before; the newest is sound, and searched as before.
    with Gallery.open(filled.path, version=version) as old_version:
        assert old_version.get("c").camera == 3
        with pytest.raises(GalleryError, match="for reading only"):
            old_version.relabel("c", identity="x")
    assert filled.verify().ok
    assert [version.action for version in filled.versions()][-1] == "relabel 5"
    query = make_rows(1, 3)
    assert [hit.identity for hit in filled.search(query, where={"key": "c"})[0]] == ["carl"]


def test_relabel_is_refused_whole(filled: Gallery) -> None:
    before, version, cameras = filled.list(), filled.version, filled.cameras
    for given, labels, why in (
        (["a", "none"], {"identity": "x", "camera": "new"}, r"1 of 2 keys are not in .*'none'"),
        (["a", "b"], {"identity": ["x"]}, "identity has 1 values for 2 images"),
        (["a", "b"], {"time": [1, "noon"]}, r"time of 'b' is 'noon'.*number 1, counted from 0"),
        (["a", "a"], {"identity": "x"}, "'a' stand.* twice"),
        (["a"], {}, "nothing to say"),
        (["a", 7], {"identity": "x"}, "keys: number 1 is 7"),
    ):
        with pytest.raises(GalleryError, match=why):
            filled.relabel(given, **labels)  # type: ignore[arg-type]
    assert (filled.list(), filled.version, filled.cameras) == (before, version, cameras)
    with Gallery.open(filled.path) as other, other._opened().writing(), pytest.raises(GalleryLockedError):
        filled.relabel("a", identity="x")


def test_relabel_in_parts_is_one_version(filled: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occluded_reid.gallery.storage.relabel._NUMBERS", 2 * sum(SLOTS.values()))
    count = len(filled.versions())
    assert filled.relabel(list("abcdef"), track="all") == 6
    assert len(filled.versions()) == count + 1
    assert {image.track for image in filled.list()} == {"all"}
    with Gallery.open(filled.path) as again:
        assert keys(again.list()) == "dcbafe"
        assert again.verify().ok


def test_an_index_knows_relabelled_images(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(200)
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        gallery.add(rows, keys=[f"k{i}" for i in range(200)])
        gallery.build_index("Flat")
        wanted = [hit.key for hit in gallery.search(rows[5:6], 7, effort=(200, 1))[0]]
        gallery.relabel(wanted[1:3], identity="anna")
        found = gallery.search(rows[5:6], 7, effort=(200, 1))[0]
        assert [hit.key for hit in found] == wanted
        assert [hit.identity for hit in found[:4]] == [None, "anna", "anna", None]
        assert gallery.index is not None
        assert (gallery.index.rows, gallery.index.new, gallery.index.removed) == (200, 0, 0)


def test_an_object_store_is_looked_into_and_relabelled(tmp_path: Path, make_rows: Rows) -> None:
    from occluded_reid.gallery.object_store import ObjectStoreGallery, RemoteStore
    from occluded_reid.gallery.storage.manifest import Manifest
    from occluded_reid.matchers import VisibilityWeightedMatcher

    (tmp_path / "bucket").mkdir()
    address = f"file://{os.fspath(tmp_path / 'bucket' / 'mall')}"
    matcher = VisibilityWeightedMatcher()
    manifest = Manifest(created="2024-01-01", slots=SLOTS, matcher=matcher.config)
    RemoteStore.create(address, manifest)
    with ObjectStoreGallery(RemoteStore(address, manifest), matcher, None) as gallery:
        gallery.add(make_rows(3), keys=list("abc"), camera=["hall", 1, None])
        assert gallery.relabel(["a", "c"], identity="anna") == 2
        assert [(i.key, i.identity, i.camera_name) for i in gallery.list()] == [
            ("a", "anna", "hall"),
            ("b", None, None),
            ("c", "anna", None),
        ]
        assert gallery.get("b").camera == 1
        assert gallery.info().identities == 1
        assert [hit.key for hit in gallery.search(key="a")[0]].count("a") == 0


def test_search_by_key(filled: Gallery, make_rows: Rows) -> None:
    rows = make_rows(6)
    with_itself = [hit.key for hit in filled.search(rows[3:4], 10)[0]]
    assert with_itself[0] == "a"
    assert [hit.key for hit in filled.search(key="a")[0]] == with_itself[1:]
    several = filled.search(key=["a", "d"], k=3)
    assert [hit.key for hit in several[0]] == with_itself[1:4]
    assert [hit.distance for hit in several[1]] == [hit.distance for hit in filled.search(rows[:1], 4)[0]][1:]
    assert filled.search(key="a", exclude_self=False)[0][0].key == "a"
    (together,) = filled.search(key=["a", "d"], combine=True)
    assert {hit.key for hit in together} == set("bcef")
    filled.build_index("Flat")
    assert [hit.key for hit in filled.search(key="a", effort=(10, 1))[0]] == with_itself[1:]
    with pytest.raises(GalleryError, match="'none'"):
        filled.search(key="none")
    with pytest.raises(GalleryError, match="give either a query"):
        filled.search()
    with pytest.raises(GalleryError, match="give either a query"):
        filled.search(rows[:1], key="a")


def test_search_by_key_needs_no_model(tmp_path: Path, model: Any, pictures: list[Path]) -> None:
    with Gallery.create(tmp_path / "g", model=model) as gallery:
        gallery.add(pictures, keys=[path.name for path in pictures])
        gallery.add(pictures[:1], keys=["twin.png"])  # the same image under another key is left out, too
    with Gallery.open(tmp_path / "g") as gallery:
        assert {hit.key for hit in gallery.search(key="0.png")[0]} == {path.name for path in pictures[1:]}


def test_several_tracklets(tmp_path: Path, model: Any, pictures: list[Path]) -> None:
    from PIL import Image

    with Gallery.create(tmp_path / "g", model=model, dtype="float32") as gallery:
        gallery.add(pictures, keys=[path.name for path in pictures])
        tracklets = [pictures[:3], [pictures[3]], pictures[4:6]]
        answers = [
            [(hit.key, pytest.approx(hit.distance)) for hit in hits]
            for hits in gallery.search(tracklets, 5, batch_size=2)
        ]
        for batch_size in (1, 4, 64):
            found = gallery.search(tracklets, 5, batch_size=batch_size)
            assert [[(hit.key, hit.distance) for hit in hits] for hits in found] == answers
        for tracklet, hits in zip(tracklets, found, strict=True):
            (alone,) = gallery.search(tracklet, 5, combine=True)
            assert [hit.key for hit in alone] == [hit.key for hit in hits]
            assert not {path.name for path in tracklet} & {hit.key for hit in hits}
        assert len(gallery.search(tracklets, 5, exclude_self=False)[0]) == 5
        mixed = [[Image.open(pictures[0]), np.asarray(Image.open(pictures[1]))], (pictures[2],)]
        assert [len(hits) for hits in gallery.search(mixed, 9)] == [6, 6]  # one of them is known by its file
        stacked = [np.stack([np.asarray(Image.open(path)) for path in pictures[:3]])]
        assert [hit.key for hit in gallery.search(stacked, 9, exclude_self=False)[0]] == [
            hit.key for hit in gallery.search([pictures[:3]], 9, exclude_self=False)[0]
        ]
        rows = gallery.get("0.png").embeddings
        other = gallery.get("1.png").embeddings
        assert rows is not None
        assert other is not None
        both = PartEmbeddings.cat([rows, other])
        found = gallery.search([both, rows], 3)
        assert [hit.key for hit in found[0]] == [hit.key for hit in gallery.search(mean_query(both), 3)[0]]
        assert [hit.key for hit in found[1]] == [hit.key for hit in gallery.search(rows, 3)[0]]
        assert gallery.search(tracklets, 2, query_camera=[1, None, 2])[0]
        for wrong, why in (
            ([pictures[:2], pictures[2]], "query number 1 is an image"),
            ([pictures[:2], []], "query number 1 is a tracklet of no images"),
            ([rows, pictures[2]], "query number 1 is PosixPath"),
            ([rows, rows[:0]], "query number 1 is embeddings of no image"),
        ):
            with pytest.raises(GalleryError, match=why):
                gallery.search(wrong)  # type: ignore[arg-type]
        with pytest.raises(GalleryError, match="2 values for 3 queries"):
            gallery.search(tracklets, query_camera=[1, 2])


def test_values_of_other_types(tmp_path: Path, make_rows: Rows) -> None:
    east = timezone(timedelta(hours=2))
    noon = datetime(2024, 5, 1, 12)
    seconds = noon.replace(tzinfo=UTC).timestamp()
    given: list[Any] = [noon, noon.replace(hour=14, tzinfo=east), np.datetime64("2024-05-01T12:00:00.000000000"), 3]
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        gallery.add(
            make_rows(4), keys=list("abcd"), time=given, identity=[7, np.int32(7), "7", None], track=np.arange(4)
        )
        assert [image.time for image in gallery.list()] == [seconds] * 3 + [3.0]
        assert [image.identity for image in gallery.list()] == ["7", "7", "7", None]
        assert [image.track for image in gallery.list()] == ["0", "1", "2", "3"]
        gallery.add(make_rows(1, 5), keys=["f"], time=np.datetime64("NaT"))
        assert gallery.get("f").time is None
        gallery.add(make_rows(1, 1), keys=["e"], time=noon, identity=7, track=np.int64(3))
        assert (gallery.get("e").time, gallery.get("e").identity, gallery.get("e").track) == (seconds, "7", "3")
        rows = make_rows(2, 2)
        for labels, why in (
            (
                {"identity": ["a", 1.5]},
                r"identity of 'y' is 1\.5; give a text, a whole number or None \(it is number 1",
            ),
            ({"identity": ["a", True]}, "identity of 'y' is True"),
            ({"track": ["a", b"b"]}, "track of 'y' is b'b'"),
            ({"time": [1, "noon"]}, "time of 'y' is 'noon'; give a finite number, a datetime or None"),
            ({"time": [1, 10**400]}, r"time of 'y' is 1000.*…;"),
            ({"time": [1, 10**5000]}, "time of 'y' is a int of very many digits"),
            ({"time": [1, True]}, "time of 'y' is True"),
            ({"path": ["a", 1]}, "path of 'y' is 1; give a text or None"),
            ({"metadata": [{}, {"f": "\udcff"}]}, "metadata of 'y' cannot be kept"),
        ):
            with pytest.raises(GalleryError, match=why):
                gallery.add(rows, keys=["x", "y"], **labels)  # type: ignore[arg-type]
