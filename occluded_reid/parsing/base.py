"""The interface of a teacher: anything that gives each pixel of a person image a class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["Teacher"]


class Teacher(ABC):
    """A source of part masks: a network, a folder of masks made elsewhere, or code of yours.

    Attributes:
        label_set: the name in `LABEL_SETS` of the classes that `parse` gives.

    Example:
        >>> class AllBody(Teacher):
        ...     label_set = "sorn2"
        ...
        ...     def parse(self, images, names):
        ...         return [np.ones((image.height, image.width), np.uint8) for image in images]
        >>> AllBody().parse([Image.new("RGB", (2, 3))], ["one.png"])[0].shape
        (3, 2)
    """

    label_set: str

    @abstractmethod
    def parse(self, images: Sequence[Image.Image], names: Sequence[str]) -> list[np.ndarray]:
        """Return the teacher's own class of each pixel.

        Args:
            images: RGB, of any sizes.
            names: their paths relative to the image folder, with "/".

        Returns:
            For each image (H, W) uint8 at that image's own size, with classes of `label_set`.
        """

    def describe(self) -> dict[str, Any]:
        """Return what the masks depend on, as JSON: two teachers that describe themselves alike give equal masks."""
        return {"label_set": self.label_set}
