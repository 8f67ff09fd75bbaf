"""Decoded images at a model's input size, kept in memory as bytes while they fit."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from occluded_reid.data.dataset import Sample
from occluded_reid.data.images import merge_classes, open_image, open_mask
from occluded_reid.data.resize import Box, crop_mask, resize_image, resize_mask
from occluded_reid.errors import DataError, ImageError, MaskError

__all__ = ["DecodedImages"]

_SHARED = Path("/dev/shm")
_CHUNK = 64
_CHUNK_PIXELS = 16_000_000
_THREADS = 4

Decoded = tuple[np.ndarray, np.ndarray | None]
Crop = Callable[[Sequence[Image.Image]], Sequence[Box | None]]


class DecodedImages:
    """Images (H, W, 3) uint8 by position, with their part masks; decoded once if they fit in memory, else when asked.

    In memory they lie in shared memory where there is room for them, so that worker processes read the same copy.
    Memory: the images (and H·W bytes a mask), at most `limit_bytes`, and a few decoded files while reading.

    A crop is decided for all images once, while they are read: the same for an image in every epoch, and no worker
    process needs the network that decides it.

    Args:
        samples: the images, in order.
        height: rows of the model's input.
        width: columns of the model's input.
        masks: 0 for none, or the number of part classes: 8, 5 or 2.
        resample: "bilinear" or "bicubic".
        crop: gives the box that is kept of each image before it is resized, or None for the whole; masks are cut alike.
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
        crop: Crop | None = None,
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
        self._images: Tensor | None = None
        self._parts: Tensor | None = None
        self._boxes: tuple[Box | None, ...] | None = None
        self._read(limit_bytes, skip_unreadable, crop, progress)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Decoded:
        """Return one image (H, W, 3) and its part mask (H, W), or None without masks; both uint8, not to be written to.

        Raises:
            ImageError: it is not in memory and can no longer be read.
            MaskError: likewise for its mask.
        """
        if self._images is None:
            box = None if self._boxes is None else self._boxes[position]
            return self._finish(self.samples[position], open_image(self.samples[position].path), box)
        return self._images[position].numpy(), None if self._parts is None else self._parts[position].numpy()

    def crop(self, crop: Crop, limit_bytes: int = 4 << 30) -> None:
        """Read the images anew, cut by what was not there yet when they were given; the arguments are those above."""
        self._read(limit_bytes, False, crop, None)

    def resampled(self, resample: str) -> DecodedImages:
        """Return the same images resized another way, decoded at each access; these themselves where it is theirs."""
        if resample == self.resample:
            return self
        other = copy.copy(self)
        other.resample, other.in_memory, other._images, other._parts = resample, False, None, None
        return other

    def labels(self, mask: Path, size: tuple[int, int]) -> np.ndarray:
        """Return the classes (H, W) of a mask file whose image is (width, height) large."""
        return merge_classes(open_mask(mask, size, 8), self.masks)

    def _finish(self, sample: Sample, image: Image.Image, box: Box | None) -> Decoded:
        """Cut and resize an image, and its mask with it."""
        cut = image if box is None else image.crop(box)
        pixels = resize_image(cut, self.height, self.width, self.resample)
        if not self.masks or sample.mask is None:
            return pixels, None
        parts = crop_mask(self.labels(sample.mask, image.size), box)
        return pixels, resize_mask(parts, self.height, self.width)

    def _read(
        self,
        limit_bytes: int,
        skip_unreadable: bool,
        crop: Crop | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        total = len(self.samples)
        self.in_memory = total * self.height * self.width * (4 if self.masks else 3) <= limit_bytes
        if not (self.in_memory or skip_unreadable or crop is not None):
            return
        images = parts = None
        if self.in_memory:
            images = _reserve(total, self.height, self.width, 3)
            parts = _reserve(total, self.height, self.width) if self.masks else None
        kept: list[Sample] = []
        skipped: list[str] = []
        boxes: list[Box | None] = []
        for sample, found in zip(self.samples, self._decode_all(skip_unreadable, crop), strict=True):
            if found is None:
                skipped.append(sample.name)
            else:
                decoded, box = found
                boxes.append(box)
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
        self._boxes = None if crop is None else tuple(boxes)

    def _decode_all(self, skip_unreadable: bool, crop: Crop | None) -> Iterator[tuple[Decoded, Box | None] | None]:
        """Decode in order on a few threads; None stands for what is skipped.

        Pictures at their own size are held one for each thread, and, for a crop, as many as the network that decides it
        takes at a time: 64, and no further one beyond 16 million pixels.
        """

        def opened(sample: Sample) -> Image.Image | None:
            try:
                return open_image(sample.path)
            except ImageError:
                if skip_unreadable:
                    return None
                raise

        def finished(sample: Sample, image: Image.Image | None, box: Box | None) -> tuple[Decoded, Box | None] | None:
            # A mask that is wrong raises in any case: such a data set must be mended, not thinned out.
            return None if image is None else (self._finish(sample, image, box), box)

        def whole(sample: Sample) -> tuple[Decoded, Box | None] | None:
            return finished(sample, opened(sample), None)

        threads = min(_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            if crop is None:
                for chunk in _chunks(self.samples, _CHUNK):
                    yield from pool.map(whole, chunk)
                return
            held: list[tuple[Sample, Image.Image | None]] = []
            pixels = 0
            for done, wave in enumerate(_chunks(self.samples, threads), start=1):
                for sample, image in zip(wave, pool.map(opened, wave), strict=True):
                    held.append((sample, image))
                    pixels += 0 if image is None else image.width * image.height
                image = None
                if len(held) >= _CHUNK or pixels >= _CHUNK_PIXELS or done * threads >= len(self.samples):
                    found = iter(crop([image for _, image in held if image is not None]))
                    boxes = [None if image is None else next(found) for _, image in held]
                    yield from pool.map(finished, *zip(*held, strict=True), boxes)
                    held, pixels = [], 0


def _chunks(samples: Sequence[Sample], size: int) -> Iterable[Sequence[Sample]]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


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
            "masks=FOLDER (--masks) with one single-channel PNG for each image (classes 0 … 7), as occluded-reid parse "
            "IMAGES --teacher onnx --option model=FILE.onnx --out MASKS makes them (pip install 'occluded-reid[onnx]'; "
            "occluded-reid list parsers names the teachers); or train without, and get no visibility: --set "
            "data.masks=0 --set model.losses.segmentation=null."
        )
