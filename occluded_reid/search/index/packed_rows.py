"""Gallery rows as two plain files, written in a stream and read through a memory map."""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, GalleryError, ShapeError
from occluded_reid.files import absolute, atomic_write, open_file, read_json, write_json
from occluded_reid.search.index.base import DamagedIndexError

__all__ = ["PACKED_ROWS", "PackedRows", "PackedWriter"]

PackedType = Literal["float16", "float32"]

_DESCRIPTION, _EMBEDDINGS, _VISIBILITY = "packed.json", "embeddings.bin", "visibility.bin"
_FORMAT = 1
_TYPES = {"float16": torch.float16, "float32": torch.float32}
PACKED_ROWS = (_EMBEDDINGS, _VISIBILITY)
"""Files of packed rows whose content is compared with hashes as it is read."""

_BLOCKS = "blocks.bin"
_BLOCK = 1 << 16  # bytes of embeddings that are hashed together: what a single row costs when it is read first
_DIGEST = 16  # bytes kept of a sha256: a flipped bit is seen by far fewer
_WINDOW = 1 << 16  # what one page fault maps, Linux's default: how memory taken by single rows is counted


class PackedWriter:
    """Writes rows one batch after another; memory holds one batch. The description comes last and makes it whole.

    Args:
        folder: a folder that is made, or holds no packed rows yet.
        slots: width of each slot, in order.
        dtype: "float16" (half the size; rows that were float16 lose nothing) or "float32". Visibility is float32.

    Raises:
        GalleryError: the folder holds packed rows already, or cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> rows = PartEmbeddings(("a", "b"), (torch.ones(3, 2), torch.zeros(3, 4)), torch.ones(3, 2))
        >>> with PackedWriter(folder.name, rows.widths) as writer:
        ...     writer.append(rows)
        >>> PackedRows.open(folder.name)
        PackedRows(3 rows: a 2, b 4; float16)
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | Path, slots: Mapping[str, int], dtype: PackedType = "float16") -> None:
        if dtype not in _TYPES:
            raise ShapeError(f"packed rows are float16 or float32; got {dtype!r}.")
        self._folder, self._slots, self._dtype = absolute(folder, GalleryError), dict(slots), dtype
        self._rows = 0
        self._hashes = _BlockHashes(_block_rows(sum(self._slots.values()) * _TYPES[dtype].itemsize))
        if (self._folder / _DESCRIPTION).exists():
            raise GalleryError(f"'{folder}' holds packed rows already; write to another folder or remove it first.")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._files: tuple[BinaryIO, ...] = tuple(
                (self._folder / name).open("wb") for name in (_EMBEDDINGS, _VISIBILITY)
            )
        except OSError as cause:
            raise _unwritable(self._folder, cause) from cause

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: PartEmbeddings) -> None:
        """Write rows after those already written.

        Raises:
            EmbeddingError: the rows have other slots, or numbers that the type cannot hold.
            GalleryError: the disk is full or the folder cannot be written.
        """
        if rows.widths != self._slots or list(rows.names) != list(self._slots):
            raise EmbeddingError(f"slots do not fit: the packed rows hold {self._slots}, these rows {rows.widths}.")
        joint = torch.cat([e.detach().cpu().to(_TYPES[self._dtype]) for e in rows.embeddings], dim=1)
        if joint.numel() and not bool(joint.isfinite().all()):
            raise EmbeddingError(
                f"{self._dtype} cannot hold these rows: a number is beyond {torch.finfo(joint.dtype).max:.5g}. "
                "Write float32, or bring the embeddings to length 1 first."
            )
        try:
            parts = _little(joint.numpy()), _little(rows.visibility.detach().cpu().float().numpy())
            for file, part in zip(self._files, parts, strict=True):
                file.write(part)
            self._hashes.add(len(rows), *parts)
        except OSError as cause:
            raise _unwritable(self._folder, cause) from cause
        self._rows += len(rows)

    def close(self) -> None:
        """Bring everything to the disk, then write the description."""
        try:
            for file in self._files:
                if not file.closed:
                    file.flush()
                    os.fsync(file.fileno())
                    file.close()
        except OSError as cause:
            raise _unwritable(self._folder, cause) from cause
        with atomic_write(self._folder / _BLOCKS, GalleryError) as temporary:
            temporary.write_bytes(self._hashes.digests())
        description = {
            "format": _FORMAT,
            "rows": self._rows,
            "dtype": self._dtype,
            "slots": self._slots,
            "block_rows": self._hashes.rows,
        }
        write_json(self._folder / _DESCRIPTION, description, GalleryError)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        for file in self._files:
            file.close()


class PackedRows:
    """Packed rows as a source: tiles are read through a map of the file, single rows are gathered from it.

    Memory: pages of the file that were read stay with this process only within bounds: `tiles` gives back what lies
    behind it, `take` gives everything back once it has touched `resident` bytes. The file's pages in the system's
    cache are not counted; they are what makes a second search fast.

    Each block of rows is compared with its hash when it is read first, by whichever of both; that is once for as long
    as this object lives. What an older release has packed has no hashes, and `checked` says so.

    Args:
        folder: what `PackedWriter` has written; see `open`.
        resident: how many bytes of the file `take` may hold.

    Attributes:
        checked: whether there are hashes.

    Raises:
        GalleryError: the folder holds no packed rows, or files of another length than described.
    """

    def __init__(self, folder: str | Path, *, resident: int = 1 << 30) -> None:
        self.folder = absolute(folder, GalleryError)
        description = read_json(self.folder / _DESCRIPTION, GalleryError)
        try:
            if description["format"] != _FORMAT:
                raise GalleryError(
                    f"'{folder}' holds packed rows of format {description['format']}; this version reads {_FORMAT}. "
                    "Update occluded-reid, or build the index again."
                )
            self._rows = int(description["rows"])
            self.slots: dict[str, int] = {str(name): int(width) for name, width in description["slots"].items()}
            self._type = _TYPES[description["dtype"]]
            block_rows = int(description.get("block_rows", 0))
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            if isinstance(cause, GalleryError):
                raise
            raise GalleryError(f"'{folder}' holds no packed rows: {_DESCRIPTION} lacks {cause}.") from cause
        width = sum(self.slots.values())
        visibility = _Mapped(self.folder / _VISIBILITY, self._rows, len(self.slots), torch.float32)
        # Two maps of one file: giving back what a scan has read must not take away what single rows are read from.
        self._scanned = _Mapped(self.folder / _EMBEDDINGS, self._rows, width, self._type)
        self._gathered = _Mapped(self.folder / _EMBEDDINGS, self._rows, width, self._type)
        self._visibility = visibility.rows
        self._resident = resident
        row_bytes = width * self._type.itemsize
        self._touched = np.zeros(self._rows * row_bytes // _WINDOW + 1, dtype=bool)
        self._row_bytes = row_bytes
        self.checked = block_rows > 0
        self._block_rows = block_rows
        self._visible = visibility
        self._hashes = self._read_hashes() if self.checked else np.empty((0, _DIGEST), np.uint8)
        self._sound = np.zeros(len(self._hashes), dtype=bool)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open what `PackedWriter` has written; nothing is read yet."""
        return cls(folder)

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        slots = ", ".join(f"{name} {width}" for name, width in self.slots.items())
        return f"PackedRows({self._rows} rows: {slots}; {str(self._type).removeprefix('torch.')})"

    @property
    def mapped(self) -> PartEmbeddings:
        """All rows as views of the file, in the type stored: for `evaluate`, which looks at tiles of them."""
        return _unchecked(self.slots, self._scanned.rows, self._visibility)

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield copies of the rows in float32, as `take` does: arithmetic on mixed types takes much longer.

        Raises:
            DamagedIndexError: some of them are not what was written.
        """
        for start in range(0, self._rows, rows):
            stop = min(start + rows, self._rows)
            if self.checked:
                self._require_sound(np.arange(start // self._block_rows, (stop - 1) // self._block_rows + 1))
            joint = self._scanned.rows[start:stop].to(torch.float32, copy=True)
            self._scanned.release(start, stop)
            yield start, _unchecked(self.slots, joint, self._visibility[start:stop])

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return copies of the rows at these positions, in float32.

        Raises:
            DamagedIndexError: they are not what was written.
        """
        if self.checked:
            self._require_sound(np.unique(np.asarray(positions, dtype=np.int64) // self._block_rows))
        index = torch.as_tensor(np.asarray(positions, dtype=np.int64))
        joint = self._gathered.rows.index_select(0, index).float()
        found = _unchecked(self.slots, joint, self._visibility.index_select(0, index))
        self._count(index.numpy())
        return found

    def _read_hashes(self) -> np.ndarray:
        path, count = self.folder / _BLOCKS, -(-self._rows // self._block_rows)
        try:
            with open_file(path) as file:
                found = file.read()
        except OSError as cause:
            raise GalleryError(
                f"'{path}' could not be read: {cause.strerror or cause}. Build the index again."
            ) from cause
        if len(found) != count * _DIGEST:
            raise GalleryError(
                f"'{path}' has {len(found)} bytes; {count * _DIGEST} were written. Build the index again."
            )
        return np.frombuffer(found, np.uint8).reshape(count, _DIGEST)

    def _require_sound(self, blocks: np.ndarray) -> None:
        """Hash those of these blocks that were not read before; threads that do so at once come to the same end."""
        for block in blocks[~self._sound[blocks]].tolist():
            start = block * self._block_rows
            stop = min(start + self._block_rows, self._rows)
            digest = _joint_digest(
                *(hashlib.sha256(part) for part in (self._scanned.raw(start, stop), self._visible.raw(start, stop)))
            )
            if digest != self._hashes[block].tobytes():
                raise DamagedIndexError(
                    f"the copy of the embeddings in '{self.folder}' is damaged: rows {start} to {stop - 1} are not "
                    "what was written. Build the index again with build_index(); the gallery's own rows are elsewhere."
                )
            self._sound[block] = True

    def _count(self, positions: np.ndarray) -> None:
        """Give the gathered pages back when more than `resident` bytes may have been touched."""
        first = positions * self._row_bytes
        self._touched[first // _WINDOW] = True
        self._touched[(first + self._row_bytes - 1) // _WINDOW] = True
        if np.count_nonzero(self._touched) * _WINDOW > self._resident:
            self._gathered.release(0, self._rows)
            self._touched[:] = False


class _Mapped:
    """A file of numbers, mapped: a tensor (rows, width) whose pages can be given back."""

    def __init__(self, path: Path, rows: int, width: int, dtype: torch.dtype) -> None:
        size = rows * width * dtype.itemsize
        try:
            with open_file(path) as file:
                found = os.fstat(file.fileno()).st_size
                # A private map may be written to, as torch wants it, and never changes the file.
                self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) if size and found == size else None
        except OSError as cause:
            raise GalleryError(
                f"'{path}' could not be opened: {cause.strerror or cause}. Build the index again."
            ) from cause
        if found != size:
            raise GalleryError(f"'{path}' has {found} bytes; {size} were written. Build the index again.")
        self._row_bytes = width * dtype.itemsize
        self.rows: Tensor = torch.empty(rows, width, dtype=dtype)
        if self._map is not None:
            flat = torch.frombuffer(self._map, dtype=dtype)
            if sys.byteorder == "big":  # the file is little-endian
                flat = torch.from_numpy(flat.numpy().byteswap())
            self.rows = flat.view(rows, width)

    def raw(self, start: int, stop: int) -> memoryview:
        """Return the bytes of these rows, as they are in the file."""
        return memoryview(self._map or b"")[start * self._row_bytes : stop * self._row_bytes]

    def release(self, start: int, stop: int) -> None:
        """Give the pages of these rows back; they are read again when they are needed."""
        advice = getattr(mmap, "MADV_DONTNEED", None)
        if self._map is None or advice is None:
            return
        first = start * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(advice, first, stop * self._row_bytes - first)


class _BlockHashes:
    """Hashes of blocks of rows that come in batches of any size."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._found: list[bytes] = []
        self._filled, self._open = 0, (hashlib.sha256(), hashlib.sha256())

    def add(self, count: int, *parts: Any) -> None:
        """Go on with `count` rows, of which each part holds an equal number of bytes."""
        flat = [memoryview(part).cast("B") if count else memoryview(b"") for part in parts]
        done = 0
        while done < count:
            here = min(self.rows - self._filled, count - done)
            for found, part in zip(self._open, flat, strict=True):
                width = len(part) // count
                found.update(part[done * width : (done + here) * width])
            self._filled, done = self._filled + here, done + here
            if self._filled == self.rows:
                self._close()

    def digests(self) -> bytes:
        """Return the hashes of all blocks, the last one included."""
        if self._filled:
            self._close()
        return b"".join(self._found)

    def _close(self) -> None:
        self._found.append(_joint_digest(*self._open))
        self._filled, self._open = 0, (hashlib.sha256(), hashlib.sha256())


def _block_rows(row_bytes: int) -> int:
    return max(1, _BLOCK // max(1, row_bytes))


def _joint_digest(*found: Any) -> bytes:
    return hashlib.sha256(b"".join(part.digest() for part in found)).digest()[:_DIGEST]


def _unchecked(slots: Mapping[str, int], joint: Tensor, visibility: Tensor) -> PartEmbeddings:
    """Rows that were checked when they were written: looking at every number again would cost more than a search."""
    rows = object.__new__(PartEmbeddings)
    object.__setattr__(rows, "names", tuple(slots))
    object.__setattr__(rows, "embeddings", torch.split(joint, list(slots.values()), dim=1))
    object.__setattr__(rows, "visibility", visibility)
    return rows


def _little(rows: np.ndarray) -> Any:
    """The rows as a buffer, little-endian."""
    return np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<")).data


def _unwritable(folder: Path, cause: OSError) -> GalleryError:
    return GalleryError(
        f"packed rows could not be written to '{folder}': {cause.strerror or cause}. "
        "Free some space or choose a folder that may be written to."
    )
