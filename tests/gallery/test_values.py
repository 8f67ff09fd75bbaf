"""Odd values at every door of a gallery: each is an error of ours, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import CalibrationError, GalleryError
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.storage.store import Store

Rows = Callable[..., PartEmbeddings]


@pytest.fixture
def gallery(tmp_path: Path, make_rows: Rows) -> Gallery:
    gallery = Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    gallery.add(
        make_rows(10),
        keys=[f"k{i}" for i in range(10)],
        camera=[i % 2 for i in range(10)],
        identity=[str(i % 2) for i in range(10)],
    )
    return gallery


@pytest.mark.parametrize(
    "camera",
    [
        True,
        "1",
        "cam1",
        ["1"],
        [float("nan")],
        1.5,
        [1.5],
        [[1]],
        [{}],
        b"1",
        [b"1"],
        1 << 70,
        [1, 2],
        {1: 2},
        Ellipsis,
    ],
    ids=repr,
)
def test_a_query_camera_of_another_type_is_refused(gallery: Gallery, make_rows: Rows, camera: Any) -> None:
    with pytest.raises(GalleryError, match="query_camera"):
        gallery.search(make_rows(1), query_camera=camera)


@pytest.mark.parametrize("identity", [1, True, [1], 1.0, [np.int64(1)], [["1"]], b"1", ["1", "2"], {}], ids=repr)
def test_a_query_identity_of_another_type_is_refused(gallery: Gallery, make_rows: Rows, identity: Any) -> None:
    with pytest.raises(GalleryError, match="query_identity"):
        gallery.search(make_rows(1), query_camera=1, query_identity=identity)


@pytest.mark.parametrize(
    "camera",
    [1, np.int32(1), np.array(1), np.array([1]), torch.tensor([1]), torch.tensor(1), (1,), range(1, 2), 1.0, {1}],
    ids=repr,
)
def test_numbers_of_any_make_leave_out_the_camera(gallery: Gallery, make_rows: Rows, camera: Any) -> None:
    found = {hit.camera for hit in gallery.search(make_rows(1), 99, query_camera=camera)[0]}
    assert found == {0}
    both = gallery.search(make_rows(2), 99, query_camera=[1, None], query_identity=np.array(["1", "x"]))
    assert [{hit.camera for hit in hits} for hits in both] == [{0}, {0, 1}]


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"k": 1.0},
        {"k": True},
        {"k": "3"},
        {"k": np.array([1, 2])},
        {"k": 10**400},
        {"effort": np.array([1, 2])},
        {"effort": float("nan")},
        {"effort": (1, True)},
        {"effort": (0, 1)},
        {"effort": [1, 1]},
        {"group_by": np.array(["identity"])},
        {"group_by": ["identity"]},
        {"where": {"camera": 10**400}},
        {"where": {"camera": True}},
        {"where": {"identity": 1.5}},
        {"where": {1: 2}},
        {"where": ["camera = 1"]},
        {"rerank": np.array([1, 2])},
        {"query_identity": "1"},
    ],
    ids=repr,
)
def test_odd_values_of_a_search(gallery: Gallery, make_rows: Rows, options: dict[str, Any]) -> None:
    with pytest.raises(GalleryError):
        gallery.search(make_rows(1), **options)


@pytest.mark.parametrize("threshold", [np.array([0.1, 0.2]), "near", float("nan"), [1.0], {}], ids=repr)
def test_odd_thresholds(gallery: Gallery, make_rows: Rows, threshold: Any) -> None:
    with pytest.raises(CalibrationError, match="threshold is"):
        gallery.search(make_rows(1), threshold=threshold)


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize(
    "labels",
    [
        {"time": 10**400},
        {"time": "noon"},
        {"metadata": [{"file": "\udcff.jpg"}]},
        {"metadata": [{"\udcff": 1}]},
        {"metadata": [{"a": datetime(2026, 11, 29, 10, 26, tzinfo=UTC)}]},
        {"metadata": [{"a": float("nan")}]},
        {"camera": 10**400},
        {"camera": b"1"},
        {"camera": datetime(2026, 11, 29, 10, 26, tzinfo=UTC)},
        {"identity": 1.5},
        {"track": b"1"},
        {"time": b"1"},
        {"keys": b"1"},
        {"keys": 1},
        {"keys": None},
        {"identity": "\udcff"},
        {"wait": None},
        {"wait": "1"},
        {"wait": float("nan")},
        {"wait": -1},
        {"wait": 10**400},
        {"batch_size": 0},
        {"batch_size": None},
        {"batch_size": 1.5},
    ],
    ids=repr,
)
def test_odd_values_of_an_addition(gallery: Gallery, make_rows: Rows, labels: dict[str, Any]) -> None:
    before = gallery.version
    with pytest.raises(GalleryError) as refused:
        gallery.add(make_rows(11)[10:], **{"keys": ["new"], **labels})
    assert len(str(refused.value)) < 400
    assert (gallery.version, len(gallery)) == (before, 10)


@pytest.mark.parametrize("depth", [100, 50_000])
def test_metadata_goes_so_deep_and_no_deeper(gallery: Gallery, make_rows: Rows, depth: int) -> None:
    with pytest.raises(GalleryError, match="metadata of 'new'"):
        gallery.add(make_rows(11)[10:], keys=["new"], metadata=[nested(depth)])
    gallery.add(make_rows(11)[10:], keys=["new"], metadata=[nested(99)])
    assert gallery.search(make_rows(11)[10:], 1)[0][0].metadata == nested(99)


def test_embeddings_that_want_a_gradient_are_embeddings(gallery: Gallery, make_rows: Rows) -> None:
    rows = make_rows(11)[10:]
    wanting = PartEmbeddings(rows.names, tuple(e.clone().requires_grad_() for e in rows.embeddings), rows.visibility)
    assert gallery.add(wanting, keys=["new"]).added == 1
    assert gallery.search(wanting, 1)[0][0].key == "new"


@pytest.mark.parametrize("keys", [[1], [None], ["\udcff"], 5, None, b"k1", {"k1": 1}, [["k1"]]], ids=repr)
@pytest.mark.parametrize("what", ["remove", "erase"])
def test_keys_that_are_no_texts(gallery: Gallery, keys: Any, what: str) -> None:
    with pytest.raises(GalleryError, match="keys"):
        getattr(gallery, what)(keys)
    assert len(gallery) == 10


@pytest.mark.parametrize("version", [1.0, "1", True, 0, -1, [1], 10**400], ids=repr)
def test_odd_versions(gallery: Gallery, version: Any) -> None:
    with pytest.raises(GalleryError, match="version"):
        Gallery.open(gallery.path, version=version)
    assert Gallery.open(gallery.path, version=np.int64(2)).version == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "slots", [{"a": 2**31}, {"a": True}, {"a": 0}, {"a": 1.0}, {"\udcff": 2}, {"": 2}, {1: 2}, {}], ids=repr
)
def test_odd_slots(tmp_path: Path, slots: Any) -> None:
    with pytest.raises(GalleryError, match="slots"):
        Gallery.create(tmp_path / "new", slots=slots)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("path", ["a\0b", "x" * 300], ids=["NUL", "long"])
def test_odd_names_of_folders(tmp_path: Path, make_rows: Rows, path: str) -> None:
    for use in (Gallery.open, lambda p: Gallery.create(p, slots=make_rows(1).widths)):
        with pytest.raises(GalleryError):
            use(str(tmp_path / path))


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000], ids=["cut", "list", "deep"])
def test_metadata_that_another_program_has_damaged(gallery: Gallery, make_rows: Rows, text: str) -> None:
    store = Store(gallery.path, gallery.manifest)
    with store.writing():
        with store.committing() as table:
            table.update(where="key = 'k3'", values={"metadata": text})
        store.acknowledge("another program")
    with pytest.raises(GalleryError, match=r"the metadata of 'k3' is damaged: it is no JSON mapping"):
        Gallery.open(gallery.path).search(make_rows(1), 99)
