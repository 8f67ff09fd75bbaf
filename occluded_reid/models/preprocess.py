"""From files, pictures or arrays to the tensor a model wants: part of the model, rebuilt from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from occluded_reid.config import InputConfig
from occluded_reid.data.images import open_image
from occluded_reid.data.resize import resize_image
from occluded_reid.errors import ShapeError

__all__ = ["ImageLike", "Preprocess"]

ImageLike = str | Path | Image.Image | np.ndarray


class Preprocess(nn.Module):
    """Resize to the model's input size (to 8 bits) and normalise.

    A module, so that a preprocessing with weights of its own (a parser that crops) is saved and fingerprinted with the
    model like any other part.

    Args:
        config: height, width, how to resize, mean and std.

    Example:
        >>> preprocess = Preprocess(InputConfig(height=32, width=16))
        >>> preprocess([np.zeros((40, 20, 3), dtype=np.uint8)]).shape
        torch.Size([1, 3, 32, 16])
    """

    def __init__(self, config: InputConfig) -> None:
        super().__init__()
        self.config = config
        self.height, self.width = config.height, config.width
        self._mean = torch.tensor(config.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(config.std).view(1, 3, 1, 1)

    def forward(self, images: Sequence[ImageLike]) -> Tensor:
        """Return (N, 3, height, width) float32.

        Raises:
            ImageError: a file cannot be read; it is named.
            ShapeError: an array is not (H, W, 3) uint8.
        """
        if not images:
            return torch.empty(0, 3, self.height, self.width)
        return self.normalize(np.stack([self.resize(image) for image in images]))

    def resize(self, image: ImageLike) -> np.ndarray:
        """Return one image as (height, width, 3) uint8."""
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
        return resize_image(image.convert("RGB"), self.height, self.width, self.config.resample)

    def normalize(self, pixels: np.ndarray | Tensor) -> Tensor:
        """Turn (N, H, W, 3) uint8 into (N, 3, H, W) float32, normalised."""
        tensor = torch.from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels
        return tensor.permute(0, 3, 1, 2).float().div_(255).sub_(self._mean).div_(self._std).contiguous()
