"""Writing files whole or not at all, and reading them with errors that name the file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occluded_reid.errors import OccludedReIDError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "absolute",
    "atomic_write",
    "inside",
    "look",
    "read_json",
    "read_safetensors",
    "write_json",
    "write_safetensors",
    "write_text",
]


def absolute(path: str | Path, error: type[OccludedReIDError] = OccludedReIDError) -> Path:
    """Return a path that stays the same file when the program changes its working folder later; links are kept.

    Whatever keeps a path for later, rather than using it at once, keeps it like this.

    Raises:
        error: the path is relative, and the working folder is gone.
    """
    try:
        return Path(path).absolute()
    except OSError as cause:
        raise error(
            f"'{path}' is relative to the working folder, which is gone: {cause.strerror or cause}. "
            "Give a path from the root."
        ) from cause


def look(path: Path, error: type[OccludedReIDError] = OccludedReIDError) -> os.stat_result | None:
    """Return what a path leads to, or None where nothing is there.

    Raises:
        error: a folder on the way may not be entered, so that nobody can tell.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as cause:
        why = getattr(cause, "strerror", None) or cause
        raise error(f"'{path}' cannot be looked at: {why}. Correct the path, or its permissions.") from cause


@contextmanager
def atomic_write(path: str | Path, error: type[OccludedReIDError] = OccludedReIDError) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it on success, remove it on failure.

    Raises:
        error: the folder cannot be written, or the disk is full; nothing half-written is left.
    """
    target = absolute(path, error)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        temporary = None
    except OSError as cause:
        raise error(
            f"'{target}' could not be written: {cause.strerror or cause}. "
            "Free some space or choose a folder that may be written to; nothing half-written was left."
        ) from cause
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, error: type[OccludedReIDError] = OccludedReIDError) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_write(path, error) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, error: type[OccludedReIDError] = OccludedReIDError) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, sort_keys=False) + "\n", error)


def read_json(path: str | Path, error: type[OccludedReIDError] = OccludedReIDError) -> Any:
    """Read JSON.

    Raises:
        error: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as cause:
        raise error(f"'{path}' could not be read as JSON: it is nested too deep. Is it the right file?") from cause
    except OSError as cause:
        raise error(f"'{path}' could not be read as JSON: {cause.strerror or cause}. Look at the path.") from cause
    except ValueError as cause:
        raise error(f"'{path}' could not be read as JSON: {cause}. Is it whole, and is it the right file?") from cause


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    error: type[OccludedReIDError] = OccludedReIDError,
) -> None:
    """Write tensors and text metadata to a safetensors file, whole or not at all.

    Tensors that share memory are written each on its own.
    """
    from safetensors.torch import save

    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        kept[key] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    # Serialised here and written by us: a full disk then is an OSError that names the file, not a message from Rust.
    content = save(kept, dict(metadata or {}))
    with atomic_write(path, error) as temporary:
        temporary.write_bytes(content)


def read_safetensors(
    path: str | Path, error: type[OccludedReIDError] = OccludedReIDError
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Raises:
        error: the file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as cause:
        raise error(
            f"'{path}' could not be read as safetensors: {cause}. Is it whole, and is it the right file?"
        ) from cause


def inside(folder: str | Path, name: str, error: type[OccludedReIDError] = OccludedReIDError) -> Path:
    """Return folder/name, refusing a name that would leave the folder.

    Raises:
        error: the name is absolute or climbs out of the folder.
    """
    root = Path(folder).resolve()
    target = (root / name).resolve()
    if not target.is_relative_to(root):
        raise error(f"the path '{name}' leads out of '{folder}'. Give a path relative to that folder, without '..'.")
    return target


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
