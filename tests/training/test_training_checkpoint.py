from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from occluded_reid.errors import CheckpointError
from occluded_reid.training import checkpoint as module
from occluded_reid.training.checkpoint import (
    Checkpoint,
    checkpoint_exists,
    read_checkpoint,
    replace_folder,
    write_checkpoint,
)


def make(value: float) -> Checkpoint:
    model = {"weight": torch.full((3, 2), value), "count": torch.tensor(7)}
    return Checkpoint(model, {"weight|exp_avg": torch.full((3, 2), -value)}, {"epoch": value, "history": [{"a": 0.1}]})


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_round_trip_and_replacement(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "last"
    for value in (1.0, 2.0):
        write_checkpoint(folder, make(value))
        read = read_checkpoint(folder)
        assert torch.equal(read.model["weight"], torch.full((3, 2), value))
        assert read.model["count"].dtype == torch.int64
        assert torch.equal(read.optimizer["weight|exp_avg"], torch.full((3, 2), -value))
        assert read.progress == {"epoch": value, "history": [{"a": 0.1}]}
    assert names(tmp_path / "run") == [
        "last",
        "last/checkpoint.json",
        "last/checksums.json",
        "last/model.safetensors",
        "last/optimizer.safetensors",
    ]


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
@pytest.mark.parametrize("before", [False, True])
def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, before: bool) -> None:
    """The disk fills up while the n-th of the four files is written: half of it is there, then an error."""
    if before:
        write_checkpoint(tmp_path / "last", make(1.0))
    whole, written = names(tmp_path), 0
    to_bytes, to_text = Path.write_bytes, Path.write_text

    def fill(path: Path, content: Any, original: Any, **options: Any) -> Any:
        nonlocal written
        written += 1
        if written == fails_at:
            original(path, content[: len(content) // 2], **options)
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, content, **options)

    monkeypatch.setattr(Path, "write_bytes", lambda path, content: fill(path, content, to_bytes))
    monkeypatch.setattr(Path, "write_text", lambda path, content, **o: fill(path, content, to_text, **o))
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_checkpoint(tmp_path / "last", make(2.0))
    assert names(tmp_path) == whole
    if before:
        assert read_checkpoint(tmp_path / "last").progress["epoch"] == 1.0


class Killed(BaseException):
    """Stands for a kill: nothing is tidied up after it."""


@pytest.mark.parametrize(("dies_at", "survivor"), [(1, 1.0), (2, 1.0), (3, 2.0)])
def test_killed_while_swapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int, survivor: float) -> None:
    """Before the first rename, between the two, and after the second: one whole checkpoint is always found."""
    write_checkpoint(tmp_path / "last", make(1.0))
    with monkeypatch.context() as patch:
        rename, calls = Path.rename, 0

        def dying(path: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls == dies_at:
                raise Killed
            return rename(path, target)

        patch.setattr(Path, "rename", dying)
        flush = module._flush

        def dying_flush(folder: Path) -> None:
            flush(folder)
            if dies_at == 3:
                raise Killed

        patch.setattr(module, "_flush", dying_flush)
        patch.setattr(module.shutil, "rmtree", lambda path, ignore_errors=False: None)
        with pytest.raises(Killed):
            write_checkpoint(tmp_path / "last", make(2.0))
    assert checkpoint_exists(tmp_path / "last")
    assert read_checkpoint(tmp_path / "last").progress["epoch"] == survivor
    write_checkpoint(tmp_path / "last", make(3.0))
    assert read_checkpoint(tmp_path / "last").progress["epoch"] == 3.0
    assert names(tmp_path)[0] == "last"
    assert not list(tmp_path.glob(".last*"))


def test_the_old_one_comes_back_when_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "last", make(1.0))
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if ".tmp-" in path.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CheckpointError, match="Permission denied"):
        write_checkpoint(tmp_path / "last", make(2.0))
    monkeypatch.undo()
    assert names(tmp_path)[0] == "last"
    assert read_checkpoint(tmp_path / "last").progress["epoch"] == 1.0


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "checkpoint.json"])
def test_one_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path / "last", make(1.0))
    path = tmp_path / "last" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}' is damaged"):
        read_checkpoint(tmp_path / "last")
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}' is missing"):
        read_checkpoint(tmp_path / "last")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "last")
    write_checkpoint(tmp_path / "last", make(1.0))
    sums = tmp_path / "last" / "checksums.json"
    sums.write_text("[]")
    with pytest.raises(CheckpointError, match="holds no checksums"):
        read_checkpoint(tmp_path / "last")
    sums.write_text("{")
    with pytest.raises(CheckpointError, match="could not be read as JSON"):
        read_checkpoint(tmp_path / "last")


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FORMAT", 99)
    write_checkpoint(tmp_path / "last", make(1.0))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 99; this version reads format"):
        read_checkpoint(tmp_path / "last")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        write_checkpoint(tmp_path / "file" / "last", make(1.0))


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last", make(1.0))
    for path in (tmp_path / "last").iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            header = int.from_bytes(path.read_bytes()[:8], "little")
            assert path.suffix == ".safetensors"
            json.loads(path.read_bytes()[8 : 8 + header])


@pytest.mark.parametrize("content", ["[1, 2]", "3", '{"format": 99}', '{"format": 2}', '{"format": 2, "progress": []}'])
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    def write(fresh: Path) -> None:
        (fresh / "checkpoint.json").write_text(content)

    replace_folder(tmp_path / "last", write)
    with pytest.raises(CheckpointError, match="last' has format"):
        read_checkpoint(tmp_path / "last")


def test_a_run_that_may_not_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(CheckpointError, match=r"last' cannot be looked at: Permission denied"):
        read_checkpoint(tmp_path / "last")
