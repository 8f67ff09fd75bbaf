"""Addresses of object stores, against the ones that LanceDB has without a network: memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lancedb
import pytest

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.object_store import ObjectStoreGallery, RemoteStore

Rows = Callable[..., PartEmbeddings]


@pytest.fixture
def address(tmp_path: Path) -> str:
    name = "".join(letter for letter in tmp_path.name if letter.isalnum())
    return f"shared-memory://{name}/mall"


def test_it_adds_removes_and_searches_as_a_folder_does(address: str, tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(9)
    places = (address, tmp_path / "folder")
    assert not Gallery.exists(address)
    for place in places:
        gallery = Gallery.create(place, slots=rows.widths, fingerprint="sorn@12")
        gallery.add(rows[:6], keys=list("abcdef"), camera=[1, 2, 3, 1, 2, 3])
        assert gallery.remove(["b"]) == 1
        assert gallery.add(rows[6:9], keys=["g", "a", "h"], camera=[1, 2, 2], replace=True).replaced == 1
        assert gallery.add(rows[6:7], keys=["g"], camera=[1]).skipped == 1
    assert Gallery.exists(address)
    one, other = (Gallery.open(place) for place in places)
    assert isinstance(one, ObjectStoreGallery)
    assert (len(one), one.manifest.fingerprint, str(one.path)) == (7, "sorn@12", address)
    for where in (None, {"camera": [1, 2]}):
        assert one.search(rows, 5, where=where) == other.search(rows, 5, where=where)
    assert [version.images for version in one.versions()] == [0, 6, 5, 7]
    old = Gallery.open(address, version=2)
    assert len(old) == 6
    with pytest.raises(GalleryError, match="for reading only"):
        old.remove("a")


def test_what_an_object_store_does_not_give_is_refused(address: str, make_rows: Rows, model: object) -> None:
    with pytest.raises(GalleryError, match="there is no gallery"):
        Gallery.open(address)
    gallery = Gallery.create(address, slots=make_rows(1).widths)
    for name, arguments in (("verify", ()), ("compact", (1,)), ("erase", ("a",)), ("build_index", ())):
        with pytest.raises(GalleryError, match=rf"{name}\(\) is for galleries in a folder"):
            getattr(gallery, name)(*arguments)
    with pytest.raises(GalleryError, match="is a gallery already; open it"):
        Gallery.create(address, slots={"other": 3})
    with pytest.raises(GalleryError, match="could not be opened"):
        Gallery.open(address, version=99)
    assert Gallery.open(address).manifest.slots == make_rows(1).widths


def test_addresses_that_lead_nowhere() -> None:
    with pytest.raises(GalleryError, match="foo://x' could not be created"):
        Gallery.create("foo://x", slots={"a": 1})
    with pytest.raises(GalleryError, match="there is no gallery 'foo://x', or its store does not answer"):
        Gallery.open("foo://x")
    with pytest.raises(GalleryError, match="does not answer"):
        Gallery.exists("foo://x")


def test_a_table_of_somebody_else_is_no_gallery(address: str) -> None:
    lancedb.connect(address).create_table("images", [{"a": 1}])
    with pytest.raises(GalleryError, match="does not describe a gallery"):
        Gallery.open(address)


def test_a_second_writer_is_noticed(address: str, make_rows: Rows) -> None:
    rows = make_rows(4)
    gallery = Gallery.create(address, slots=rows.widths)
    store = RemoteStore(address)

    def write_both() -> None:
        with store.committing() as table:
            gallery.add(rows[:1], keys=["a"])
            table.add(lancedb.connect(address).open_table("images").to_arrow())

    with pytest.raises(GalleryLockedError, match=r"from version 1 to 3 in one write.*may be there twice"):
        write_both()
    assert len(Gallery.open(address)) == 2
    with store.writing():
        assert store.version == 3
    assert gallery.remove("a") == 2
