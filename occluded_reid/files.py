"""Writing files whole or not at all, and reading them with errors that name the file."""

from __future__ import annotations

import json
import os
import stat
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
    "is_file",
    "is_folder",
    "look",
    "read_json",
    "read_safetensors",
    "text_bytes",
    "text_lines",
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
        error: a folder on the way may not be entered, so that nobody can tell; or no file can have such a name.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as cause:
        why = getattr(cause, "strerror", None) or cause
        raise error(f"{str(path)[:300]!r} cannot be looked at: {why}. Correct the path, or its permissions.") from cause


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
    """Write UTF-8 text, whole or not at all; of a file's name that is no UTF-8 the odd bytes stand as \\udcNN.

    In JSON that is an escape, from which the name is read back as it was.
    """
    with atomic_write(path, error) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


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


def text_bytes(text: str) -> bytes:
    r"""Return a text as UTF-8 for a hash, whatever it holds: names of files need not be UTF-8, and Python marks that.

    Example:
        >>> text_bytes("caf\u00e9"), text_bytes("caf\udce9")
        (b'caf\\xc3\\xa9', b'caf\\xed\\xb3\\xa9')
    """
    return text.encode("utf-8", "surrogatepass")


def text_lines(text: str) -> list[str]:
    r"""Return the lines of a text file as editors count them: cut at \n or \r\n, and nowhere else.

    `str.splitlines` also cuts at form feeds, U+0085, U+2028 and others, which names and keys may hold.

    Example:
        >>> text_lines("a\u2028b\r\nc\n")
        ['a\u2028b', 'c']
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def is_file(path: str | Path, error: type[OccludedReIDError] = OccludedReIDError) -> bool:
    """Tell whether a path is a file; `Path.is_file` raises where a folder above may not be entered.

    Raises:
        error: as `look`.
    """
    found = look(Path(path), error)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: str | Path, error: type[OccludedReIDError] = OccludedReIDError) -> bool:
    """Tell whether a path is a folder.

    Raises:
        error: as `look`.
    """
    found = look(Path(path), error)
    return found is not None and stat.S_ISDIR(found.st_mode)


def inside(folder: str | Path, name: str, error: type[OccludedReIDError] = OccludedReIDError) -> Path:
    """Return folder/name, refusing a name that would leave the folder.

    Raises:
        error: the name is absolute or climbs out of the folder.
    """
    try:
        root = Path(folder).resolve()
        target = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as cause:  # a NUL; links in a circle
        raise error(f"the path {name[:300]!r} is none that a file can have: {cause}. Give another one.") from cause
    if not target.is_relative_to(root):
        raise error(f"the path '{name}' leads out of '{folder}'. Give a path relative to that folder, without '..'.")
    return target


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
