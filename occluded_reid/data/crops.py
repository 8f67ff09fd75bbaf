"""People cut out of a frame by a detector's or a tracker's boxes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from occluded_reid.errors import ImageError, ShapeError
from occluded_reid.pixels import Channels, ImageLike, to_rgb

__all__ = ["crops"]


def crops(
    frame: ImageLike, boxes: Any, *, channels: Channels = "rgb", left_out: list[int] | None = None
) -> list[np.ndarray]:
    """Cut boxes out of a frame, ready for `Gallery.add`, `Gallery.search` and `model.preprocess`.

    A box is clipped to the frame, and takes every pixel that it touches: whole numbers from the floor of its left and
    upper to the ceiling of its right and lower edge.

    Args:
        frame: an image, as `to_rgb` takes it: a file, a PIL image, an array (H, W, 3), a tensor.
        boxes: (N, 4), each (left, top, right, bottom) in pixels of the upright frame, the right and the lower edge
            excluded: nested lists, an array or a tensor.
        channels: the order of an array's or a tensor's colours: "bgr" for frames of OpenCV.
        left_out: receives the numbers of boxes without area within the frame, which then have no crop; None raises
            instead.

    Returns:
        RGB crops, (h, w, 3) uint8, in the order of the boxes, each with memory of its own.

    Raises:
        ShapeError: the boxes are not (N, 4) finite numbers, or the frame is no image.
        ImageError: a box has no area within the frame, or the frame cannot be read; it is named.

    Example:
        >>> frame = np.zeros((8, 8, 3), np.uint8)
        >>> [crop.shape for crop in crops(frame, [(0, 0, 4, 8), (6.5, -3, 20, 2)])]
        [(8, 4, 3), (2, 2, 3)]
    """
    pixels = np.asarray(to_rgb(frame, channels=channels))
    height, width = pixels.shape[:2]
    cut = []
    for number, (left, top, right, bottom) in enumerate(_numbers(boxes)):
        x, y = max(0, math.floor(left)), max(0, math.floor(top))
        x_end, y_end = min(width, math.ceil(right)), min(height, math.ceil(bottom))
        if right > left and bottom > top and x_end > x and y_end > y:
            cut.append(pixels[y:y_end, x:x_end].copy())
        elif left_out is not None:
            left_out.append(number)
        else:
            shown = ", ".join(f"{value:g}" for value in (left, top, right, bottom))
            raise ImageError(
                f"box {number} ({shown}) has no area within the frame of {width}×{height} pixels; wanted left, top, "
                "right, bottom. Are these left, top, width, height? Else leave it out, or pass left_out=[] to be told."
            )
    return cut


def _numbers(boxes: Any) -> list[list[float]]:
    """Boxes as N lists of four floats."""
    if hasattr(boxes, "detach"):  # a tensor, wherever it lies
        boxes = boxes.detach().cpu().numpy()
    try:
        found = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise ShapeError(f"boxes are no numbers: {cause}. Give (N, 4): left, top, right, bottom of each.") from cause
    if found.size == 0:
        return []
    if found.ndim != 2 or found.shape[1] != 4:
        raise ShapeError(f"boxes are of the shape {found.shape}; give (N, 4): left, top, right, bottom of each.")
    if not np.isfinite(found).all():
        first = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
        raise ShapeError(f"box {first} is {found[first].tolist()}; give finite numbers.")
    return [[float(value) for value in row] for row in found]
