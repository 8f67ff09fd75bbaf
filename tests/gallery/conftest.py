from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.pixels import to_rgb

SLOTS = {"global": 8, "part_1": 5, "part_2": 5}


def random_rows(count: int, seed: int = 0, slots: dict[str, int] = SLOTS) -> PartEmbeddings:
    """Rows that float16 holds exactly, so that a gallery gives back what it was given."""
    source = torch.Generator().manual_seed(seed)
    visible = (torch.rand(count, len(slots), generator=source) > 0.3).float()
    visible[:, 0] = 1
    embeddings = tuple(torch.randn(count, width, generator=source).half().float() for width in slots.values())
    return PartEmbeddings(tuple(slots), embeddings, visible)


class FakeModel:
    """The mean colours of a picture, as slots: all that a gallery asks of a model, in a few lines."""

    def __init__(self, fingerprint: str = "fake@1234") -> None:
        self.slots = {"global": 3, "part_1": 3}
        self.fingerprint = fingerprint
        self.matcher = VisibilityWeightedMatcher(metric="euclidean")
        self.embedded = 0

    def preprocess(self, images: list[Any]) -> torch.Tensor:
        arrays = [np.asarray(to_rgb(image), dtype=np.float32)[:4, :4] for image in images]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255

    def embed(self, images: torch.Tensor) -> PartEmbeddings:
        self.embedded += len(images)
        whole, upper = images.mean((2, 3)), images[:, :, :2].mean((2, 3))
        whole = torch.where((images.amin((1, 2, 3)) == 1)[:, None], torch.nan, whole)  # a white image is its undoing
        return PartEmbeddings(("global", "part_1"), (whole, upper), torch.ones(len(images), 2))


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Seven small pictures of noise."""
    source = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / f"{i}.png" for i in range(7)]
    for path in paths:
        Image.fromarray(source.integers(0, 200, (6, 4, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def tree_hash() -> Callable[[Path], dict[str, str]]:
    """Name and content of everything below a folder."""

    def hashes(folder: Path) -> dict[str, str]:
        return {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "folder"
            for file in sorted(folder.rglob("*"))
        }

    return hashes


@pytest.fixture
def make_rows() -> Callable[..., PartEmbeddings]:
    return random_rows
