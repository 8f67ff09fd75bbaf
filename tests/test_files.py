"""Files: whole or not at all, errors that name them, and paths that stay inside."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
import torch

from occluded_reid.errors import CheckpointError, GalleryError, OccludedReIDError
from occluded_reid.files import (
    absolute,
    atomic_write,
    inside,
    is_file,
    is_folder,
    read_json,
    read_safetensors,
    remove_leftovers,
    temporary_folder,
    text_bytes,
    text_lines,
    write_json,
    write_safetensors,
    write_text,
)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_written_whole(tmp_path):
    with atomic_write(tmp_path / "a" / "b.txt") as temporary:
        assert temporary.parent == tmp_path / "a"
        temporary.write_text("new")
        assert not (tmp_path / "a" / "b.txt").exists()
    assert everything(tmp_path) == {str(Path("a") / "b.txt"): b"new"}


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "kept.txt").write_text("old")

    def fail(failure):
        with atomic_write(tmp_path / "kept.txt") as temporary:
            temporary.write_text("half")
            raise failure

    for failure in (ValueError, KeyboardInterrupt):
        with pytest.raises(failure):
            fail(failure)
    assert everything(tmp_path) == {"kept.txt": b"old"}


@pytest.mark.parametrize("where", ["write_bytes", "fsync", "replace", "mkdir"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, where):
    write_safetensors(tmp_path / "model.safetensors", {"x": torch.zeros(3)})
    before = everything(tmp_path)
    monkeypatch.setattr(os if where == "fsync" else Path, where, no_space)
    with pytest.raises(CheckpointError, match=r"model\.safetensors' could not be written: No space left.*Free some"):
        write_safetensors(tmp_path / "model.safetensors", {"x": torch.ones(3)}, error=CheckpointError)
    monkeypatch.undo()
    assert everything(tmp_path) == before


def test_a_disk_that_fills_up_in_the_middle(tmp_path, monkeypatch):
    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        no_space()

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OccludedReIDError, match="No space left"):
        write_safetensors(tmp_path / "x", {"x": torch.zeros(100)})
    assert everything(tmp_path) == {}


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GalleryError, match="could not be written"):
        write_json(tmp_path / "file" / "x.json", {}, GalleryError)
    assert everything(tmp_path) == {"file": b""}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="an administrator may write anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OccludedReIDError, match="Permission denied"):
            write_text(tmp_path / "x", "text")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.skipif(os.name == "nt", reason="permissions are a Unix matter")
def test_others_may_read_what_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "text")
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_text_and_json_are_utf8(tmp_path):
    content = {"z": "Zürich", "a": [1, None]}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    assert list(json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))) == ["z", "a"]
    assert "Zürich".encode() in (tmp_path / "x.json").read_bytes()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_bad_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(GalleryError, match=r"x\.json' could not be read as JSON"):
        read_json(tmp_path / "x.json", GalleryError)
    with pytest.raises(GalleryError, match=r"No such file or directory\. Look at the path"):
        read_json(tmp_path / "absent.json", GalleryError)
    with pytest.raises(GalleryError, match="absent"):
        read_json(tmp_path / "absent.json", GalleryError)


def test_safetensors_there_and_back(tmp_path):
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    tensors = {"whole": weight, "turned": weight.T, "again": weight, "row": weight[0], "empty": torch.zeros(0, 2)}
    write_safetensors(tmp_path / "x", tensors, {"k": "v"})
    loaded, metadata = read_safetensors(tmp_path / "x")
    assert metadata == {"k": "v"}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("content", [b"", b"not a file of tensors at all", bytes(64)])
def test_bad_safetensors_are_named(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match="x' could not be read as safetensors"):
        read_safetensors(tmp_path / "x", CheckpointError)
    for other in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="could not be read"):
            read_safetensors(other, CheckpointError)


@pytest.mark.parametrize("name", ["a.jpg", "a/b/c.jpg", "a/../b.jpg", "./x", "..a/b", "ü.jpg"])
def test_names_inside(tmp_path, name):
    assert inside(tmp_path, name) == (tmp_path / name).resolve()


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/etc/passwd", "a/../../../etc/passwd"])
def test_names_that_climb_out(tmp_path, name):
    with pytest.raises(GalleryError, match=r"leads out of .*relative to that folder"):
        inside(tmp_path / "folder", name, GalleryError)


def test_a_sibling_with_the_same_beginning_is_outside(tmp_path):
    with pytest.raises(OccludedReIDError, match="leads out of"):
        inside(tmp_path / "data", "../data2/x")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_that_leads_out(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    with pytest.raises(OccludedReIDError, match="leads out of"):
        inside(tmp_path / "folder", "link/x")


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(GalleryError, match=r"'a\\x00b' is none that a file can have"):
        inside(tmp_path, "a\0b", GalleryError)


def test_what_is_there(tmp_path):
    (tmp_path / "x").touch()
    assert (is_file(tmp_path / "x"), is_folder(tmp_path / "x")) == (True, False)
    assert (is_file(tmp_path), is_folder(tmp_path)) == (False, True)
    assert not is_file(tmp_path / "none")
    assert not is_file(tmp_path / "x" / "below a file")
    for name in ("a\0b", "x" * 300):
        with pytest.raises(GalleryError, match="cannot be looked at"):
            is_file(tmp_path / name, GalleryError)


def test_what_may_not_be_looked_at(tmp_path, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(GalleryError, match="x' cannot be looked at: Permission denied"):
        is_folder(tmp_path / "x", GalleryError)


def test_names_that_are_no_utf8_are_hashed_and_written(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    assert text_bytes("café") == "café".encode()
    assert len({text_bytes(odd), text_bytes("café"), text_bytes("caf\\udce9")}) == 3
    write_json(tmp_path / "x.json", {odd: odd})
    assert read_json(tmp_path / "x.json") == {odd: odd}
    write_text(tmp_path / "x.txt", odd)
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "caf\\udce9"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n", [""]),
        ("a", ["a"]),
        ("a\n\nb\r\n", ["a", "", "b"]),
        ("a\u2028b\x85c\fd\re\n", ["a\u2028b\x85c\fd\re"]),
    ],
)
def test_lines(text, lines):
    assert text_lines(text) == lines


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is killed in a forked process")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path, kind):
    """One writer is killed in the middle, one goes on: the next process to write tells them apart."""
    target = tmp_path / "sub" / "mask.png"

    def write():
        if kind == "file":
            return atomic_write(target)
        return temporary_folder(target)

    before = target.parent / "before.txt"
    write_text(before, "this process has written here already")
    child = os.fork()
    if not child:
        try:
            with write() as temporary:
                (temporary / "half" if kind == "folder" else temporary).write_bytes(b"half")
                os.kill(os.getpid(), 9)
        finally:
            os._exit(1)  # a child must not go on as a second test run
    os.waitpid(child, 0)
    dead = [path for path in target.parent.iterdir() if path != before]
    assert len(dead) == 1
    foreign = [before, target.parent / ".mask.png.abcdefgh.tmp", target.parent / "b.oreid.tmp"]  # not of our making
    for file in foreign[1:]:
        file.touch()
    link = target.parent / ".link.oreid.tmp"
    link.symlink_to(before)
    with write() as living:
        assert sorted(target.parent.iterdir()) == sorted([*dead, *foreign, link, living])
        assert remove_leftovers(tmp_path, recursive=False) == 0
        assert remove_leftovers(tmp_path, recursive=True) == 1
        assert sorted(target.parent.iterdir()) == sorted([*foreign, link, living])
        assert not dead[0].exists()
        (living / "x" if kind == "folder" else living).write_bytes(b"whole")
    assert target.exists() == (kind == "file")
    assert remove_leftovers(tmp_path / "gone", recursive=True) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is killed in a forked process")
def test_the_first_write_into_a_folder_removes_what_is_left_there(tmp_path):
    child = os.fork()
    if not child:
        try:
            with atomic_write(tmp_path / "report.html"):
                os.kill(os.getpid(), 9)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    write_text(tmp_path / "other.txt", "whole")
    assert everything(tmp_path) == {"other.txt": b"whole"}


def test_a_path_that_is_kept_has_no_steps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    monkeypatch.chdir(tmp_path / "a")
    assert absolute("../x.jpg") == tmp_path / "x.jpg"
    assert absolute("b/../../a/./x.jpg") == tmp_path / "a" / "x.jpg"
    assert absolute("../missing/../x.jpg") == tmp_path / "x.jpg"
    assert absolute("../link/x.jpg") == tmp_path / "link" / "x.jpg", "links are kept"
    assert absolute("../link/../x.jpg") == tmp_path / "far" / "x.jpg", "as the operating system climbs"
    assert absolute("/../../etc") == Path("/etc")
    (tmp_path / "far" / "x.jpg").write_bytes(b"far")
    assert absolute("../link/../x.jpg").read_bytes() == Path("../link/../x.jpg").read_bytes()


@pytest.mark.parametrize("path", ["a\0b", Path("a\0b"), "\0", "folder/a\0b/c.json"])
def test_a_path_with_nul_is_refused_everywhere(path: str | Path, tmp_path: Path) -> None:
    for attempt in (
        lambda: absolute(path, GalleryError),
        lambda: write_json(path, {}, GalleryError),
        lambda: read_json(path, GalleryError),
        lambda: read_safetensors(path, GalleryError),
    ):
        with pytest.raises(GalleryError, match="holds NUL"):
            attempt()
