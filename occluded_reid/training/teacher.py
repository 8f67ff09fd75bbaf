"""A teacher's embeddings of training images: computed once, kept by the images' sha256 and the teacher's name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from occluded_reid.ahead import ahead, reading_threads
from occluded_reid.config import TeacherConfig
from occluded_reid.data.dataset import Sample
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import CheckpointError, ImageError, RecipeError
from occluded_reid.files import read_safetensors, write_safetensors
from occluded_reid.models import ReIDModel, load_model

__all__ = ["Teacher", "one_vector", "require_teacher", "teacher_of"]

_BATCH = 64
_SAVED_EVERY = 64  # batches


class Teacher:
    """Gives each training image's embedding by another model, which sees it as it is: clean, whole, not augmented.

    What has been computed is kept in a folder, one file a teacher, and is not computed again in any later run; a run
    that was stopped has lost at most the last few thousand images.

    Args:
        config: the recipe's ``data.teacher``.
        folder: where embeddings are kept, unless the recipe names another.
        progress: called with (images done, images) while they are computed.

    Raises:
        CheckpointError, WeightsError: the teacher cannot be loaded.
    """

    def __init__(self, config: TeacherConfig, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
        self.model: ReIDModel = load_model(config.model, preset=config.preset)
        self.width = sum(self.model.slots.values())
        name = re.sub(r"[^\w.@-]", "_", self.model.fingerprint)
        self.file = (Path(config.cache) if config.cache else folder) / f"{name}.safetensors"
        self._progress = progress

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Return the embeddings (N, D) of some images, each slot of unit length, weighted by its visibility.

        Raises:
            ImageError: an image cannot be read.
            CheckpointError: the file of kept embeddings is damaged or of another width, or cannot be written.
        """
        names, rows = self._kept()
        place = {name: row for row, name in enumerate(names)}
        hashes = [_sha256(sample) for sample in samples]
        first = {name: sample for sample, name in zip(reversed(samples), reversed(hashes), strict=True)}
        missing = [(name, sample) for name, sample in first.items() if name not in place]
        missing.sort(key=lambda item: item[0])
        parts = [rows]
        batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
        see, done = self.model.preprocess, 0
        read = ahead(
            lambda some: see.pixels([sample.path for _, sample in some]),
            batches,
            0 if see.crops else min(reading_threads(), len(batches) - 1),
        )
        for number, (some, pixels) in enumerate(zip(batches, read, strict=True), start=1):
            parts.append(one_vector(self.model.embed(see.normalize(pixels))))
            names += [name for name, _ in some]
            done += len(some)
            if done == len(missing) or number % _SAVED_EVERY == 0:
                self._keep(names, torch.cat(parts))
            if self._progress is not None:
                self._progress(done, len(missing))
        place = {name: row for row, name in enumerate(names)}
        return torch.cat(parts)[[place[name] for name in hashes]]

    def _kept(self) -> tuple[list[str], Tensor]:
        if not self.file.exists():
            return [], torch.empty(0, self.width)
        tensors, metadata = read_safetensors(self.file, CheckpointError)
        rows = tensors.get("embeddings")
        try:
            names = json.loads(metadata["sha256"])
        except (KeyError, ValueError):
            names = None
        if rows is None or not isinstance(names, list) or rows.shape != (len(names), self.width):
            found = "no embeddings" if rows is None else f"embeddings of the shape {tuple(rows.shape)}"
            raise CheckpointError(
                f"'{self.file}' holds {found}; wanted one row of {self.width} numbers for each of its images, as the "
                f"teacher '{self.model.name}' gives them. Remove the file, and they are computed again."
            )
        return names, rows

    def _keep(self, names: list[str], rows: Tensor) -> None:
        metadata = {"teacher": self.model.fingerprint, "sha256": json.dumps(names)}
        write_safetensors(self.file, {"embeddings": rows}, metadata, CheckpointError)


def one_vector(embeddings: PartEmbeddings) -> Tensor:
    """Return all slots side by side, (N, D): each of unit length, times its visibility."""
    parts = [normalize(rows) for rows in embeddings.embeddings]
    seen = embeddings.visibility.unbind(1)
    return torch.cat([rows * share[:, None] for rows, share in zip(parts, seen, strict=True)], dim=1)


def _sha256(sample: Sample) -> str:
    try:
        with sample.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise ImageError(f"'{sample.path}' cannot be read: {cause.strerror}.") from cause


def teacher_of(config: TeacherConfig | None, output: Path) -> Teacher | None:
    """Return the teacher that a recipe names, which keeps its embeddings beside the run; None where it names none."""
    return None if config is None else Teacher(config, output / "teacher")


def require_teacher(config: TeacherConfig | None, losses: Sequence[str]) -> None:
    """Refuse a recipe that learns from a teacher and names none.

    Raises:
        RecipeError: there is such a loss and no teacher.
    """
    if config is None and "distillation" in losses:
        raise RecipeError(
            "the recipe learns from a teacher, and data.teacher names none. Give a model's folder or a network's file: "
            "--set data.teacher.model=FILE; or leave the loss 'distillation' out."
        )
