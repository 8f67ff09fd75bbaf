"""Additions of one image: few pieces, few versions, nothing lost; and small files that are compared first."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.storage import upkeep
from occluded_reid.gallery.storage.lance_manifest import Piece, read_lance_manifest
from occluded_reid.gallery.storage.ledger import Ledger, manifest_versions

Rows = Callable[..., PartEmbeddings]


def pieces_of(gallery: Gallery) -> list[int]:
    manifest = read_lance_manifest(manifest_versions(Path(gallery.path))[gallery.version].read_bytes())
    assert manifest is not None
    return [piece.rows for piece in manifest.pieces]


def found_in(path: Path, query: PartEmbeddings, version: int | None = None) -> list[str]:
    with Gallery.open(path, version=version) as gallery:
        return sorted(hit.key for hit in gallery.search(query, 10_000)[0])


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are dropped earlier, so that tests need fewer of them."""
    monkeypatch.setattr(upkeep, "VERSIONS_MOST", 12)
    monkeypatch.setattr(upkeep, "VERSIONS_KEPT", 5)


@pytest.mark.usefixtures("short")
def test_single_additions_leave_few_pieces_and_versions(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(80)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    files = []
    for number in range(80):
        assert gallery.add(rows[[number]], keys=[f"k{number:02d}"], camera=number % 3).added == 1
        # No more than seven pieces of each power of eight, and the versions that the rule leaves.
        sizes = pieces_of(gallery)
        assert sum(sizes) == number + 1
        assert all(sum(8**p <= size < 8 ** (p + 1) for size in sizes) <= 7 for p in range(3))
        assert len(gallery.versions()) <= 12
        files.append(sum(1 for _ in Path(gallery.path).rglob("*")))
    assert max(files[40:]) <= max(files[:40]) + 20
    keys = [f"k{number:02d}" for number in range(80)]
    again = Gallery.open(gallery.path)
    assert [again.search(rows[[n]], 1)[0][0].key for n in range(80)] == keys
    assert len(again.search(rows[:1], 99, where={"camera": 1})[0]) == 27
    report = gallery.verify()
    assert (report.damaged, report.leftovers) == ({}, ())
    for version in gallery.versions():  # whatever is kept can be opened, and holds what it held
        assert found_in(gallery.path, rows[:1], version.version) == keys[: version.images]
    assert gallery.compact(1).versions == (gallery.version,)
    assert found_in(gallery.path, rows[:1]) == keys


@pytest.mark.usefixtures("short")
def test_replacing_and_removing_one_by_one(tmp_path: Path, make_rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    rows = make_rows(60)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    gallery.add(rows[:20], keys=[f"k{n}" for n in range(20)])
    for number in range(20):
        assert gallery.add(rows[[20 + number]], keys=[f"k{number}"], replace=True).replaced == 1
        assert gallery.relabel([f"k{number}"], camera=number) == 1
        assert len(pieces_of(gallery)) < 12
    for number in range(0, 20, 2):
        assert gallery.remove(f"k{number}") == 1
    assert caplog.records == []
    assert len(gallery.versions()) <= 12
    left = [f"k{n}" for n in range(1, 20, 2)]
    assert found_in(gallery.path, rows[:1]) == sorted(left)
    assert [gallery.search(rows[[20 + n]], 1)[0][0].key for n in range(1, 20, 2)] == left
    assert gallery.verify().ok
    assert gallery.erase("k1").images == 1
    assert gallery.verify().ok
    text = rows.embeddings[0][21].half().numpy().tobytes()
    assert not any(text in file.read_bytes() for file in gallery.path.rglob("*") if file.is_file())


def test_pieces_are_joined_by_powers_of_eight() -> None:
    def joined(sizes: list[int], fresh: int, most: int = 10**6) -> list[int]:
        pieces = [Piece(number, rows, ("a",), None) for number, rows in enumerate(sizes)]
        return [piece.rows for piece in upkeep.pieces_to_join(pieces, fresh, most)]

    assert joined([], 1) == joined([1] * 6, 1) == []
    assert joined([1] * 7, 1) == [1] * 7
    assert joined([100, *[8] * 7, *[1] * 7], 1) == [*[8] * 7, *[1] * 7]
    assert joined([100, *[8] * 7, *[1] * 7], 1, most=30) == [1] * 7
    assert joined([*[512] * 7, 3], 600) == [*[512] * 7, 3]
    assert joined([1] * 8, 0) == [1] * 8  # a replacement has written its rows already


@pytest.mark.usefixtures("short")
def test_damage_is_neither_copied_nor_in_the_way(
    tmp_path: Path, make_rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(20)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    for number in range(7):
        gallery.add(rows[[number]], keys=[f"k{number}"])
    manifest = read_lance_manifest(manifest_versions(gallery.path)[gallery.version].read_bytes())
    assert manifest is not None
    hurt = gallery.path / "images.lance" / manifest.pieces[0].files[0]
    content = bytearray(hurt.read_bytes())
    content[40] ^= 1
    hurt.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="occluded_reid"):
        assert gallery.add(rows[[7]], keys=["k7"]).added == 1
    assert f"'images.lance/{manifest.pieces[0].files[0]}' is damaged" in caplog.text
    assert len(pieces_of(gallery)) == 8
    assert list(gallery.verify().damaged) == [f"images.lance/{manifest.pieces[0].files[0]}"]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("moment", ["keep", "unlink"])
def test_a_writer_that_dies_while_it_drops_versions_leaves_a_whole_gallery(
    tmp_path: Path, make_rows: Rows, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Crash(BaseException):
        pass

    rows = make_rows(40)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    real = Path.unlink
    deleted: list[str] = []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix in (".lance", ".manifest", ".txn") and "images.lance" in path.parts:
            deleted.append(path.name)
            if len(deleted) == 5:
                raise Crash
        real(path, missing_ok=missing_ok)

    def keep(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(*((Ledger, "keep", keep) if moment == "keep" else (Path, "unlink", unlink)))
        added = 0
        with pytest.raises(Crash):  # noqa: PT012 - which addition it is does not matter
            for number in range(40):
                added = number + 1
                gallery.add(rows[[number]], keys=[f"k{number:02d}"])
    keys = [f"k{number:02d}" for number in range(added)]
    report = Gallery.open(gallery.path).verify()
    assert report.damaged == {}
    assert bool(report.leftovers) == (moment == "unlink")
    assert found_in(gallery.path, rows[:1]) == keys
    again = Gallery.open(gallery.path)
    for number in range(added, 40):
        again.add(rows[[number]], keys=[f"k{number:02d}"])
    assert again.verify().ok
    assert len(found_in(gallery.path, rows[:1])) == 40


@pytest.mark.usefixtures("short")
def test_what_is_not_understood_is_not_dropped(
    tmp_path: Path, make_rows: Rows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(20)
    monkeypatch.setattr(upkeep, "read_lance_manifest", lambda _: None)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    with caplog.at_level(logging.WARNING, logger="occluded_reid"):
        for number in range(14):
            gallery.add(rows[[number]], keys=[f"k{number}"])
    assert len(gallery.versions()) == 15
    assert len(gallery) == 14
    assert "is not understood" in caplog.text


@pytest.mark.usefixtures("short")
def test_a_fault_after_the_acknowledgement_is_a_warning(
    tmp_path: Path, make_rows: Rows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    rows = make_rows(20)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    monkeypatch.setattr(Ledger, "keep", full)
    with caplog.at_level(logging.WARNING, logger="occluded_reid"):
        for number in range(14):
            assert gallery.add(rows[[number]], keys=[f"k{number}"]).added == 1
    assert "What was written is safe, but old versions could not be dropped" in caplog.text
    assert "No space left" in caplog.text
    assert len(Gallery.open(gallery.path)) == 14


@pytest.fixture
def grown(tmp_path: Path, make_rows: Rows) -> Gallery:
    """Versions 1 to 5: created, three additions, a removal."""
    rows = make_rows(12)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    for first in (0, 4, 8):
        gallery.add(rows[first : first + 4], keys=[f"k{n}" for n in range(first, first + 4)])
    gallery.remove("k5")
    return gallery


def test_an_older_manifest_in_the_place_of_the_newest_is_refused(grown: Gallery, make_rows: Rows) -> None:
    manifests = manifest_versions(grown.path)
    shutil.copy(manifests[2], manifests[5])
    message = r"could not be opened: '.*manifest', which version 5 needs, is that of version 2\. Restore .* one copy"
    with pytest.raises(GalleryError, match=message):
        Gallery.open(grown.path)
    with pytest.raises(GalleryError, match=message):
        grown.add(make_rows(1, 3), keys=["new"])
    assert len(Gallery.open(grown.path, version=4)) == 12


def test_flipped_bits_of_small_files_are_named_before_they_are_parsed(
    grown: Gallery, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LanceDB must not be shown them: some end the process."""
    hidden = next((grown.path / "images.lance" / "_deletions").iterdir())
    for file in (manifest_versions(grown.path)[5], hidden):
        message = rf"'images.lance/.*{file.name}', which version 5 needs, has other"
        whole = file.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 25)):
            content = bytearray(whole)
            content[place] ^= 4
            file.write_bytes(content)
            with monkeypatch.context() as patch:
                patch.setattr("lancedb.connect", lambda *_: pytest.fail("it was opened"))
                with pytest.raises(GalleryError, match=message):
                    Gallery.open(grown.path)
        file.write_bytes(whole)
    hidden.unlink()
    for use in (lambda: Gallery.open(grown.path), lambda: grown.add(make_rows(1, 3), keys=["new"])):
        with pytest.raises(GalleryError, match=r"_deletions/.* cannot be read"):
            use()


def test_an_entry_of_the_newest_version_that_is_lost_is_missed(
    grown: Gallery, make_rows: Rows, tree_hash: Callable[..., Any]
) -> None:
    entry = grown.path / "checksums" / "5.json"
    content = entry.read_bytes()
    entry.unlink()
    before = tree_hash(grown.path)
    assert grown.verify().damaged["checksums/5.json"] == "is missing"
    for use in (
        lambda: Gallery.open(grown.path),
        lambda: grown.add(make_rows(1, 3), keys=["new"]),
        lambda: grown.compact(1),
    ):
        with pytest.raises(GalleryError, match=r"has lost 'checksums/5\.json'.*Restore that file.*'newest\.json'"):
            use()
    after = {name: mark for name, mark in tree_hash(grown.path).items() if name != "writer.lock"}
    assert after == {name: mark for name, mark in before.items() if name != "writer.lock"}
    assert len(Gallery.open(grown.path, version=4)) == 12
    entry.write_bytes(content)
    assert len(Gallery.open(grown.path)) == 11
    entry.unlink()
    (grown.path / "newest.json").unlink()  # as the message says: go on without it
    assert len(Gallery.open(grown.path)) == 12
    assert Gallery.open(grown.path).add(make_rows(1, 3), keys=["new"]).added == 1


def test_a_note_that_is_damaged_or_older_is_in_nobodys_way(
    grown: Gallery, make_rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    note = grown.path / "newest.json"
    note.write_bytes(note.read_bytes().replace(b"5", b"6"))
    assert grown.verify().damaged == {"newest.json": "has other content than was written"}
    with caplog.at_level(logging.WARNING, logger="occluded_reid"):
        assert len(Gallery.open(grown.path)) == 11
    assert "note of the newest version is not used" in caplog.text
    old = note.read_bytes()
    assert Gallery.open(grown.path).add(make_rows(1, 3), keys=["new"]).added == 1
    assert grown.verify().ok
    note.write_bytes(old)
    note.unlink()
    assert len(Gallery.open(grown.path)) == 12


def test_checksums_that_are_deleted_under_an_open_gallery_are_missed(
    grown: Gallery, make_rows: Rows, tmp_path: Path
) -> None:
    (grown.path / "checksums").rename(tmp_path / "kept")
    for use in (
        lambda: grown.add(make_rows(1, 3), keys=["new"]),
        lambda: grown.remove("k1"),
        grown.compact,
        grown.versions,
        lambda: Gallery.open(grown.path),
    ):
        with pytest.raises(GalleryError, match="has lost its folder 'checksums'"):
            use()
    assert grown.verify().damaged["checksums"] == "is missing"
    assert not (grown.path / "checksums").exists()
    (tmp_path / "kept").rename(grown.path / "checksums")
    assert grown.add(make_rows(1, 3), keys=["new"]).added == 1


@pytest.mark.parametrize(
    "name", ["gallery.json", "checksums", "newest.json", "images.lance", "images.lance/data", "images.lance/_versions"]
)
def test_links_in_the_place_of_what_is_ours_are_refused(
    grown: Gallery, make_rows: Rows, tmp_path: Path, name: str, tree_hash: Callable[..., Any]
) -> None:
    outside = tmp_path / "outside"
    (grown.path / name).rename(outside)
    (grown.path / name).symlink_to(outside)
    before = tree_hash(outside) if outside.is_dir() else outside.read_bytes()
    for use in (lambda: Gallery.open(grown.path), lambda: grown.add(make_rows(1, 3), keys=["new"])):
        with pytest.raises(GalleryError, match=rf"{name}' is a link.*move its whole folder"):
            use()
    assert (tree_hash(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_a_linked_file_is_named_by_verify(grown: Gallery, tmp_path: Path) -> None:
    data = next((grown.path / "images.lance" / "data").iterdir())
    data.rename(tmp_path / "outside")
    data.symlink_to(tmp_path / "outside")
    assert "cannot be read" in grown.verify().damaged[f"images.lance/data/{data.name}"]


def test_what_is_no_manifest_is_not_read_as_one(grown: Gallery) -> None:
    content = manifest_versions(grown.path)[5].read_bytes()
    told = read_lance_manifest(content)
    assert told is not None
    assert (told.version, told.rows, len(told.pieces)) == (5, 11, 3)
    assert told.pieces[1].hidden is not None
    assert {piece.rows for piece in told.pieces} == {4, 3}
    assert all((grown.path / "images.lance" / name).is_file() for name in told.files)
    assert read_lance_manifest(b"") is read_lance_manifest(b"LANC" * 9) is read_lance_manifest(content[:-1]) is None
    for place in range(len(content)):  # whatever is damaged, it ends, and with an answer
        read_lance_manifest(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
