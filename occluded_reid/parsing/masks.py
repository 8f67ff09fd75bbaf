"""Part masks that were made elsewhere, as a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from occluded_reid.data.images import open_mask
from occluded_reid.errors import MaskError
from occluded_reid.files import absolute, inside
from occluded_reid.parsing.base import Teacher
from occluded_reid.parsing.label_sets import label_set_named
from occluded_reid.registry import PARSERS

__all__ = ["MaskFolder"]


@PARSERS.register("masks")
class MaskFolder(Teacher):
    """Reads a folder of single-channel PNGs that mirrors the images' tree, with ".png" for each image's suffix.

    Args:
        folder: of the masks.
        label_set: name in `LABEL_SETS` of their classes.

    Raises:
        MaskError: the folder does not exist.
        UnknownNameError: there is no such label set.

    Example:
        ``MaskFolder("market_lip", label_set="lip20").parse([image], ["query/0001.jpg"])`` reads
        ``market_lip/query/0001.png``.
    """

    def __init__(self, folder: str | Path, *, label_set: str = "sorn8") -> None:
        self.folder = absolute(folder, MaskError)
        self.label_set = label_set_named(label_set).name
        if not self.folder.is_dir():
            raise MaskError(
                f"the folder of masks '{folder}' does not exist. Give the folder that mirrors the images' tree."
            )

    def parse(self, images: Sequence[Image.Image], names: Sequence[str]) -> list[np.ndarray]:
        """Return the mask of each image, (H, W) uint8.

        Raises:
            MaskError: a mask is missing, damaged, of another size than its image, or holds a class that the label set
                does not have; or a name leads out of the folder. The file is named.
        """
        return [self._read(image, name) for image, name in zip(images, names, strict=True)]

    def describe(self) -> dict[str, Any]:
        """Return folder and label set."""
        return {"label_set": self.label_set, "folder": str(self.folder.resolve())}

    def _read(self, image: Image.Image, name: str) -> np.ndarray:
        path = inside(self.folder, str(Path(name).with_suffix(".png")), MaskError)
        if not path.is_file():
            raise MaskError(
                f"'{name}' has no mask: '{path}' does not exist. The folder must mirror the images' tree, with .png "
                "for the suffix; leave images without a mask out."
            )
        return open_mask(path, image.size, label_set_named(self.label_set).classes)
