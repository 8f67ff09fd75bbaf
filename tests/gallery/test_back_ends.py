"""One contract for every back end: the same methods and defaults, and one error for what one of them cannot do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import occluded_reid.gallery
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import GalleryError, UnsupportedError
from occluded_reid.gallery import Gallery, LocalGallery, MilvusGallery, ObjectStoreGallery
from occluded_reid.gallery.base import GalleryBase
from occluded_reid.gallery.milvus.address import MilvusAddress
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.matchers import VisibilityWeightedMatcher

Rows = Callable[..., PartEmbeddings]
BACK_ENDS = [LocalGallery, ObjectStoreGallery, MilvusGallery]
METHODS = sorted(
    name
    for name in dir(Gallery)
    if not name.startswith("_") and inspect.isroutine(inspect.getattr_static(Gallery, name).__get__(None, Gallery))
)
FOLDERS_ONLY: dict[str, tuple[Any, ...]] = {
    "versions": (),
    "verify": (),
    "compact": (),
    "erase": ("a",),
    "estimate_index": (),
    "build_index": (),
    "calibrate": (cast(EmbeddedSet, None), cast(EmbeddedSet, None)),
    "keep_calibration": (None,),
    "build_neighbours": (),
}
OWN = {ObjectStoreGallery: {"versions"}, MilvusGallery: {"verify", "compact", "erase", "build_index"}}


@pytest.fixture
def opened(tmp_path: Path, make_rows: Rows) -> Callable[[type[Gallery]], Gallery]:
    """A gallery of a back end; that on a server is not connected, and fails where it calls one."""

    def make(kind: type[Gallery]) -> Gallery:
        widths = make_rows(1).widths
        if kind is MilvusGallery:
            matcher = VisibilityWeightedMatcher()
            manifest = Manifest(created="2024-01-01", slots=widths, matcher=matcher.config)
            server = SimpleNamespace(address=MilvusAddress.parse("milvus://nowhere:1/mall"))
            return MilvusGallery(cast(Any, server), manifest, matcher, None, device="cpu")
        name = "".join(letter for letter in tmp_path.name if letter.isalnum())
        place = tmp_path / "folder" if kind is LocalGallery else f"shared-memory://{name}/backends"
        return Gallery.create(place, slots=widths, device="cpu")

    return make


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", BACK_ENDS)
def test_signatures_and_defaults_are_the_gallerys(kind: type[Gallery], name: str) -> None:
    found, wanted = (inspect.signature(getattr(of, name)).parameters for of in (kind, Gallery))
    assert [(p.name, p.kind, p.default) for p in found.values()] == [
        (p.name, p.kind, p.default) for p in wanted.values()
    ]


def test_the_contract_names_what_galleries_do() -> None:
    assert {*FOLDERS_ONLY, "create", "open", "exists", "add", "remove", "search", "list", "get"} <= set(METHODS)
    assert inspect.isabstract(Gallery)
    with pytest.raises(TypeError, match="abstract"):
        cast(Any, Gallery)()


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_every_back_end_is_a_gallery(kind: type[Gallery], opened: Callable[[type[Gallery]], Gallery]) -> None:
    gallery = opened(kind)
    assert type(gallery) is kind
    assert isinstance(gallery, Gallery)
    assert isinstance(gallery, GalleryBase)
    assert kind.__mro__[1] is Gallery
    assert gallery.device.type == "cpu"
    assert gallery.calibration is None


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, own in OWN.items() for name in FOLDERS_ONLY if name not in own]
)
def test_what_a_back_end_cannot_do_is_one_error(
    kind: type[Gallery], name: str, opened: Callable[[type[Gallery]], Gallery]
) -> None:
    gallery = opened(kind)
    where = "in an object store" if kind is ObjectStoreGallery else "on a Milvus server"
    with pytest.raises(UnsupportedError) as caught:
        getattr(gallery, name)(*FOLDERS_ONLY[name])
    text = str(caught.value)
    assert text.startswith(f"{name}() is for galleries in a folder; '{gallery.path}' is {where}. ")
    assert text.endswith((" do it there.", " has made."))
    assert isinstance(caught.value, GalleryError)  # what users caught before


def test_what_a_server_cannot_do_of_what_it_does(
    opened: Callable[[type[Gallery]], Gallery], make_rows: Rows, tmp_path: Path
) -> None:
    gallery = opened(MilvusGallery)
    for options in ({"type": "other"}, {"seed": 3}, {"training_rows": 7}, {"options": {"a": 1}}):
        with pytest.raises(UnsupportedError, match=rf"build_index\({next(iter(options))}=.*Give a factory alone"):
            gallery.build_index("Flat", **cast(Any, options))
    with pytest.raises(UnsupportedError, match="Leave out caches"):
        gallery.erase("a", caches=[tmp_path])
    with pytest.raises(UnsupportedError, match=r"rerank= is for galleries in a folder.*leave it out"):
        gallery.search(make_rows(1), rerank=True)
    with pytest.raises(UnsupportedError, match=r"effort=0.98.*Give 'auto', 'exact', or a pair"):
        gallery.search(make_rows(1), effort=0.98)
    with pytest.raises(UnsupportedError, match=r"version=1.*keeps no older versions") as caught:
        Gallery.open("milvus://anna:secret@nowhere:1/mall", version=1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["s3://bucket/mall", "milvus://anna:secret@nowhere:1/mall"])
def test_reductions_are_for_folders(address: str, make_rows: Rows) -> None:
    rows = make_rows(9)
    with pytest.raises(UnsupportedError, match=r"reduce= is for galleries in a folder.*reduced already") as caught:
        Gallery.create(address, slots=rows.widths, reduce=dict.fromkeys(rows.widths, 2), sample=rows)
    assert "secret" not in str(caught.value)


def test_a_back_end_opens_only_its_own(tmp_path: Path, make_rows: Rows) -> None:
    folder = tmp_path / "mall"
    with LocalGallery.create(folder, slots=make_rows(1).widths) as gallery:
        assert isinstance(gallery, LocalGallery)
    with pytest.raises(GalleryError, match=r"is kept by LocalGallery, not ObjectStoreGallery\. Use Gallery"):
        ObjectStoreGallery.open(str(folder))
    assert LocalGallery.exists(folder)


def test_old_names_of_back_ends_work_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="RemoteGallery is called .*ObjectStoreGallery now"):
        assert occluded_reid.gallery.RemoteGallery is ObjectStoreGallery  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'NoGallery'"):
        _ = occluded_reid.gallery.NoGallery  # type: ignore[attr-defined]
