"""Where a cut-out is pinned and how it grows: anywhere, at a border of the picture, or as someone who walks past."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from occluded_reid.data.occlusion.cutouts import Cutout

__all__ = ["LARGEST", "PLACES", "SMALLEST", "Pin", "Place", "pin"]

# Size of an occluder, as the side of the square of equal area, in units of the same measure of the picture.
SMALLEST, LARGEST = 0.04, 3.0

Place = Literal["anywhere", "bottom", "side", "top", "standing"]
"""Where an occluder comes from; `pin` says what each means."""

PLACES: tuple[Place, ...] = get_args(Place)

_ALONG = 2.0  # at a border: length along it over depth, both in units of the picture's sides
_SOLID = 0.25  # what is thinner than this share of the broadest line is pushed out over the border


class Pin(Protocol):
    """A way to grow: each size from `SMALLEST` to `LARGEST` has its box."""

    def box(self, scale: float, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the whole cut-out in a picture of that size, at least one pixel wide and high."""
        ...


@dataclass(frozen=True)
class Pinned:
    """The point (u, v) of a cut-out stays at pixel (x, y) while it grows on all sides."""

    u: float
    v: float
    x: float
    y: float
    aspect: float  # width / height, slightly stretched

    def box(self, scale: float, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        side = scale * math.sqrt(height * width)
        wide, high = side * math.sqrt(self.aspect), side / math.sqrt(self.aspect)
        left, top = round(self.x - self.u * wide), round(self.y - self.v * high)
        return left, top, left + max(round(wide), 1), top + max(round(high), 1)


@dataclass(frozen=True)
class WalkingPast:
    """Someone as tall as the picture comes in from a side; once in front of the body's middle, he comes nearer.

    Up to scale 1 the size is that of scale 1 and only the place changes; beyond it the head stays at its height and the
    feet leave the picture.
    """

    tall: float  # at scale 1, in heights of the picture
    aspect: float
    middle: float  # of the body, in pixels
    from_left: bool

    def box(self, scale: float, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        near = max(scale, 1.0)
        high = self.tall * height * near
        wide = high * self.aspect
        outside = -wide / 2 if self.from_left else width + wide / 2
        arrived = min(math.log(scale / SMALLEST) / -math.log(SMALLEST), 1.0)
        left = round(outside + arrived * (self.middle - outside) - wide / 2)
        top = round((1 - self.tall) * height)
        return left, top, left + max(round(wide), 1), top + max(round(high), 1)


def pin(cutout: Cutout, body: np.ndarray, place: Place, generator: np.random.Generator) -> Pin:
    """Choose where a cut-out grows from.

    - "anywhere": one of its points is pinned to any pixel of the picture.
    - "bottom", "top", "side" (left or right by chance): a point of its own border is pinned to that border of the
      picture, within the middle half of the body's extent. What is thin there (the stick of an umbrella) is pushed out
      over the border, so that something solid touches it. It lies along the border: where it is not twice as long as
      deep, in units of the picture's sides, it is stretched to be; half a body is then covered over its whole breadth.
    - "standing": it keeps its form, is about as tall as the picture, stands on the lower edge and comes in from the
      left or the right, as people walk past; where that does not cover enough, it comes nearer.

    Args:
        cutout: what is pinned.
        body: (H, W) bool, not empty.
        place: one of `PLACES`.
        generator: the only source of chance.
    """
    height, width = body.shape
    high, wide = cutout.alpha.shape
    if place == "anywhere":
        u, v = generator.uniform(0.15, 0.85, 2)
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        return Pinned(u, v, x, y, wide / high * math.exp(generator.uniform(-0.25, 0.25)))
    stretch = math.exp(generator.uniform(-0.25, 0.25))
    if place == "standing":
        columns = np.nonzero(body)[1]
        middle = (int(columns.min()) + int(columns.max()) + 1) / 2
        tall, from_left = generator.uniform(0.9, 1.1), bool(generator.random() < 0.5)
        return WalkingPast(tall, wide / high * math.sqrt(stretch), middle, from_left)
    opaque = cutout.alpha >= 128
    if place == "side":
        from_left = bool(generator.random() < 0.5)
        depth, along = _border_point(opaque.T if from_left else opaque.T[::-1], generator)
        u, x = (depth, 0) if from_left else (1 - depth, width)
        aspect = min(wide / high, width / height / _ALONG) * stretch
        return Pinned(u, along, x, _middle_half(body, 0, generator), aspect)
    depth, along = _border_point(opaque[::-1] if place == "bottom" else opaque, generator)
    aspect = max(wide / high, width / height * _ALONG) * stretch
    y, v = (height, 1 - depth) if place == "bottom" else (0, depth)
    return Pinned(along, v, _middle_half(body, 1, generator), y, aspect)


def _border_point(opaque: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """An opaque point (depth, along), each 0 … 1, on the first line that is solid."""
    count = opaque.sum(1)
    line = int(np.argmax(count >= _SOLID * count.max()))
    there = np.flatnonzero(opaque[line])
    chosen = there[int(generator.uniform(0.25, 0.75) * len(there))]
    return (line + 0.5) / len(opaque), (chosen + 0.5) / opaque.shape[1]


def _middle_half(body: np.ndarray, axis: int, generator: np.random.Generator) -> float:
    """A position within the middle half of the rows (axis 0) or columns (1) that the body takes."""
    taken = np.nonzero(body)[axis]
    first, last = int(taken.min()), int(taken.max())
    return float(first + generator.uniform(0.25, 0.75) * (last + 1 - first))
