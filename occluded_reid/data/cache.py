"""Decoded images at a model's input size, kept in memory as bytes while they fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from occluded_reid.data.dataset import Sample
from occluded_reid.data.images import merge_classes, open_image, open_mask
from occluded_reid.data.resize import resize_image, resize_mask
from occluded_reid.errors import DataError, ImageError, MaskError

__all__ = ["DecodedImages"]

_SHARED = Path("/dev/shm")
_CHUNK = 64
_THREADS = 4

Decoded = tuple[np.ndarray, np.ndarray | None]


class DecodedImages:
    """Images (H, W, 3) uint8 by position, with their part masks; decoded once if they fit in memory, else when asked.

    In memory they lie in shared memory where there is room for them, so that worker processes read the same copy.
    Memory: the images (and H·W bytes a mask), at most `limit_bytes`, and a few decoded files while reading.

    Args:
        samples: the images, in order.
        height: rows of the model's input.
        width: columns of the model's input.
        masks: 0 for none, or the number of part classes: 8, 5 or 2.
        resample: "bilinear" or "bicubic".
        limit_bytes: when more would be needed, images are decoded at each access instead.
        skip_unreadable: leave out images that cannot be read, and name them in `skipped`, instead of raising.
        progress: called with (images decoded, images).

    Attributes:
        samples: the samples that can be had, without those skipped; positions count along them.
        skipped: names of the unreadable ones.
        in_memory: whether all are kept decoded.

    Raises:
        DataError: there are no samples, or none can be read.
        ImageError: an image cannot be read; it is named.
        MaskError: a mask is wanted and is missing, damaged, or does not fit its image.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        height: int,
        width: int,
        *,
        masks: int = 0,
        resample: str = "bilinear",
        limit_bytes: int = 4 << 30,
        skip_unreadable: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if not samples:
            raise DataError("there are no images to decode. Is the split empty, or everything held out?")
        if masks:
            _require_masks(samples)
        self.height, self.width, self.masks, self.resample = height, width, masks, resample
        self.samples: tuple[Sample, ...] = tuple(samples)
        self.skipped: tuple[str, ...] = ()
        self.in_memory = len(samples) * height * width * (4 if masks else 3) <= limit_bytes
        self._images: Tensor | None = None
        self._parts: Tensor | None = None
        if self.in_memory or skip_unreadable:
            self._read_all(skip_unreadable, progress)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Decoded:
        """Return one image (H, W, 3) and its part mask (H, W), or None without masks; both uint8, not to be written to.

        Raises:
            ImageError: it is not in memory and can no longer be read.
            MaskError: likewise for its mask.
        """
        if self._images is None:
            return self._decode(self.samples[position])
        return self._images[position].numpy(), None if self._parts is None else self._parts[position].numpy()

    def _decode(self, sample: Sample) -> Decoded:
        image = open_image(sample.path)
        pixels = resize_image(image, self.height, self.width, self.resample)
        if not self.masks or sample.mask is None:
            return pixels, None
        parts = merge_classes(open_mask(sample.mask, image.size, 8), self.masks)
        return pixels, resize_mask(parts, self.height, self.width)

    def _read_all(self, skip_unreadable: bool, progress: Callable[[int, int], None] | None) -> None:
        total = len(self.samples)
        images = parts = None
        if self.in_memory:
            images = _reserve(total, self.height, self.width, 3)
            parts = _reserve(total, self.height, self.width) if self.masks else None
        kept: list[Sample] = []
        skipped: list[str] = []
        for sample, decoded in zip(self.samples, self._decode_all(skip_unreadable), strict=True):
            if decoded is None:
                skipped.append(sample.name)
            else:
                if images is not None:
                    images.numpy()[len(kept)] = decoded[0]
                if parts is not None:
                    parts.numpy()[len(kept)] = decoded[1]
                kept.append(sample)
            if progress is not None:
                progress(len(kept) + len(skipped), total)
        if not kept:
            raise DataError(
                f"none of {total} images can be read, the first is '{skipped[0]}'. Copy the data set again."
            )
        self.samples, self.skipped = tuple(kept), tuple(skipped)
        self._images = None if images is None else images[: len(kept)]
        self._parts = None if parts is None else parts[: len(kept)]

    def _decode_all(self, skip_unreadable: bool) -> Iterator[Decoded | None]:
        """Decode in order on a few threads, a chunk ahead at most; None stands for what is skipped."""

        def attempt(sample: Sample) -> Decoded | None:
            try:
                return self._decode(sample)
            except MaskError:
                raise  # a data set whose masks are wrong must be mended, not thinned out
            except ImageError:
                if skip_unreadable:
                    return None
                raise

        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            for chunk in _chunks(self.samples):
                yield from pool.map(attempt, chunk)


def _chunks(samples: Sequence[Sample]) -> Iterable[Sequence[Sample]]:
    return (samples[start : start + _CHUNK] for start in range(0, len(samples), _CHUNK))


def _reserve(*shape: int) -> Tensor:
    """A uint8 tensor, in shared memory unless that is too small: a full one would kill the process at the first write.

    Containers often have only 64 MB of it. Without it, forked workers still share the pages, as nobody writes to them.
    """
    tensor = torch.empty(shape, dtype=torch.uint8)
    if hasattr(os, "statvfs") and _SHARED.is_dir():
        room = os.statvfs(_SHARED)
        # A quarter is left for the batches that workers send.
        if tensor.nbytes > 0.75 * room.f_bavail * room.f_frsize:
            return tensor
    tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor


def _require_masks(samples: Sequence[Sample]) -> None:
    without = [sample.name for sample in samples if sample.mask is None]
    if without:
        raise MaskError(
            f"{len(without)} of {len(samples)} training images have no part mask, the first is '{without[0]}'. Give "
            "masks=FOLDER with one single-channel PNG for each image (classes 0 … 7), made by a human parser; or train "
            "without them: data.masks=0 and no segmentation loss."
        )
