"""From files, pictures or arrays to the tensor a model wants: part of the model, rebuilt from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from occluded_reid.config import InputConfig
from occluded_reid.contracts import RegionParser
from occluded_reid.data.resize import Box, resize_image
from occluded_reid.models.cropping import Cropper
from occluded_reid.pixels import Channels, ImageLike, Images, as_list, few_at_a_time

__all__ = ["ImageLike", "Preprocess", "Seen"]


class Seen(NamedTuple):
    """What a model sees of some images.

    Attributes:
        pixels: (N, height, width, 3) uint8, before they are normalised.
        boxes: what is kept of each image, in its own pixels; None is the whole.
        sizes: (width, height) of each image as it stands upright.
    """

    pixels: np.ndarray
    boxes: list[Box | None]
    sizes: list[tuple[int, int]]


class Preprocess(nn.Module):
    """Crop where the recipe says so, resize to the model's input size (to 8 bits), and normalise.

    A module, so that the human parser that decides the crop is saved and fingerprinted with the model like any other
    part. The parser is frozen: it has no gradients, and stays in evaluation mode while the model around it trains.

    Args:
        config: height, width, crop, how to resize, mean and std.
        parser: finds body regions, for the crop and for heads that ask for them; None where the recipe names none.

    Attributes:
        parser: as given.
        crops: whether images may be cropped.

    Raises:
        BuildError: the recipe crops, and the parser is missing or does not fit the rule.

    Example:
        >>> preprocess = Preprocess(InputConfig(height=32, width=16))
        >>> preprocess([np.zeros((40, 20, 3), dtype=np.uint8)]).shape
        torch.Size([1, 3, 32, 16])
    """

    def __init__(self, config: InputConfig, parser: RegionParser | None = None) -> None:
        super().__init__()
        self.config = config
        self.height, self.width = config.height, config.width
        self.parser = None if parser is None else parser.requires_grad_(False).eval()
        self.crops = config.crop.rule != "none"
        size = (config.height, config.width)
        self._cropper = Cropper(parser, config.crop, size, config.resample) if self.crops else None
        self._mean = torch.tensor(config.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(config.std).view(1, 3, 1, 1)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the parser stays in evaluation mode."""
        super().train(mode)
        if self.parser is not None:
            self.parser.eval()
        return self

    def forward(self, images: Images, *, channels: Channels = "rgb") -> Tensor:
        """Return (N, 3, height, width) float32.

        Args:
            images: one image or several: paths, bytes of files, PIL images, uint8 arrays (H, W, 3), or tensors; a file
                and the same in memory give the same (`occluded_reid.pixels.to_rgb` says how each is read).
            channels: the order of colours in arrays and tensors; "bgr" is OpenCV's. PIL images and files say their own.

        Raises:
            ImageError: an image cannot be read, or has no pixels; it is named.
            ShapeError: an array or a tensor has another type or shape than an image.
        """
        return self.normalize(self.pixels(images, channels=channels))

    def pixels(
        self, images: Images, boxes: Sequence[Box | None] | None = None, *, channels: Channels = "rgb"
    ) -> np.ndarray:
        """Return images as the model sees them before they are normalised, (N, height, width, 3) uint8.

        Args:
            images: as for `forward`.
            boxes: what `boxes` has given for them, where that is at hand; None works it out.
            channels: as for `forward`.

        Raises:
            ImageError, ShapeError: as `forward`.
        """
        return self.see(images, boxes, channels=channels).pixels

    def see(self, images: Images, boxes: Sequence[Box | None] | None = None, *, channels: Channels = "rgb") -> Seen:
        """Return what `pixels` and `boxes` do, and the images' sizes, decoding each image once.

        Memory: the pixels, and a few pictures at their own size: one alone where it is large.

        Args:
            images: as for `forward`; of an iterator, images are asked for as they are needed.
            boxes: as for `pixels`.
            channels: as for `forward`.

        Raises:
            ImageError, ShapeError: as `forward`.
        """
        several = images if isinstance(images, Iterator) else as_list(images, channels)
        result: list[np.ndarray] = []
        kept: list[Box | None] = [] if boxes is None else list(boxes)
        sizes: list[tuple[int, int]] = []
        for pictures in few_at_a_time(several, channels if several is images else "rgb"):
            start = len(sizes)
            if boxes is None:
                kept += self._boxes(pictures)
            sizes += [picture.size for picture in pictures]
            for row in range(start, len(sizes)):  # no name keeps a picture while the next is decoded
                result.append(self._resized(pictures[row - start], kept[row]))
        empty = np.empty((0, self.height, self.width, 3), dtype=np.uint8)
        return Seen(np.stack(result) if result else empty, kept, sizes)

    def boxes(self, images: Images, *, channels: Channels = "rgb") -> list[Box | None]:
        """Return what is kept of each image, as (left, top, right, bottom) in its own pixels; None is the whole.

        Raises:
            ImageError, ShapeError: as `forward`.
        """
        found: list[Box | None] = []
        for pictures in few_at_a_time(as_list(images, channels)):
            found += self._boxes(pictures)
        return found

    def cache_crops(self, folder: str | Path) -> None:
        """Keep crops in a folder from now on, so that no image is parsed twice; of use to models that crop.

        They are kept under the image's pixels, the parser's weights and the rule. Call it when the weights are loaded.

        Raises:
            DataError: the folder cannot be written to, or what is there is damaged.
        """
        if self._cropper is not None:
            self._cropper.remember_in(folder)

    def normalize(self, pixels: np.ndarray | Tensor) -> Tensor:
        """Turn (N, H, W, 3) uint8 into (N, 3, H, W) float32, normalised."""
        tensor = torch.from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels
        # Bytes are moved before they are made four times as large.
        return tensor.permute(0, 3, 1, 2).contiguous().float().div_(255).sub_(self._mean).div_(self._std)

    def _resized(self, picture: Image.Image, box: Box | None) -> np.ndarray:
        cut = picture if box is None else picture.crop(box)
        return resize_image(cut, self.height, self.width, self.config.resample)

    def _boxes(self, images: Sequence[Image.Image]) -> list[Box | None]:
        return [None] * len(images) if self._cropper is None else self._cropper.boxes(images)
