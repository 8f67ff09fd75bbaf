"""FAISS as the index of a slot."""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np

from occluded_reid.errors import DeviceError, GalleryError, MissingExtraError, ShapeError, UnknownOptionError
from occluded_reid.files import atomic_write, read_json, write_json
from occluded_reid.registry import INDEXES
from occluded_reid.search.index.base import DamagedIndexError, IndexMetric, SlotIndex, state_of
from occluded_reid.search.index.factory import Factory, parse_factory

__all__ = ["FaissIndex"]

_MOST_FOUND = 2048
"""FAISS returns at most so many rows, and looks into at most so many cells, on a GPU."""

_CUDA = re.compile(r"cuda(?::(?P<numbers>\d+(?:,\d+)*))?\Z")
_INDEX, _DESCRIPTION = "index.faiss", "index.json"
_FORMAT = 1
_HASHED = 1 << 26  # bytes of a file that loading hashes; of inverted lists beyond it, all but the lists themselves
_seen: set[tuple[str, int, tuple[int, ...]]] = set()  # what this process has hashed already
_ADDED = 1 << 16  # vectors handed to FAISS at a time
# Below 20 queries FAISS compares one query after another, each by itself; from 20 on it multiplies matrices, whose last
# bits depend on how many queries there are. Threads come from several calls at once instead.
_QUERIES = 16


@INDEXES.register("faiss")
class FaissIndex(SlotIndex):
    """One FAISS index for one slot, made from a factory string.

    Vectors of an IVF index that was loaded from disk stay there, memory-mapped; a graph or flat index is mapped too.
    One query's answer depends neither on the number of threads nor on the other queries of a call.

    Args:
        width: D, numbers in a vector.
        metric: "inner_product" or "l2".
        factory: see `parse_factory`; with too few training rows it gets fewer cells or becomes Flat (`notes` says so).
        seed: of k-means.
        device: "cpu", "cuda", "cuda:1", or "cuda:0,1" (an equal share of the vectors on each); Flat and IVF only.

    Raises:
        UnknownOptionError: an unsupported factory string, metric or device, or a width that does not fit.

    Example:
        >>> vectors = np.eye(4, dtype=np.float32)
        >>> index = FaissIndex(4, metric="inner_product")
        >>> index.add(vectors, np.array([0, 2, 4, 6]))
        >>> distances, ids = index.search(vectors[1:2], 2)
        >>> ids[0, 0].item(), distances[0].tolist()
        (2, [0.0, 1.0])
    """

    def __init__(
        self, width: int, *, metric: IndexMetric, factory: str = "Flat", seed: int = 0, device: str = "cpu"
    ) -> None:
        super().__init__(width, metric=metric)
        if metric not in ("inner_product", "l2"):
            raise UnknownOptionError(f"index: metric is {metric!r}; give 'inner_product' or 'l2'.")
        self.wanted = parse_factory(factory)
        self.wanted.require_width(width)
        self.factory = self.wanted
        self.seed = seed
        self.device = device
        self._gpus = _gpu_numbers(device, self.wanted)
        self._on_gpu: Any = None
        self._ids: np.ndarray | None = None
        self._path: Path | None = None  # where it was loaded from, while it is memory-mapped
        self._index: Any = None if self.wanted.trained else _make_index(self.wanted, width, metric, seed)

    checked = True  # by `load`

    @property
    def parallel(self) -> bool:  # type: ignore[override]
        """On the CPU, yes."""
        return not self._gpus

    def __len__(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def exact(self) -> bool:
        """True for Flat without prefix."""
        return self.factory.kind == "Flat" and not self.factory.prefix

    @property
    def efforts(self) -> tuple[int, ...]:
        """IVF: cells looked into (nprobe), up to all of them; HNSW: width of the beam (efSearch); Flat: 1."""
        if self.factory.kind == "IVF":
            return tuple(dict.fromkeys([*(1 << i for i in range(self.factory.cells.bit_length())), self.factory.cells]))
        return (16, 32, 64, 128, 256, 512, 1024) if self.factory.kind == "HNSW" else (1,)

    @property
    def default_effort(self) -> int:
        """IVF: a 64th of the cells, at least 8; HNSW: 64."""
        if self.factory.kind == "IVF":
            return min(self.factory.cells, max(8, self.factory.cells // 64))
        return 64 if self.factory.kind == "HNSW" else 1

    def cost(self, effort: int | None = None) -> float:
        """Return about how many vectors one query is compared with."""
        effort = self.default_effort if effort is None else effort
        if self.factory.kind == "IVF":
            return self.factory.cells + len(self) * min(1.0, effort / self.factory.cells)
        # Each vertex that the beam visits has its links looked at, about half of them for the first time.
        return min(len(self), effort * self.factory.links) if self.factory.kind == "HNSW" else len(self)

    def train(self, sample: np.ndarray) -> None:
        """Learn cells, codes and axes from (n, D) vectors; with few rows, make fewer cells or a flat index.

        Raises:
            GalleryError: rows were added already.
            ShapeError: the sample has another shape or holds NaN.
        """
        sample = self._checked(sample)
        if len(self):
            raise GalleryError(f"the index holds {len(self):,} vectors already; train it before the first add().")
        self.factory, self.notes = self.wanted.fit(len(sample), self.width)
        self._index = _make_index(self.factory, self.width, self.metric, self.seed)
        self._on_gpu = None
        if self.factory.trained:
            try:
                self._index.train(sample)
            except RuntimeError as cause:
                raise GalleryError(
                    f"FAISS could not train '{self.factory}' on {len(sample):,} vectors of {self.width} numbers: "
                    f"{_why(cause)}. Give more rows, or another factory string."
                ) from cause

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Add (n, D) vectors under n ids.

        Raises:
            GalleryError: the index is not trained, or was opened with mmap.
            ShapeError: vectors or ids have another shape, or hold NaN or negative ids.
        """
        vectors, ids = self._checked(vectors), np.ascontiguousarray(ids, dtype=np.int64)
        if ids.shape != (len(vectors),) or (len(ids) and ids.min() < 0):
            raise ShapeError(f"{len(vectors)} vectors need as many ids of at least 0; got an array {ids.shape}.")
        if self._path is not None:
            raise GalleryError("the index is memory-mapped and can only be read; load(…, mmap=False) to add to it.")
        if self._index is None:
            raise GalleryError(f"'{self.wanted}' learns from a sample first; call train() before add().")
        # A graph depends on the order in which its vertices come.
        with _one_thread() if self.factory.kind == "HNSW" else nullcontext():
            for start in range(0, len(ids), _ADDED):
                self._index.add_with_ids(vectors[start : start + _ADDED], ids[start : start + _ADDED])
        self._on_gpu = None

    def search(
        self, queries: np.ndarray, m: int, *, effort: int | None = None, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return distances (nq, m) and ids (nq, m) of the nearest vectors that were found.

        On a GPU, FAISS knows no selectors and finds at most 2,048: with `allowed`, more are asked for and the others
        dropped.

        Raises:
            ShapeError: queries have another width, or m or effort is below 1.
        """
        queries = self._checked(queries)
        if m < 1 or (effort is not None and effort < 1):
            raise ShapeError(f"m is {m} and effort is {effort}; both must be at least 1.")
        distances = np.full((len(queries), m), np.inf, dtype=np.float32)
        ids = np.full((len(queries), m), -1, dtype=np.int64)
        asked = min(m, len(self))
        if not asked or not len(queries):
            return distances, ids
        search = self._search_gpu if self._gpus else self._search_cpu
        effort = self.default_effort if effort is None else effort
        distances[:, :asked], ids[:, :asked] = search(queries, asked, effort, allowed)
        return distances, ids

    def save(self, path: Path) -> None:
        """Write index.faiss and index.json into the folder `path`.

        Raises:
            GalleryError: it cannot be written, or nothing was trained yet.
        """
        if self._index is None:
            raise GalleryError(f"'{self.wanted}' was never trained; there is nothing to save.")
        path = Path(path)
        with atomic_write(path / _INDEX, GalleryError) as temporary:
            if self._path is not None:
                # FAISS would write a reference to the mapped file instead of what is in it.
                shutil.copyfile(self._path / _INDEX, temporary)
            else:
                try:
                    _import_faiss().write_index(self._index, str(temporary))
                except RuntimeError as cause:
                    raise GalleryError(
                        f"'{path / _INDEX}' could not be written: {_why(cause)}. Free some space; nothing was left."
                    ) from cause
            checked = self._checked_bytes(temporary.stat().st_size)
            mark = _digest(temporary, checked)
        description = {
            "format": _FORMAT,
            "width": self.width,
            "metric": self.metric,
            "wanted": self.wanted.text,
            "factory": self.factory.text,
            "seed": self.seed,
            "vectors": len(self),
            "notes": self.notes,
            "checked": [checked, mark],
        }
        write_json(path / _DESCRIPTION, description, GalleryError)

    @classmethod
    def load(cls, path: Path, *, mmap: bool = True, device: str = "cpu") -> Self:
        """Read what `save` has written.

        Args:
            path: the folder.
            mmap: leave vectors on the disk; the index can then not be added to, and the files must stay.
            device: as for the class.

        Raises:
            GalleryError: files are missing, damaged or of a newer format.
        """
        faiss = _import_faiss()
        path = Path(path)
        described = read_json(path / _DESCRIPTION, GalleryError)
        try:
            if described["format"] != _FORMAT:
                raise GalleryError(
                    f"'{path}' holds an index of format {described['format']}; this version reads {_FORMAT}. "
                    "Update occluded-reid, or build the index again."
                )
            index = cls(
                described["width"],
                metric=described["metric"],
                factory=described["wanted"],
                seed=described["seed"],
                device=device,
            )
            index.factory, index.notes = parse_factory(described["factory"]), list(described["notes"])
            vectors = int(described["vectors"])
        except (KeyError, TypeError, ValueError) as cause:
            if isinstance(cause, GalleryError):
                raise
            raise GalleryError(f"'{path}' holds no index: {_DESCRIPTION} lacks {cause}. Build it again.") from cause
        _require_as_written(path, described.get("checked"))
        mapped = faiss.IO_FLAG_MMAP if index.factory.kind == "IVF" else faiss.IO_FLAG_MMAP_IFC
        try:
            index._index = faiss.read_index(str(path / _INDEX), mapped if mmap else 0)
        except RuntimeError as cause:
            raise GalleryError(f"'{path / _INDEX}' could not be read: {_why(cause)}. Build the index again.") from cause
        if index._index.d != index.width or index._index.ntotal != vectors:
            raise GalleryError(
                f"'{path / _INDEX}' holds {index._index.ntotal} vectors of {index._index.d} numbers; {vectors} of "
                f"{index.width} were written. Build the index again."
            )
        if mmap:
            index._path = path
            ivf = faiss.try_extract_index_ivf(index._index)
            if ivf is not None:
                # By default every search starts 32 threads that read ahead; the page cache does that better.
                faiss.downcast_InvertedLists(ivf.invlists).prefetch_nthread = 0
        return index

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise ShapeError(f"the index holds vectors of {self.width} numbers; got an array {vectors.shape}.")
        if not np.isfinite(vectors.sum(dtype=np.float64)):
            raise ShapeError("the vectors hold NaN or infinity; an index takes finite numbers only.")
        return vectors

    def _checked_bytes(self, size: int) -> int:
        """How much of its file is hashed: what FAISS follows blindly, and the rest too where that takes no time.

        Inverted lists lie at the end of the file. A flipped bit in them costs a candidate, and nothing else.
        """
        ivf = _import_faiss().try_extract_index_ivf(self._index)
        lists = 0 if ivf is None else len(self) * (int(ivf.code_size) + 8)
        return size if size <= _HASHED or lists >= size else size - lists

    def _search_cpu(
        self, queries: np.ndarray, m: int, effort: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        parameters = _search_parameters(self.factory, m, effort, allowed)
        with _one_thread():
            found = [
                self._index.search(queries[start : start + _QUERIES], m, params=parameters)
                for start in range(0, len(queries), _QUERIES)
            ]
        distances, ids = (np.concatenate(part) for part in zip(*found, strict=True))
        return self._as_distance(distances, ids), ids

    def _search_gpu(
        self, queries: np.ndarray, m: int, effort: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._on_gpu is None:
            inner = self._index
            if self.factory.kind != "IVF":
                faiss = _import_faiss()
                inner, self._ids = faiss.downcast_index(inner.index), faiss.vector_to_array(inner.id_map)
            self._on_gpu = _to_gpu(inner, self._gpus)
        asked = m
        if allowed is not None:
            share = max(1e-3, float(np.count_nonzero(allowed)) / max(1, len(allowed)))
            asked = min(len(self), _MOST_FOUND, int(1.5 * m / share) + 16)
        asked = min(asked, _MOST_FOUND)
        distances, ids = self._on_gpu.search(
            queries, asked, params=_search_parameters(self.factory, asked, effort, None)
        )
        if self._ids is not None:
            ids = np.where(ids >= 0, self._ids[ids], -1)
        distances = self._as_distance(distances, ids)
        if allowed is not None:
            known = np.append(np.asarray(allowed, dtype=bool), False)
            dropped = ~known[np.where((ids >= 0) & (ids < len(allowed)), ids, -1)]
            ids[dropped], distances[dropped] = -1, np.inf
            order = np.argsort(dropped, axis=1, kind="stable")
            ids, distances = np.take_along_axis(ids, order, 1), np.take_along_axis(distances, order, 1)
        if asked < m:
            gap = ((0, 0), (0, m - asked))
            ids, distances = np.pad(ids, gap, constant_values=-1), np.pad(distances, gap, constant_values=np.inf)
        return distances[:, :m], ids[:, :m]

    def _as_distance(self, found: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """FAISS gives similarities for inner products, and the largest numbers where nothing was found."""
        if self.metric == "inner_product":
            found = 1 - found
        return np.where(ids < 0, np.float32(np.inf), found)


def _import_faiss() -> Any:
    """Return the module.

    Raises:
        MissingExtraError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as cause:
        raise MissingExtraError(
            f"FAISS could not be imported ({cause}). On Linux x86-64: pip install faiss-gpu; elsewhere: "
            "pip install faiss-cpu. Never both: they overwrite each other."
        ) from cause


def _make_index(factory: Factory, width: int, metric: IndexMetric, seed: int) -> Any:
    """Return an empty FAISS index that takes vectors with ids."""
    faiss = _import_faiss()
    # Only inverted lists keep ids; the others get a list of them beside.
    text = factory.text if factory.kind == "IVF" else f"IDMap,{factory.text}"
    index = faiss.index_factory(
        width, text, faiss.METRIC_INNER_PRODUCT if metric == "inner_product" else faiss.METRIC_L2
    )
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.cp.seed = seed
        if factory.coding == "PQ":
            faiss.downcast_index(ivf).pq.cp.seed = seed
    return index


def _search_parameters(factory: Factory, m: int, effort: int, allowed: np.ndarray | None) -> Any:
    """Return FAISS's parameters of one search.

    Args:
        factory: how the index was made.
        m: neighbours wanted.
        effort: nprobe, or efSearch, which is at least m.
        allowed: boolean for each id, or None.
    """
    faiss = _import_faiss()
    selector = None
    if allowed is not None:
        selector = faiss.IDSelectorBitmap(np.packbits(np.asarray(allowed, dtype=bool), bitorder="little"))
    if factory.kind == "IVF":
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(effort, factory.cells))
    if factory.kind == "HNSW":
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, m))
    return faiss.SearchParameters(sel=selector)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let FAISS work in the calling thread alone, whatever other threads do."""
    faiss = _import_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # OpenMP keeps this number for each thread that calls it
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _why(cause: Exception) -> str:
    """Return what FAISS says went wrong, without C++ names and line numbers.

    Example:
        >>> _why(RuntimeError("Error in read at io.cpp:1: Error: 'f' failed: could not open x: No such file"))
        "'f' failed: could not open x: No such file"
    """
    return (str(cause).rsplit("Error: ", 1)[-1].strip().splitlines() or ["no reason given"])[0].rstrip(".")


def _gpu_numbers(device: str, factory: Factory) -> tuple[int, ...]:
    """Return the numbers of the GPUs that a device names; none for "cpu".

    Args:
        device: "cpu", "cuda" (the first GPU), "cuda:1" or "cuda:0,1".
        factory: what is to live there.

    Raises:
        DeviceError: there is no such device, FAISS was built without GPUs, or a GPU cannot hold this index.
    """
    if device == "cpu":
        return ()
    named = _CUDA.match(device)
    if named is None:
        raise DeviceError(f"index: device is {device!r}; give 'cpu', 'cuda', 'cuda:1' or 'cuda:0,1'.")
    faiss = _import_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise DeviceError(
            f"index: device is {device!r}, but this FAISS was built without GPUs. On Linux x86-64: "
            "pip uninstall faiss-cpu && pip install faiss-gpu. Elsewhere use device='cpu'."
        )
    count = faiss.get_num_gpus()
    numbers = tuple(int(n) for n in (named["numbers"] or "0").split(","))
    if len(set(numbers)) != len(numbers) or max(numbers) >= count:
        raise DeviceError(
            f"index: device is {device!r}, but FAISS sees {count} GPU{'' if count == 1 else 's'} (numbered from 0). "
            "Name those that exist, each once, or use device='cpu'."
        )
    if factory.kind == "HNSW":
        raise DeviceError(f"index: '{factory}' does not run on a GPU; use Flat or IVF there, or device='cpu'.")
    return numbers


def _to_gpu(index: Any, numbers: tuple[int, ...]) -> Any:
    """Return a copy of a filled FAISS index on these GPUs; on several, each holds a share of the vectors."""
    faiss = _import_faiss()
    resources = [faiss.StandardGpuResources() for _ in numbers]
    if len(numbers) == 1:
        return faiss.index_cpu_to_gpu(resources[0], numbers[0], index)
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    return faiss.index_cpu_to_gpu_multiple_py(resources, index, options, gpus=list(numbers))


def _digest(file: Path, count: int) -> str:
    """Return the sha256 of the first bytes of a file."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while count > 0 and (piece := stream.read(min(count, 1 << 22))):
            found.update(piece)
            count -= len(piece)
    return found.hexdigest()


def _require_as_written(folder: Path, checked: Any) -> None:
    """Refuse a file that FAISS would stumble over; what an older release has written cannot be told.

    Raises:
        DamagedIndexError: it is not what was written.
    """
    if checked is None:
        return
    file = folder / _INDEX
    try:
        count, mark = checked
        seen = (str(mark), int(count), state_of(file))
        same = seen in _seen or _digest(file, int(count)) == mark
    except (OSError, TypeError, ValueError) as cause:
        raise GalleryError(f"'{file}' could not be read: {cause}. Build the index again.") from cause
    if same:
        _seen.add(seen)
    else:
        raise DamagedIndexError(f"'{file}' is damaged: it is not what was written. Build the index again.")
