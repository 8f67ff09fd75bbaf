"""Tracklet: the crops of one person whom one camera has followed for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from occluded_reid.arguments import check_fields, shown
from occluded_reid.errors import ShapeError
from occluded_reid.pixels import ImageLike, as_list, name_of, to_rgb

__all__ = ["Tracklet", "crop_weights", "sharpness"]

_BORDER = 2.0  # pixels: so near to the border of the frame, a box is cut off by it
_SIDE_CUT = 0.5  # what each cut side leaves of a crop's weight
_SIZE = 64, 128  # in which sharpness is measured, so that a large crop is not the sharper one for its size
_BLURRED = 0.1  # what the most blurred crop of a track keeps of its weight


@dataclass(frozen=True)
class Tracklet:
    """Crops of one person by one camera, in the order of time.

    What is not known is None and changes nothing.

    Attributes:
        name: of the track, unique among those that are put together.
        images: N ≥ 1 crops, as `occluded_reid.pixels.to_rgb` reads them.
        camera: number of the camera.
        start: time of the first crop, seconds on a clock that all cameras share.
        end: time of the last crop, not before `start`.
        boxes: (N, 4) x1, y1, x2, y2 of each crop in its frame, pixels.
        confidences: (N,) of the detector, 0 … 1.
        frame_size: width and height of the frames, pixels; with it a box at the border is known to be cut off.
        others: for each crop the (M, 4) boxes of other people in its frame; M may differ, and be 0.

    Raises:
        ShapeError: the fields do not fit each other.

    Example:
        >>> track = Tracklet("c1-17", [np.zeros((128, 64, 3), np.uint8)], camera=1, start=3.0, end=4.5)
        >>> track
        Tracklet('c1-17', 1 image, camera 1, 3–4.5)
    """

    name: str
    images: Sequence[ImageLike] = field(repr=False)
    camera: int | None = None
    start: float | None = None
    end: float | None = None
    boxes: np.ndarray | None = field(default=None, repr=False)
    confidences: np.ndarray | None = field(default=None, repr=False)
    frame_size: tuple[float, float] | None = None
    others: Sequence[np.ndarray] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, ShapeError, but=("images", "boxes", "confidences", "others", "frame_size"))
        if not self.name:
            raise ShapeError("a tracklet has an empty name; give each a name of its own.")
        object.__setattr__(self, "images", tuple(as_list(self.images)))
        count = len(self.images)
        if not count:
            raise ShapeError(f"the tracklet '{self.name}' has no image; give at least one crop.")
        if (self.start is None) != (self.end is None):
            raise ShapeError(
                f"the tracklet '{self.name}' has start {self.start} and end {self.end}; give both or none."
            )
        if self.start is not None and self.end is not None and not -np.inf < self.start <= self.end < np.inf:
            raise ShapeError(f"the tracklet '{self.name}' lasts from {self.start} to {self.end}; give start ≤ end.")
        for name, wanted in (("boxes", (count, 4)), ("confidences", (count,))):
            object.__setattr__(self, name, _numbers(self.name, name, getattr(self, name), wanted))
        if self.confidences is not None and not ((self.confidences >= 0) & (self.confidences <= 1)).all():
            raise ShapeError(f"the tracklet '{self.name}' has confidences outside 0 … 1: {shown(self.confidences)}.")
        if self.boxes is not None and not (self.boxes[:, 2:] > self.boxes[:, :2]).all():
            raise ShapeError(f"the tracklet '{self.name}' has an empty box; boxes are x1, y1, x2, y2 with x1 < x2.")
        if self.boxes is None and (self.frame_size is not None or self.others is not None):
            raise ShapeError(f"the tracklet '{self.name}' has frame_size or others but no boxes; give the boxes too.")
        if self.frame_size is not None:
            size = _numbers(self.name, "frame_size", self.frame_size, (2,))
            object.__setattr__(self, "frame_size", (float(size[0]), float(size[1])) if size is not None else None)
        if self.others is not None:
            if len(self.others) != count:
                raise ShapeError(f"the tracklet '{self.name}' has {count} crops and others for {len(self.others)}.")
            none = np.empty((0, 4))  # of a crop beside whom no other person stands
            every = [_numbers(self.name, "others", o if np.size(o) else none, (-1, 4)) for o in self.others]
            object.__setattr__(self, "others", tuple(every))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        seen = f", camera {self.camera}" if self.camera is not None else ""
        when = f", {self.start:g}–{self.end:g}" if self.start is not None else ""
        return f"Tracklet('{self.name}', {len(self)} image{'' if len(self) == 1 else 's'}{seen}{when})"


def crop_weights(tracklet: Tracklet, *, blur: bool = True) -> np.ndarray:
    """Return how much each crop of a track counts, (N,) in [0, 1].

    w = c · 2^-b · (1 - o) · s, where

    - c is the detector's confidence;
    - b counts the sides of the frame that the box touches, within 2 pixels: truncation;
    - o is the largest part of the box that one other person's box covers: crowding;
    - s = max(0.1, √(σ / max σ)), σ the crop's `sharpness` and max σ that of the track's sharpest: blur.

    A factor that nothing is known of is 1. Where all weights are 0, all crops count alike.

    Args:
        tracklet: N crops.
        blur: look at the pixels; without it no image is read.

    Raises:
        ImageError: an image cannot be read; it is named.

    Example:
        >>> crop = np.zeros((8, 4, 3), np.uint8)
        >>> at_border = np.array([[0.0, 10, 4, 18], [50, 10, 54, 18]])
        >>> crop_weights(Tracklet("a", [crop, crop], boxes=at_border, frame_size=(100, 100)))
        array([0.5, 1. ])
    """
    weight = np.ones(len(tracklet)) if tracklet.confidences is None else tracklet.confidences.copy()
    if tracklet.boxes is not None and tracklet.frame_size is not None:
        width, height = tracklet.frame_size
        low, high = tracklet.boxes[:, :2] <= _BORDER, tracklet.boxes[:, 2:] >= np.array([width, height]) - _BORDER
        weight *= _SIDE_CUT ** (low.sum(1) + high.sum(1))
    if tracklet.boxes is not None and tracklet.others is not None:
        weight *= [1 - _covered(box, others) for box, others in zip(tracklet.boxes, tracklet.others, strict=True)]
    if blur:
        sharp = np.array([sharpness(i, name_of(i, n)) for n, i in enumerate(tracklet.images)])
        if sharp.max() > 0:
            weight *= np.maximum(_BLURRED, np.sqrt(sharp / sharp.max()))
    return weight if weight.any() else np.ones(len(tracklet))


def sharpness(image: ImageLike, name: str | None = None) -> float:
    """Return the variance of the Laplacian of an image, grey and resized to 64×128: near 0 where it is blurred.

    Args:
        image: as `to_rgb` reads it.
        name: what messages call it.

    Raises:
        ImageError: it cannot be read.
    """
    picture = to_rgb(image, name=name).convert("L").resize(_SIZE, Image.Resampling.BILINEAR)
    grey = np.asarray(picture, dtype=np.float64)
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * middle).var())


def _covered(box: np.ndarray, others: np.ndarray) -> float:
    """The largest part of a box that one of the others covers."""
    if not len(others):
        return 0.0
    inside = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return float((inside.clip(min=0).prod(1) / (box[2:] - box[:2]).prod()).max())


def _numbers(track: str, name: str, values: object, wanted: tuple[int, ...]) -> np.ndarray | None:
    """Return finite float64 numbers of a shape; -1 stands for any length."""
    if values is None:
        return None
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise ShapeError(f"the tracklet '{track}': {name} is {shown(values)}; give numbers.") from cause
    fits = found.ndim == len(wanted) and all(w in (-1, n) for w, n in zip(wanted, found.shape, strict=False))
    if not fits or not np.isfinite(found).all():
        raise ShapeError(f"the tracklet '{track}': {name} must be finite numbers {wanted}; got {found.shape}.")
    return found
