"""From files, pictures or arrays to the tensor a model wants: part of the model, rebuilt from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from occluded_reid.config import InputConfig
from occluded_reid.contracts import RegionParser
from occluded_reid.data.images import open_image
from occluded_reid.data.resize import Box, resize_image
from occluded_reid.errors import ShapeError
from occluded_reid.models.cropping import Cropper

__all__ = ["ImageLike", "Preprocess"]

ImageLike = str | Path | Image.Image | np.ndarray

_BATCH = 64  # pictures held at their own size at a time


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

    def forward(self, images: Sequence[ImageLike]) -> Tensor:
        """Return (N, 3, height, width) float32.

        Raises:
            ImageError: a file cannot be read; it is named.
            ShapeError: an array is not (H, W, 3) uint8.
        """
        return self.normalize(self.pixels(images))

    def pixels(self, images: Sequence[ImageLike], boxes: Sequence[Box | None] | None = None) -> np.ndarray:
        """Return images as the model sees them before they are normalised, (N, height, width, 3) uint8.

        Args:
            images: files, pictures or arrays.
            boxes: what `boxes` has given for them, where that is at hand; None works it out.

        Raises:
            ImageError: a file cannot be read; it is named.
            ShapeError: an array is not (H, W, 3) uint8.
        """
        result: np.ndarray = np.empty((len(images), self.height, self.width, 3), dtype=np.uint8)
        for start in range(0, len(images), _BATCH):
            opened = [_opened(image) for image in images[start : start + _BATCH]]
            kept = self._boxes(opened) if boxes is None else boxes[start : start + _BATCH]
            for row, (image, box) in enumerate(zip(opened, kept, strict=True), start=start):
                cut = image if box is None else image.crop(box)
                result[row] = resize_image(cut, self.height, self.width, self.config.resample)
        return result

    def boxes(self, images: Sequence[ImageLike]) -> list[Box | None]:
        """Return what is kept of each image, as (left, top, right, bottom) in its own pixels; None is the whole.

        Raises:
            ImageError: a file cannot be read; it is named.
            ShapeError: an array is not (H, W, 3) uint8.
        """
        found: list[Box | None] = []
        for start in range(0, len(images), _BATCH):
            found += self._boxes([_opened(image) for image in images[start : start + _BATCH]])
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
        return tensor.permute(0, 3, 1, 2).float().div_(255).sub_(self._mean).div_(self._std).contiguous()

    def _boxes(self, images: Sequence[Image.Image]) -> list[Box | None]:
        return [None] * len(images) if self._cropper is None else self._cropper.boxes(images)


def _opened(image: ImageLike) -> Image.Image:
    """An RGB picture of a file, a picture or an array."""
    if isinstance(image, str | Path):
        image = open_image(image)
    elif isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ShapeError(
                f"an image array must be (H, W, 3) uint8 RGB; got {image.dtype} {image.shape}. "
                "Convert it, or give a path or a PIL image."
            )
        image = Image.fromarray(image)
    elif not isinstance(image, Image.Image):
        raise ShapeError(
            f"an image is given as a path, a PIL image or a (H, W, 3) uint8 array; got {type(image).__name__}."
        )
    return image.convert("RGB")
