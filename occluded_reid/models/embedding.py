"""From images to embeddings, batch by batch: the next ones are read while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from occluded_reid.ahead import ahead, reading_threads
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ImageError, ShapeError
from occluded_reid.models.preprocess import Preprocess
from occluded_reid.pixels import ImageLike

__all__ = ["Embeds", "embed_images"]


class Embeds(Protocol):
    """What embeds images; a `ReIDModel` does."""

    @property
    def preprocess(self) -> Any:
        """A callable from a list of images to (N, 3, H, W)."""
        ...

    def embed(self, images: Tensor) -> PartEmbeddings:
        """Embed preprocessed images."""
        ...


def embed_images(
    model: Embeds,
    images: Sequence[ImageLike],
    names: Sequence[str],
    batch_size: int,
    unreadable: list[int] | None = None,
) -> Iterator[PartEmbeddings]:
    """Embed images batch by batch, on the CPU in the end; the next ones are read while the model computes.

    Args:
        model: preprocesses and embeds.
        images: N images.
        names: what messages call them.
        batch_size: images in one pass.
        unreadable: receives the numbers of images that cannot be read, which then have no row; None raises instead.

    Raises:
        ImageError: an image cannot be read, or has no pixels; it is named.
        ShapeError: an array or a tensor is no image; it is named.
        EmbeddingError: the model gives NaN; the image is named.
    """
    batches = [range(first, min(first + batch_size, len(images))) for first in range(0, len(images), batch_size)]
    own = isinstance(model.preprocess, Preprocess)
    # A crop is found by a network, which has the processor's cores itself; a PIL image that is there twice must not be
    # decoded by two threads; and what is not the library's may bear none.
    alone = not own or model.preprocess.crops or any(isinstance(image, Image.Image) for image in images)
    threads = 0 if alone else min(reading_threads(), len(batches) - 1)
    read: Callable[[list[ImageLike]], Any] = model.preprocess.pixels if own else model.preprocess

    def prepared(numbers: range) -> _Read:
        try:
            return _Read(read([images[number] for number in numbers]), list(numbers), [])
        except (ImageError, OSError, ShapeError):  # which image is it? one by one they tell
            return _one_by_one(read, images, names, numbers, skip=unreadable is not None)

    for batch in ahead(prepared, batches, threads):
        if unreadable is not None:
            unreadable += batch.unreadable
        if batch.numbers:
            pixels = model.preprocess.normalize(batch.pixels) if own else batch.pixels
            yield _embed(model, pixels, [names[number] for number in batch.numbers])


class _Read(NamedTuple):
    """What a model is to see of some images, their numbers, and the numbers of those that cannot be read."""

    pixels: Any
    numbers: list[int]
    unreadable: list[int]


def _one_by_one(
    read: Callable[[list[ImageLike]], Any],
    images: Sequence[ImageLike],
    names: Sequence[str],
    numbers: Iterable[int],
    *,
    skip: bool,
) -> _Read:
    pixels: list[Any] = []
    readable, unreadable = [], []
    for number in numbers:
        try:
            pixels.append(read([images[number]]))
        except (ImageError, OSError) as cause:
            if skip:
                unreadable.append(number)
            elif isinstance(cause, ImageError) and isinstance(images[number], str | Path):
                raise  # it names its file
            else:
                raise ImageError(f"the image '{names[number]}' cannot be read: {cause}") from cause
        except ShapeError as cause:
            raise ShapeError(f"'{names[number]}': {cause}") from cause
        else:
            readable.append(number)
    together = np.concatenate if pixels and isinstance(pixels[0], np.ndarray) else torch.cat
    return _Read(together(pixels) if pixels else None, readable, unreadable)


def _embed(model: Embeds, pixels: Tensor, names: Sequence[str]) -> PartEmbeddings:
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
