"""Non-pedestrian occlusion: a patch along a side of the picture, in a corner, as FED trains with."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from occluded_reid.data.occlusion.cutouts import Cutout
from occluded_reid.data.occlusion.occluders import Occluders
from occluded_reid.data.occlusion.place import Occluded
from occluded_reid.errors import ShapeError

__all__ = ["paste_npo"]

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601-2, as in Pillow


def paste_npo(
    image: np.ndarray,
    occluders: Occluders,
    generator: np.random.Generator,
    *,
    size: tuple[float, float] = (0.25, 0.5),
    vertical_above: float = 2.0,
    jitter: float = 0.5,
    identity: str | None = None,
) -> Occluded:
    """Paste a random patch into one of the four corners, from border to border (FED, §3.2).

    A patch with height / width above `vertical_above` stands (a pillar, a tree): it becomes as high as the picture and
    a random part as wide. Any other lies (a car, a shrub): its brightness, contrast and saturation change in random
    order, each by a factor from 1 ± `jitter`, and it becomes as wide as the picture and a random part as high.
    It is resized bicubically, mirrored or not, and pasted flush with the corner. What is transparent shows the person.

    Args:
        image: (H, W, 3) uint8; it is not changed.
        occluders: what to paste.
        generator: the only source of chance.
        size: smallest and largest share of the width or height; every whole number of pixels between is as likely.
        vertical_above: height / width.
        jitter: not negative.
        identity: of the person in the picture, who must not occlude himself.

    Returns:
        The picture, where the patch is at least half opaque, the share of the picture that this makes, and its kind.

    Raises:
        ShapeError: image is not (H, W, 3) uint8, or a number is out of range.
        DataError: there is nothing but the very person to occlude with.

    Example:
        >>> image, occluders = np.zeros((64, 32, 3), np.uint8), Occluders.generated(seed=0)
        >>> result = paste_npo(image, occluders, np.random.default_rng(0))
        >>> rows, columns = result.mask.any(1).sum(), result.mask.any(0).sum()
        >>> bool(rows <= 32 or columns <= 16), bool(result.fraction == result.mask.mean())
        (True, True)
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ShapeError(f"paste_npo wants an image (H, W, 3) uint8; got {image.dtype} {image.shape}.")
    if not 0 <= size[0] <= size[1] <= 1 or vertical_above < 0 or jitter < 0:
        raise ShapeError(
            f"size {size} must be two shares in [0, 1], the smaller one first; vertical_above {vertical_above} and "
            f"jitter {jitter} must not be negative."
        )
    height, width = image.shape[:2]
    patch = occluders.draw(generator, identity)
    colour, (rows, columns) = patch.colour, patch.alpha.shape
    if rows > vertical_above * columns:
        high, wide = height, _length(width, size, generator)
    else:
        colour = _jittered(patch, jitter, generator)
        high, wide = _length(height, size, generator), width
    colour, alpha = (
        np.asarray(Image.fromarray(pixels).resize((wide, high), Image.Resampling.BICUBIC))
        for pixels in (colour, patch.alpha)
    )
    if generator.random() < 0.5:
        colour, alpha = colour[:, ::-1], alpha[:, ::-1]
    bottom, right = generator.integers(0, 2, 2)
    top, left = bottom * (height - high), right * (width - wide)
    box = np.s_[top : top + high, left : left + wide]
    result, mask = image.copy(), np.zeros((height, width), dtype=bool)
    mask[box] = alpha >= 128
    opacity = alpha[..., None].astype(np.float32) / 255
    # Bicubic resizing overshoots at edges: no pixel may be brighter than its share of white.
    result[box] = np.round(np.minimum(colour, alpha[..., None]) + image[box] * (1 - opacity))
    return Occluded(result, mask, float(mask.mean()), patch.kind)


def _length(side: int, size: tuple[float, float], generator: np.random.Generator) -> int:
    """A whole number of pixels between two shares of a side, bounds included; at least one."""
    low = max(math.ceil(round(size[0] * side, 6)), 1)
    high = max(math.floor(round(size[1] * side, 6)), low)
    return int(generator.integers(low, high + 1))


def _jittered(patch: Cutout, amount: float, generator: np.random.Generator) -> np.ndarray:
    """The patch in other colours; they are multiplied by alpha, so a pixel's white is its alpha."""
    if not amount:
        return patch.colour
    alpha = patch.alpha[..., None].astype(np.float32)
    colour = patch.colour.astype(np.float32)
    for step in generator.permutation(3):
        factor = np.float32(generator.uniform(max(0.0, 1 - amount), 1 + amount))
        if step == 0:  # brightness: away from black
            colour *= factor
        elif step == 1:  # contrast: away from the mean grey of what is opaque
            mean = colour.sum((0, 1)) @ _GREY / alpha.sum()
            colour = factor * colour + (1 - factor) * mean * alpha
        else:  # saturation: away from the pixel's own grey
            grey = (colour @ _GREY)[..., None]
            colour = factor * colour + (1 - factor) * grey
        np.maximum(colour, 0, out=colour)
        np.minimum(colour, alpha, out=colour)
    rounded: np.ndarray = np.round(colour).astype(np.uint8)
    return rounded
