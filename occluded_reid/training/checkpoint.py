"""Checkpoints: safetensors and JSON, with checksums, in a folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from occluded_reid.errors import CheckpointError
from occluded_reid.files import look, read_json, read_safetensors, write_json, write_safetensors
from occluded_reid.sealed import file_sha256

__all__ = ["Checkpoint", "checkpoint_exists", "read_checkpoint", "replace_folder", "verify_folder", "write_checkpoint"]

_FORMAT = 2
_SUMS = "checksums.json"
_AVERAGE = "average.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to go on.

    Attributes:
        model: the model's whole state, heads that exist in training only included.
        optimizer: the optimiser's tensors, as `optimizer_state` gives them.
        average: of the weights, as `WeightAverage.state` gives it; empty where none is kept.
        progress: epoch, step within it, history, best score and whatever else is plain JSON.
    """

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    progress: Mapping[str, Any]
    average: Mapping[str, Tensor] = field(default_factory=dict)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the place of the one before it; see `replace_folder`.

    Raises:
        CheckpointError: the disk is full or may not be written to; the checkpoint before it stays.
    """

    def write(fresh: Path) -> None:
        write_safetensors(fresh / "model.safetensors", checkpoint.model, error=CheckpointError)
        write_safetensors(fresh / "optimizer.safetensors", checkpoint.optimizer, error=CheckpointError)
        if checkpoint.average:
            write_safetensors(fresh / _AVERAGE, checkpoint.average, error=CheckpointError)
        content = {"format": _FORMAT, "progress": dict(checkpoint.progress)}
        write_json(fresh / "checkpoint.json", content, CheckpointError)

    replace_folder(folder, write)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, or, where the machine stopped while one replaced another, the one that is whole.

    Raises:
        CheckpointError: there is none, it is of another format, or a file does not have its checksum.
    """
    if not checkpoint_exists(folder):
        raise CheckpointError(
            f"there is no checkpoint at '{folder}' to go on from. Start without resume, or give the folder of the run."
        )
    source = folder if look(folder, CheckpointError) is not None else _old(folder)
    verify_folder(source)
    content = read_json(source / "checkpoint.json", CheckpointError)
    found = content.get("format") if isinstance(content, dict) else None
    if found != _FORMAT or not isinstance(content.get("progress"), dict):
        raise CheckpointError(
            f"'{folder}' has format {found}; this version reads format {_FORMAT}. "
            "Go on with the version of the library that wrote it, or train anew."
        )
    return Checkpoint(
        read_safetensors(source / "model.safetensors", CheckpointError)[0],
        read_safetensors(source / "optimizer.safetensors", CheckpointError)[0],
        content["progress"],
        read_safetensors(source / _AVERAGE, CheckpointError)[0] if (source / _AVERAGE).exists() else {},
    )


def checkpoint_exists(folder: Path) -> bool:
    """Return whether a folder written by `replace_folder` can be read, if only under its interim name."""
    return any(look(place, CheckpointError) is not None for place in (folder, _old(folder)))


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside the old one, add checksums, and put it in the old one's place.

    At every moment a whole folder exists under its own name or, between two renames, under its interim name, where
    `read_checkpoint` finds it. A kill leaves at most a hidden temporary folder, which the next call removes.

    Args:
        folder: what is replaced.
        write: fills the folder it is given.

    Raises:
        CheckpointError: something could not be written; nothing half-written is left and the old folder stays.
    """
    fresh: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left_over in folder.parent.glob(f".{folder.name}.tmp-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.tmp-", dir=folder.parent))
        fresh.chmod(folder.parent.stat().st_mode & 0o777)  # mkdtemp makes it for its owner alone
        write(fresh)
        sums = {path.name: file_sha256(path, CheckpointError) for path in sorted(fresh.iterdir())}
        write_json(fresh / _SUMS, {"sha256": sums}, CheckpointError)
        _swap(fresh, folder)
        fresh = None
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' could not be written: {error.strerror or error}. Free some space or choose a folder that may "
            "be written to; the checkpoint before it, if there was one, is still there."
        ) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def verify_folder(folder: Path) -> None:
    """Compare every file of a folder with the checksum it was written with.

    Raises:
        CheckpointError: a file is missing or has changed; it is named.
    """
    content = read_json(folder / _SUMS, CheckpointError)
    sums = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(sums, dict):
        raise CheckpointError(f"'{folder / _SUMS}' holds no checksums. The folder is damaged; use another copy of it.")
    for name, expected in sums.items():
        path = folder / Path(name).name
        if look(path, CheckpointError) is None:
            raise CheckpointError(f"'{path}' is missing. The checkpoint is damaged; use another copy of it.")
        if file_sha256(path, CheckpointError) != expected:
            raise CheckpointError(
                f"'{path}' is damaged: its content does not have the checksum it was written with. "
                "Use another copy of the checkpoint, or train anew."
            )


def _swap(fresh: Path, folder: Path) -> None:
    old = _old(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    _flush(folder.parent)  # the names, not only the contents, must survive a power cut before the old one goes
    shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _flush(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
