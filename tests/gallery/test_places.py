"""Where a gallery lies: paths that survive a change of the working folder, addresses, and folders that are closed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from occluded_reid.data.dataset import load_dataset, require_folder
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.files import absolute, write_text
from occluded_reid.gallery import Gallery
from occluded_reid.models.cropping import CropCache
from occluded_reid.search.index.packed_rows import PackedRows, PackedWriter

Rows = Callable[..., PartEmbeddings]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Stands in one folder; the call goes to another, which must stay empty."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)

    def go() -> Path:
        monkeypatch.chdir(there)
        return here

    yield go
    assert list(there.iterdir()) == []


def test_a_gallery_stays_where_it_was_opened(elsewhere: Callable[[], Path], make_rows: Rows) -> None:
    rows = make_rows(4)
    Gallery.create("g", slots=rows.widths).close()
    gallery = Gallery.open("g")
    here = elsewhere()
    assert gallery.add(rows[:3], keys=list("abc")).added == 3
    assert gallery.remove("a") == 1
    gallery.build_index("Flat")
    gallery.compact(1)
    assert gallery.verify().ok
    assert {hit.key for hit in Gallery.open(here / "g").search(rows[:1], 9)[0]} == {"b", "c"}


def test_what_is_kept_for_later_is_kept_from_the_root_on(elsewhere: Callable[[], Path], make_rows: Rows) -> None:
    small = SyntheticOptions(train_identities=1, test_identities=1, cameras=2, distractors=0)
    made = generate("set", small)
    data = load_dataset("market1501", "set", own=True)
    cache = CropCache("crops", "key")
    with PackedWriter("packed", make_rows(1).widths) as writer:
        writer.append(make_rows(2))
    packed = PackedRows.open("packed")
    here = elsewhere()
    assert made == data.root == here / "set"
    assert all(sample.path.is_file() for sample in (*data.train, *data.query, *data.gallery))
    assert cache.path == here / "crops" / "crops.sqlite"
    assert packed.folder == here / "packed"
    assert len(packed.take([0, 1])) == 2


def test_a_file_goes_where_its_path_led_when_the_writing_began(
    tmp_path: Path, elsewhere: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (elsewhere(), real(handle))[1])
    write_text("note.txt", "words")
    assert (tmp_path / "here" / "note.txt").read_text(encoding="utf-8") == "words"


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(GalleryError, match=r"'g' is relative to the working folder, which is gone"):
        Gallery.open("g")
    assert absolute(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)


def test_a_file_address_is_the_folder(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(2)
    folder = tmp_path / "a mall"
    address = folder.as_uri()
    assert "%20" in address
    assert not Gallery.exists(address)
    gallery = Gallery.create(address, slots=rows.widths)
    gallery.add(rows, keys=["a", "b"])
    assert gallery.path == folder
    assert gallery.verify().ok
    assert Gallery.exists(address)
    assert len(Gallery.open(f"file://localhost{folder}".replace(" ", "%20"))) == 2


@pytest.mark.parametrize(
    "address", ["://", "://x", "c://x", "file://host/x", "file://x", "file-object-store:///x", "s 3://x"]
)
def test_what_only_looks_like_an_address_is_refused_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places: tuple[Callable[[], Any], ...] = (
        lambda: Gallery.open(address),
        lambda: Gallery.exists(address),
        lambda: Gallery.create(address, slots={"a": 1}),
    )
    for use in places:
        with pytest.raises(GalleryError, match=r"Give (one of these|the folder itself)"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_opening_what_is_not_there_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("nowhere", tmp_path / "nowhere", f"file://{tmp_path}/nowhere", "unheard://of"):
        with pytest.raises(GalleryError, match="there is no gallery"):
            Gallery.open(place)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder that may not be entered, for root as well, to whom the system opens everything."""
    real_stat, real_scandir = os.stat, os.scandir

    def guard(path: Any) -> None:
        if isinstance(path, str | Path) and (Path(path) == folder or folder in Path(path).parents):
            raise PermissionError(13, "Permission denied", str(path))

    def stat(path: Any, **options: Any) -> os.stat_result:
        if Path(path) != folder if isinstance(path, str | Path) else False:
            guard(path)
        return real_stat(path, **options)

    def scandir(path: Any = ".") -> Any:
        guard(path)
        return real_scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        patch.setattr(os, "scandir", scandir)
        patch.setattr(Path, "stat", lambda self, **options: stat(self, **options))
        yield


def test_folders_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_rows: Rows) -> None:
    rows = make_rows(2)
    gallery = Gallery.create(tmp_path / "private" / "g", slots=rows.widths)
    gallery.add(rows, keys=["a", "b"])
    with closed(tmp_path / "private", monkeypatch):
        for use in (
            lambda: Gallery.open(tmp_path / "private" / "g"),
            lambda: Gallery.exists(tmp_path / "private" / "g"),
            lambda: Gallery.create(tmp_path / "private" / "new", slots=rows.widths),
        ):
            with pytest.raises(GalleryError, match=r"cannot be looked at: Permission denied.*permissions"):
                use()
    with closed(gallery.path / "images.lance" / "data", monkeypatch):
        damaged = gallery.verify().damaged
    assert damaged["images.lance/data"] == "cannot be looked into: Permission denied"
    assert require_folder(tmp_path / "private") == tmp_path / "private"
