"""Occluders by name, as commands and benchmarks ask for them: generated, pedestrians, or a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np

from occluded_reid.data.dataset import Sample
from occluded_reid.data.images import open_image, open_mask
from occluded_reid.data.occlusion.occluders import Occluders
from occluded_reid.errors import DataError

__all__ = ["PEOPLE", "open_occluders", "take_slice"]

PEOPLE = 400
"""At most so many pedestrians are cut out, spread evenly over the images given."""


def open_occluders(
    source: str | Path,
    *,
    people: Sequence[Sample] = (),
    take: Literal["all", "even", "odd"] = "all",
    seed: int = 0,
) -> Occluders:
    """Return the occluders that a word or a path names.

    Args:
        source: "generated", "pedestrians", or a folder of cut-outs with transparency.
        people: whom to cut out for "pedestrians"; those with a part mask. Nobody is occluded by himself.
        take: of a folder, all cut-outs in the order of their names, or those at even (0, 2, …) or odd positions, so
            that some occlude in training and the others in testing.
        seed: of generated occluders.

    Raises:
        DataError: nobody to cut out, no such folder, or nothing in it.
        ImageError: a cut-out cannot be read.
        MaskError: a person's mask is missing or does not fit.
    """
    if source == "generated":
        return Occluders.generated(seed)
    if source == "pedestrians":
        masked = [sample for sample in people if sample.mask is not None]
        if not masked:
            raise DataError(
                f"pedestrians are cut out with part masks; of {len(people)} images none has one. Give masks=FOLDER "
                "(--masks), or other occluders."
            )
        chosen = [masked[int(i)] for i in np.unique(np.linspace(0, len(masked) - 1, PEOPLE).round())]
        return Occluders.cut_out((*_read(sample), sample.person) for sample in chosen)
    return Occluders.from_folder(source)[take_slice(take)]


def _read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The image and the mask of somebody who has one."""
    image = np.asarray(open_image(sample.path))
    return image, open_mask(cast(Path, sample.mask), (image.shape[1], image.shape[0]), 8)


def take_slice(take: Literal["all", "even", "odd"]) -> slice:
    """Return the slice that takes all, the even (0, 2, …) or the odd positions.

    Example:
        >>> "abcde"[take_slice("even")], "abcde"[take_slice("odd")]
        ('ace', 'bd')
    """
    return {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}[take]
