"""Images with part masks of any label set, to train a parser on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from occluded_reid.data.cache import DecodedImages
from occluded_reid.data.dataset import ReIDData, Sample, require_folder
from occluded_reid.data.images import image_files, open_mask
from occluded_reid.data.left_out import LeftOut
from occluded_reid.data.transforms import TRANSFORMS, Flip, View
from occluded_reid.errors import DataError
from occluded_reid.parsing.label_maps import flip_order, label_table
from occluded_reid.parsing.label_sets import label_set_named

__all__ = ["FlipLabels", "LabelledImages", "load_images"]


class LabelledImages(DecodedImages):
    """Decoded images whose masks are mapped from one label set to another.

    Args:
        samples: the images, in order, each with a mask.
        height, width: of the parser's input.
        source: label set of the mask files.
        target: label set that is wanted.
        limit_bytes: when more would be needed, images are decoded at each access instead.
        progress: called with (images decoded, images).

    Raises:
        DataError: there are no samples.
        ImageError: an image cannot be read; it is named.
        MaskError: a mask is missing or does not fit, or the label set cannot be mapped.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        height: int,
        width: int,
        *,
        source: str,
        target: str,
        limit_bytes: int = 4 << 30,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._source = label_set_named(source)
        self._table = label_table(source, target)
        classes = label_set_named(target).classes
        super().__init__(samples, height, width, masks=classes, limit_bytes=limit_bytes, progress=progress)

    def labels(self, mask: Path, size: tuple[int, int]) -> np.ndarray:
        """Return the classes (H, W) of a mask file, in the label set that is wanted."""
        return np.asarray(self._table[open_mask(mask, size, self._source.classes)])


@TRANSFORMS.register("flip_labels")
class FlipLabels(Flip):
    """Mirror left and right, and let left and right classes change places in the mask.

    Args:
        p: probability.
        label_set: name of the mask's classes in `LABEL_SETS`.
    """

    def __init__(self, *, p: float = 0.5, label_set: str = "lip20") -> None:
        super().__init__(p=p)
        self.order = np.asarray(flip_order(label_set), dtype=np.uint8)

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view, mirrored or not."""
        mirrored = super().__call__(view, generator)
        if mirrored is view or mirrored.parsing is None:
            return mirrored
        return replace(mirrored, parsing=self.order[mirrored.parsing])


def load_images(root: str | Path) -> ReIDData:
    """Load every image below a folder, each as an identity of its own: for parsers, which do not ask who it is.

    Raises:
        DataError: the folder does not exist or holds no image.
    """
    folder = require_folder(root)
    left_out = LeftOut()
    samples = [
        Sample(name, path, name, 0)
        for path in image_files(folder, recursive=True, left_out=left_out)
        for name in [path.relative_to(folder).as_posix()]
    ]
    if not samples:
        raise DataError(f"'{folder}' holds no image. Give the folder that the masks' folder mirrors.")
    return ReIDData(
        folder.resolve().name, folder, train=tuple(samples), notes=tuple(left_out.notes()), cameras_known=False
    )
