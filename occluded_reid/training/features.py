"""What a frozen backbone gives for augmented views: computed once, kept on the disk, and read in later epochs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from occluded_reid.backbones.frozen import FrozenBackbone
from occluded_reid.errors import TrainingError
from occluded_reid.files import write_text
from occluded_reid.models import ReIDModel

__all__ = ["FEATURES", "FeatureCache", "feature_cache", "kept_features"]

FEATURES = "features"
"""Folder of a run in which features are kept until the run is done."""

_ENTRY = np.dtype([("view", "V16"), ("check", "<u4")])
_INDEX = "views.bin"

Network = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Computes for images (N, 3, H, W) its tensors, each (N, …)."""


class FeatureCache:
    """The tensors of a frozen network for images it has seen, in float16, found by a hash of the image's pixels.

    As an image is known by its content, nothing else can go wrong: another augmentation, order or seed is another
    image, and is computed. Rows are appended; each has a checksum, and one that is damaged, or was cut off when a run
    was killed, is computed again.

    Args:
        folder: for the rows of one network; it is made.
        rows: how many there will be, to know beforehand whether the disk is large enough; 0 asks nothing.

    Raises:
        TrainingError: the folder cannot be written.
    """

    def __init__(self, folder: Path, rows: int = 0) -> None:
        self.folder, self.computed = folder, 0
        self._rows = rows
        self._shapes: list[tuple[int, ...]] = []
        self._maps: list[np.ndarray] = []
        self._place: dict[bytes, int] = {}
        self._checks: list[int] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as cause:
            raise TrainingError(
                f"features cannot be kept in '{folder}': {cause.strerror or cause}. Name another folder: "
                "data.feature_cache=FOLDER."
            ) from cause

    def __call__(self, images: np.ndarray, network: Network) -> list[np.ndarray]:
        """Return the network's tensors in float32, rounded to float16 whether they were known or not.

        Args:
            images: (N, 3, H, W).
            network: computes those that are not known.

        Raises:
            TrainingError: a value is beyond what float16 holds, or the disk is full.
        """
        views = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
        rows = [self._read(view) for view in views]
        missing = [number for number, row in enumerate(rows) if row is None]
        if missing:
            made = [_in_float16(tensor) for tensor in network(np.ascontiguousarray(images[missing]))]
            self._append([views[number] for number in missing], made)
            for place, number in enumerate(missing):
                rows[number] = [tensor[place] for tensor in made]
            self.computed += len(missing)
        whole = [row for row in rows if row is not None]
        return [np.stack(tensors).astype(np.float32) for tensors in zip(*whole, strict=True)]

    def _open(self) -> None:
        """Take over what is there, up to the last row that is whole in every file."""
        description = self.folder / "tensors.json"
        if not description.exists():
            return
        try:
            self._shapes = [tuple(map(int, shape)) for shape in json.loads(description.read_text(encoding="utf-8"))]
        except (ValueError, TypeError):  # damaged: what lies beside it has no meaning any more
            for file in (*self.folder.glob("tensor_*.f16"), self.folder / _INDEX, description):
                file.unlink(missing_ok=True)
            return
        index = self.folder / _INDEX
        sizes = [_size(self._file(n)) // (2 * max(1, int(np.prod(s)))) for n, s in enumerate(self._shapes)]
        count = min([_size(index) // _ENTRY.itemsize, *sizes])
        for number, shape in enumerate(self._shapes):
            os.truncate(self._touched(self._file(number)), 2 * count * int(np.prod(shape)))
        os.truncate(self._touched(index), count * _ENTRY.itemsize)
        entries = np.fromfile(index, dtype=_ENTRY)
        self._place = {bytes(view): row for row, view in enumerate(entries["view"])}
        self._checks = entries["check"].tolist()

    def _read(self, view: bytes) -> list[np.ndarray] | None:
        """The tensors of a view; None where it is not known, or damaged."""
        row = self._place.get(view)
        if row is None:
            return None
        if not self._maps or row >= len(self._maps[0]):
            self._maps = [
                np.memmap(self._file(n), dtype=np.float16, mode="r").reshape(-1, *shape)
                for n, shape in enumerate(self._shapes)
            ]
        tensors = [np.array(each[row]) for each in self._maps]
        return tensors if _check(tensors) == self._checks[row] else None

    def _append(self, views: Sequence[bytes], tensors: Sequence[np.ndarray]) -> None:
        if not self._shapes:
            self._begin(tensors)
        entries = np.empty(len(views), dtype=_ENTRY)
        entries["view"] = np.frombuffer(b"".join(views), dtype="V16")
        entries["check"] = [_check([tensor[row] for tensor in tensors]) for row in range(len(views))]
        try:
            for number, tensor in enumerate(tensors):
                with self._file(number).open("ab") as stream:
                    stream.write(tensor.tobytes())
            with (self.folder / _INDEX).open("ab") as stream:
                stream.write(entries.tobytes())
        except OSError as cause:
            raise TrainingError(
                f"features cannot be kept in '{self.folder}': {cause.strerror or cause}. Free some space and go on "
                "with --resume, or name another folder: data.feature_cache=FOLDER."
            ) from cause
        for view, check in zip(views, entries["check"].tolist(), strict=True):
            self._place[view] = len(self._checks)
            self._checks.append(check)

    def _begin(self, tensors: Sequence[np.ndarray]) -> None:
        self._shapes = [tensor.shape[1:] for tensor in tensors]
        need = self._rows * (_ENTRY.itemsize + sum(2 * int(np.prod(shape)) for shape in self._shapes))
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise TrainingError(
                f"the features of {self._rows:,} views take {need / 1e9:.1f} GB, and '{self.folder}' has room for "
                f"{free / 1e9:.1f}. Name fewer tensors (model.backbone.options.outputs), fewer views "
                "(data.distinct_views), or another folder (data.feature_cache)."
            )
        write_text(self.folder / "tensors.json", json.dumps(self._shapes), TrainingError)

    def _file(self, number: int) -> Path:
        return self.folder / f"tensor_{number}.f16"

    @staticmethod
    def _touched(file: Path) -> Path:
        file.touch()
        return file


@contextmanager
def kept_features(model: ReIDModel, cache: FeatureCache | None) -> Iterator[None]:
    """While entered, the frozen backbone computes only views that the cache does not know; None changes nothing."""
    if cache is None or not isinstance(model.backbone, FrozenBackbone):
        yield
        return
    model.backbone.cache = cache
    try:
        yield
    finally:
        model.backbone.cache = None


def feature_cache(model: ReIDModel, output: Path, images: int, process: int = 0) -> FeatureCache | None:
    """Return the cache that the recipe's ``data.distinct_views`` asks for; None where it asks for none.

    Args:
        model: to be trained.
        output: folder of the run; features are kept below it unless the recipe names ``data.feature_cache``.
        images: of one epoch.
        process: rank; each process keeps its own.

    Raises:
        TrainingError: the backbone is trained, so that what it gives changes with every step; or the folder cannot be
            written.
    """
    data = model.recipe.data
    views: int | None = getattr(data, "distinct_views", None)  # a parser's recipe knows no such thing
    if views is None:
        return None
    if not isinstance(model.backbone, FrozenBackbone):
        raise TrainingError(
            f"data.distinct_views={views} repeats augmented views, so that a frozen backbone computes "
            f"each once; '{model.recipe.model.backbone.type}' is trained. Leave it out, or take the type onnx or "
            "openvino."
        )
    folder = Path(data.feature_cache) if data.feature_cache else output / FEATURES
    name = model.backbone.network_digest()[:16] + (f"-{process}" if process else "")
    return FeatureCache(folder / name, rows=images * views)


def _in_float16(tensor: np.ndarray) -> np.ndarray:
    largest = float(np.abs(tensor).max(initial=0.0))
    if not largest <= float(np.finfo(np.float16).max):  # NaN too
        raise TrainingError(
            f"the frozen backbone gives {largest:g}, which float16 does not hold, so its features cannot be kept. "
            "Leave data.distinct_views out."
        )
    return tensor.astype(np.float16)


def _check(tensors: Sequence[np.ndarray]) -> int:
    check = 0
    for tensor in tensors:
        check = zlib.crc32(tensor.tobytes(), check)
    return check


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
