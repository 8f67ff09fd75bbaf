"""Writing files whole or not at all, and reading them with errors that name the file."""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occluded_reid.errors import OccludedReIDError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "absolute",
    "as_path",
    "atomic_write",
    "inside",
    "is_file",
    "is_folder",
    "look",
    "open_file",
    "read_json",
    "read_safetensors",
    "remove_leftovers",
    "temporary_folder",
    "text_bytes",
    "text_lines",
    "write_json",
    "write_safetensors",
    "write_text",
]

_TEMPORARY = ".oreid.tmp"  # what temporary files and folders end in: nobody else's do
_DEAD_AFTER = 86_400.0  # seconds after which one counts as a leftover where there are no locks
_swept: set[str] = set()  # folders that this process has written to


def as_path(path: object, error: type[OccludedReIDError] = OccludedReIDError) -> Path:
    """Return a path that a caller gave.

    Raises:
        error: it is neither a text nor a path, or holds NUL, which no file's name can.
    """
    if isinstance(path, str | os.PathLike):
        with suppress(TypeError):  # a path-like object that gives bytes
            found = Path(path)
            if "\0" in str(found):
                raise error(f"the path {str(found)[:300]!r} holds NUL, which no file's name can. Correct it.")
            return found
    raise error(f"a path is of type {type(path).__name__}; give a text or a pathlib.Path.")


def open_file(path: Path) -> io.BufferedReader:
    """Open a file for reading, and nothing else that may stand in its place: a pipe would never end, nor a device.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    extra = [getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK")]  # a pipe is not waited for
    stream = os.fdopen(os.open(path, os.O_RDONLY | sum(extra)), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "it is no file, but a pipe, a device or the like", str(path))
    return stream


def absolute(path: str | Path, error: type[OccludedReIDError] = OccludedReIDError) -> Path:
    """Return a path that stays the same file when the program changes its working folder later.

    Links are kept, and ``..`` is gone: a file has one such name from wherever it is named.

    Whatever keeps a path for later, rather than using it at once, keeps it like this.

    Raises:
        error: the path is relative, and the working folder is gone; or it is neither a text nor a path.
    """
    try:
        return _without_climbing(as_path(path, error).absolute())
    except OSError as cause:
        raise error(
            f"'{path}' is relative to the working folder, which is gone: {cause.strerror or cause}. "
            "Give a path from the root."
        ) from cause


def _without_climbing(path: Path) -> Path:
    """The same place without ``..``; what stands before one may be a link, and then it climbs from where that leads."""
    if ".." not in path.parts:
        return path
    found = Path(path.anchor)
    for part in path.parts[1:]:
        found = Path(os.path.realpath(found)).parent if part == ".." else found / part
    return found


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

    What a killed process has left is removed by the next one that writes into the folder: see `remove_leftovers`.

    Raises:
        error: the folder cannot be written, or the disk is full; nothing half-written is left.
    """
    target = absolute(path, error)
    temporary: Path | None = None
    handle: int | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(target.parent)
        handle, temporary = _new_file(target)
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
        if handle is not None:
            os.close(handle)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Give an empty hidden folder beside `target`, to be filled and renamed; what is left of it afterwards is removed.

    What a killed process has left is removed by the next one that makes such a folder there.

    Raises:
        OSError: it cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as cause:  # what it is called says nothing of what is wrong
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent)) from cause
    _sweep_once(target.parent)
    handle, folder = _new_folder(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def remove_leftovers(folder: Path, *, recursive: bool = False) -> int:
    """Remove what killed processes have left of `atomic_write` and `temporary_folder`; return how many there were.

    Whoever is writing holds a lock on his temporary file, which the operating system drops when he dies: so nothing is
    taken from a living writer. Where a system knows no such locks, what is older than a day goes. What may not be
    removed stays.

    Args:
        folder: where to look; it may be missing.
        recursive: in folders below it, too; links are not followed.
    """
    removed = 0
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        return 0
    for entry in found:
        try:
            if entry.name.startswith(".") and entry.name.endswith(_TEMPORARY) and not entry.is_symlink():
                removed += _remove_dead(Path(entry.path), entry.is_dir(follow_symlinks=False))
            elif recursive and entry.is_dir(follow_symlinks=False):
                removed += remove_leftovers(Path(entry.path), recursive=True)
        except OSError:  # somebody else was faster, or it may not be touched
            continue
    return removed


def _sweep_once(folder: Path) -> None:
    """Remove leftovers of a folder when this process writes there for the first time."""
    if str(folder) not in _swept:
        _swept.add(str(folder))
        remove_leftovers(folder)


def _remove_dead(path: Path, is_folder: bool) -> bool:
    if sys.platform == "win32":
        if time.time() - path.lstat().st_mtime < _DEAD_AFTER:
            return False
        shutil.rmtree(path) if is_folder else path.unlink()
        return True
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if is_folder else path.unlink()
        return True
    finally:
        os.close(handle)


def _new_file(target: Path) -> tuple[int | None, Path]:
    """A locked temporary file beside a target."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_beginning(target), suffix=_TEMPORARY, dir=target.parent)
        if sys.platform == "win32":  # there, an open file cannot be renamed
            os.close(handle)
            return None, Path(name)
        if _locked(handle):
            return handle, Path(name)


def _new_folder(target: Path) -> tuple[int | None, Path]:
    """A locked temporary folder beside a target."""
    while True:
        folder = target.parent / f"{_beginning(target)}{secrets.token_hex(4)}{_TEMPORARY}"
        folder.mkdir()
        if sys.platform == "win32":
            return None, folder
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _locked(handle):
            return handle, folder


def _locked(handle: int) -> bool:
    """Lock what has just been made; False where somebody has taken it for a leftover in between."""
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks: nobody there can take it for a leftover either
            fcntl.flock(handle, fcntl.LOCK_EX)
    if os.fstat(handle).st_nlink:
        return True
    os.close(handle)
    return False


def _beginning(target: Path) -> str:
    return f".{target.name[:40]}."  # a name may be as long as a name can be already


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
        error: the file is missing, is a pipe or a device, or is not JSON.
    """
    try:
        with open_file(as_path(path, error)) as file:
            content = file.read()
        return json.loads(content.decode("utf-8"))
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

    path = as_path(path, error)
    try:
        open_file(path).close()
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
        (b'caf\xc3\xa9', b'caf\xed\xb3\xa9')
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
