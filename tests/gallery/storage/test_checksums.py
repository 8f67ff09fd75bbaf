from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.storage import checksums


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    file.write_bytes(content)


def test_every_flipped_bit_of_a_sealed_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    content = {"ü": [3, None]}
    checksums.seal(file, content)
    text = file.read_bytes()
    assert checksums.unseal(file) == content
    assert json.loads(text)["sha256"] == hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
    for bit in range(len(text) * 8):
        flip(file, bit)
        with pytest.raises(GalleryError, match=r"a\.json' is damaged"):
            checksums.unseal(file)
        file.write_bytes(text)
    for cut in (b"", text[:-1], text + b" ", b"{}"):
        file.write_bytes(cut)
        with pytest.raises(GalleryError, match="is damaged"):
            checksums.unseal(file)
    with pytest.raises(GalleryError, match=r"b\.json' could not be read: No such file"):
        checksums.unseal(tmp_path / "b.json")
    with pytest.raises(GalleryError, match="nothing in it"):
        checksums.seal(file, {})


def test_a_folder_is_sealed_and_every_change_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    (folder / "deep").mkdir(parents=True)
    for name, content in (("a.faiss", b"abc"), ("deep/b", b""), ("deep/c", b"c" * 100)):
        (folder / name).write_bytes(content)
    assert checksums.verify(folder) == {"checksums.json": "is missing"}
    checksums.write(folder)
    assert checksums.verify(folder) == {}
    told: list[int] = []
    checksums.verify(folder, told.append)
    assert sum(told) == 103
    flip(folder / "a.faiss", 5)
    (folder / "deep" / "b").write_bytes(b"1")
    (folder / "deep" / "c").unlink()
    (folder / "d").write_bytes(b"x")
    assert checksums.verify(folder) == {
        "a.faiss": "has other content than was written",
        "deep/b": "has 1 bytes instead of 0",
        "deep/c": "is missing",
        "d": "is not on the list",
    }
    checksums.write(folder)
    assert checksums.verify(folder) == {}
    flip(folder / "checksums.json", 77)
    assert checksums.verify(folder) == {"checksums.json": "has other content than was written"}


@given(content=st.binary(max_size=100), piece=st.integers(1, 7))
def test_digests_are_those_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, piece: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "digest"
    file.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "_CHUNK", piece)
        assert checksums.digest(file) == (len(content), hashlib.sha256(content).hexdigest())


def test_files_below_a_folder_are_named_with_slashes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    (tmp_path / "d").touch()
    assert checksums.files_of(tmp_path) == {"a/b/c", "d"}
    assert checksums.files_of(tmp_path, "a") == {"a/b/c"}
    assert checksums.files_of(tmp_path, "nowhere") == set()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checksums.os, "fsync", full_disk)
    with pytest.raises(GalleryError, match="could not be written: No space left"):
        checksums.write(tmp_path)
    assert not (tmp_path / "checksums.json").exists()
