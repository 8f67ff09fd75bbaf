"""Pasting an occluder at random, or from a side, so that a stated share of the body is covered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from occluded_reid.data.occlusion.cutouts import Cutout
from occluded_reid.data.occlusion.occluders import Occluders
from occluded_reid.data.occlusion.pins import LARGEST, PLACES, SMALLEST, Pin, Place, pin
from occluded_reid.errors import ShapeError

__all__ = ["Occluded", "occlude"]

TOLERANCE = 0.03
ATTEMPTS = 16
STEPS = 12
_CLOSE = 0.008  # near enough to stop looking


@dataclass(frozen=True)
class Occluded:
    """A picture with an occluder on it.

    Attributes:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, where the occluder is (at least half opaque).
        fraction: share of the body's pixels that it covers, as achieved.
        kind: what was pasted; ``"nothing"`` where a share of 0 was asked for.
    """

    image: np.ndarray
    mask: np.ndarray
    fraction: float
    kind: str


def occlude(
    image: np.ndarray,
    body: np.ndarray,
    fraction: float,
    occluders: Occluders,
    generator: np.random.Generator,
    *,
    identity: str | None = None,
    place: Place = "anywhere",
) -> Occluded:
    """Paste a random occluder at a random place, sized so that it covers `fraction` of the body within ±0.03.

    A cut-out is drawn, mirrored or not, stretched a little, brightened or darkened, and one of its points is pinned to
    any pixel of the picture; it has no regard for stripes. Its size is then found by bisection. If no size up to 3
    times the picture covers enough, another cut-out is tried elsewhere, up to 16 times. With another `place` it grows
    from a border of the picture, or walks in, instead. Should none come within 0.03 (a body of a handful of pixels, a
    share close to 1), the nearest one is returned: `Occluded.fraction` says how near.

    Args:
        image: (H, W, 3) uint8; it is not changed.
        body: (H, W) bool; where it is empty, the whole picture stands for the body.
        fraction: share of the body to cover, 0 … 1.
        occluders: what to paste.
        generator: the only source of chance.
        identity: of the person in the picture, who must not occlude himself.
        place: where the occluder comes from: "anywhere", "bottom", "side" (left or right by chance), "top", or
            "standing" on the lower edge, as tall as the picture, coming in from a side; see `pins.pin`.

    Returns:
        The picture, where the occluder is, the share that it covers, and its kind.

    Raises:
        ShapeError: image and body do not fit each other, the fraction lies outside [0, 1], or there is no such place.

    Example:
        >>> image, body = np.zeros((64, 32, 3), np.uint8), np.zeros((64, 32), bool)
        >>> body[8:60, 8:24] = True
        >>> result = occlude(image, body, 0.35, Occluders.generated(0), np.random.default_rng(0))
        >>> abs(result.fraction - 0.35) <= 0.03, bool(result.fraction == (result.mask & body).sum() / body.sum())
        (True, True)
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or body.shape != image.shape[:2]:
        raise ShapeError(
            f"occlude wants an image (H, W, 3) uint8 and a body (H, W); got {image.dtype} {image.shape} "
            f"and {body.shape}."
        )
    if not 0 <= fraction <= 1:
        raise ShapeError(f"the share of the body to occlude must lie in [0, 1]; got {fraction}. 0.35 means 35 %.")
    if place not in PLACES:
        raise ShapeError(f"there is no place '{place}' to occlude from; choose one of {', '.join(PLACES)}.")
    if fraction == 0:
        return Occluded(image.copy(), np.zeros(body.shape, dtype=bool), 0.0, "nothing")
    body = body.astype(bool, copy=False)
    if not body.any():
        body = np.ones_like(body)
    light = generator.uniform(0.75, 1.25)
    found = _attempt(body, fraction, occluders, generator, identity, place)
    for _ in range(ATTEMPTS - 1):
        if found.error <= TOLERANCE:
            break
        # The first of equals stays.
        found = min(found, _attempt(body, fraction, occluders, generator, identity, place), key=lambda a: a.error)
    return _paste(image, body, found.cutout, found.pin.box(found.scale, *body.shape), light)


@dataclass(frozen=True)
class _Attempt:
    """A cut-out at its best size, and how far it then is from the wanted share."""

    error: float
    scale: float
    pin: Pin
    cutout: Cutout


def _attempt(
    body: np.ndarray,
    fraction: float,
    occluders: Occluders,
    generator: np.random.Generator,
    identity: str | None,
    place: Place,
) -> _Attempt:
    cutout = occluders.draw(generator, identity)
    if generator.random() < 0.5:
        cutout = Cutout(cutout.colour[:, ::-1], cutout.alpha[:, ::-1], cutout.kind, cutout.identity)
    pinned = pin(cutout, body, place, generator)
    error, scale = _bisect(cutout, pinned, body, fraction)
    return _Attempt(error, scale, pinned, cutout)


def _bisect(cutout: Cutout, pinned: Pin, body: np.ndarray, fraction: float) -> tuple[float, float]:
    """The best (error, scale) found; what is covered grows with the scale, if not always strictly."""
    alpha, area = Image.fromarray(cutout.alpha), int(body.sum())

    def covered(scale: float) -> float:
        rows, columns, cover = _cover(alpha, pinned.box(scale, *body.shape), body.shape)
        return float(np.count_nonzero((cover >= 128) & body[rows, columns])) / area

    small, large = math.log(SMALLEST), math.log(LARGEST)
    share = covered(LARGEST)
    best = abs(share - fraction), LARGEST
    if share < fraction:
        return best
    for _ in range(STEPS):
        if best[0] <= _CLOSE:
            break
        middle = (small + large) / 2
        share = covered(math.exp(middle))
        best = min(best, (abs(share - fraction), math.exp(middle)))
        if share < fraction:
            small = middle
        else:
            large = middle
    return best


def _cover(
    picture: Image.Image, box: tuple[int, int, int, int], size: tuple[int, ...]
) -> tuple[slice, slice, np.ndarray]:
    """The rows and columns of the canvas under a box, and the part of the resized picture that lies there."""
    left, top, right, bottom = box
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, size[1]), min(bottom, size[0])
    if x0 >= x1 or y0 >= y1:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0, *np.asarray(picture).shape[2:]), dtype=np.uint8)
    across, down = picture.width / (right - left), picture.height / (bottom - top)
    source = (
        (x0 - left) * across,
        (y0 - top) * down,
        min((x1 - left) * across, picture.width),
        min((y1 - top) * down, picture.height),
    )
    # Only what is seen is resized, however large the whole would be.
    part = picture.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=source)
    return slice(y0, y1), slice(x0, x1), np.asarray(part)


def _paste(
    image: np.ndarray, body: np.ndarray, cutout: Cutout, box: tuple[int, int, int, int], light: float
) -> Occluded:
    rows, columns, alpha = _cover(Image.fromarray(cutout.alpha), box, body.shape)
    _, _, colour = _cover(Image.fromarray(cutout.colour), box, body.shape)
    result, mask = image.copy(), np.zeros(body.shape, dtype=bool)
    mask[rows, columns] = alpha >= 128
    opacity = alpha[..., None].astype(np.float32) / 255
    # An opaque pixel may grow brighter than white, a half transparent one not than its share of white.
    lit = np.minimum(colour * np.float32(light), alpha[..., None])
    result[rows, columns] = np.round(lit + image[rows, columns] * (1 - opacity))
    share = float(np.count_nonzero(mask & body)) / int(body.sum())
    return Occluded(result, mask, share, cutout.kind)
