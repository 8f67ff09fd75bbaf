"""Images on their way into a gallery or a query: what they are called, what they hold, and their embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, GalleryError, ImageError
from occluded_reid.matchers.base import Matcher

__all__ = ["EmbeddingModel", "ImageLike", "Source", "as_list", "embed_images", "identify"]

ImageLike = str | Path | Image.Image | np.ndarray


class EmbeddingModel(Protocol):
    """What a gallery asks of a model; a `ReIDModel` is one."""

    @property
    def slots(self) -> Mapping[str, int]:
        """Name and width of each slot."""
        ...

    @property
    def fingerprint(self) -> str:
        """Stable name of configuration and weights, "sorn@3f9a…"."""
        ...

    @property
    def matcher(self) -> Matcher:
        """The system's own matcher."""
        ...

    @property
    def preprocess(self) -> Any:
        """A callable from a list of images to (N, 3, H, W)."""
        ...

    def embed(self, images: Tensor) -> PartEmbeddings:
        """Embed preprocessed images."""
        ...


@dataclass(frozen=True)
class Source:
    """Where an image comes from and what it holds.

    Attributes:
        key: its path as given; for an image in memory its sha256.
        sha256: of the file's bytes; for an image in memory of shape and RGB pixels.
        path: its path as given, or None.
    """

    key: str
    sha256: str
    path: str | None


def as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """Return a list, whether one image was given or several ((N, H, W, 3) arrays are several)."""
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 3):
        return [images]
    return list(images)


def identify(image: ImageLike) -> Source:
    """Hash an image and give it a key.

    Raises:
        ImageError: the file cannot be read; it is named.
    """
    if isinstance(image, str | Path):
        path = Path(image).as_posix()
        try:
            with Path(image).open("rb") as file:
                return Source(path, hashlib.file_digest(file, "sha256").hexdigest(), path)
        except (OSError, ValueError) as cause:
            why = getattr(cause, "strerror", None) or cause
            raise ImageError(
                f"the image '{path}' cannot be read: {why}. Check the path and its permissions."
            ) from cause
    if not isinstance(image, Image.Image | np.ndarray):
        raise GalleryError(
            f"an image is given as a path, a PIL image or a (H, W, 3) uint8 array; got {type(image).__name__}."
        )
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return Source(digest.hexdigest(), digest.hexdigest(), None)


def embed_images(
    model: EmbeddingModel,
    images: Sequence[ImageLike],
    names: Sequence[str],
    batch_size: int,
    unreadable: list[int] | None = None,
) -> Iterator[PartEmbeddings]:
    """Embed images batch by batch, on the CPU in the end.

    Args:
        model: preprocesses and embeds.
        images: N images.
        names: what messages call them.
        batch_size: images in one pass.
        unreadable: receives the numbers of images that cannot be read, which then have no row; None raises instead.

    Raises:
        ImageError: an image cannot be read; it is named.
        EmbeddingError: the model gives NaN; the image is named.
    """
    for first in range(0, len(images), batch_size):
        numbers = list(range(first, min(first + batch_size, len(images))))
        try:
            pixels = model.preprocess([images[number] for number in numbers])
        except (ImageError, OSError):  # which image is it? one by one they tell
            pixels, numbers = _read_one_by_one(model, images, names, numbers, unreadable)
        if numbers:
            yield _embed(model, pixels, [names[number] for number in numbers])


def _read_one_by_one(
    model: EmbeddingModel,
    images: Sequence[ImageLike],
    names: Sequence[str],
    numbers: Sequence[int],
    unreadable: list[int] | None,
) -> tuple[Tensor, list[int]]:
    pixels: list[Tensor] = [torch.empty(0)]
    readable: list[int] = []
    for number in numbers:
        try:
            pixels.append(model.preprocess([images[number]]))
        except (ImageError, OSError) as cause:
            if unreadable is not None:
                unreadable.append(number)
            elif isinstance(cause, ImageError):
                raise
            else:
                raise ImageError(f"the image '{names[number]}' cannot be read: {cause}.") from cause
        else:
            readable.append(number)
    return torch.cat(pixels[1:] or pixels), readable


def _embed(model: EmbeddingModel, pixels: Tensor, names: Sequence[str]) -> PartEmbeddings:
    try:
        return model.embed(pixels).to("cpu")
    except EmbeddingError as cause:
        # Which image is it? One by one they tell.
        for image, name in zip(pixels, names, strict=True):
            try:
                model.embed(image[None])
            except EmbeddingError as single:
                raise EmbeddingError(f"the model cannot embed '{name}': {single}") from cause
        raise
