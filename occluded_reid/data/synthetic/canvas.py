"""A sheet on which shapes are laid over each other, painted in their own frames, and reduced to image size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from occluded_reid.data.synthetic.textures import Floats, Material, paint

Bytes = NDArray[np.uint8]
Point = tuple[float, float]
OVERSAMPLING = 2
"""Shapes are drawn this many times larger than the image and averaged down, for smooth edges."""


@dataclass(frozen=True)
class Sprite:
    """A drawn thing at image size.

    Args:
        colour: (H, W, 3) float32, 0 to 255, multiplied by `alpha`.
        alpha: (H, W) float32 in [0, 1].
        solid: (H, W) bool, where the thing is.
        parts: (H, W) uint8 classes 0 to 7; things that are no body have 0.
    """

    colour: Floats
    alpha: Floats
    solid: NDArray[np.bool_]
    parts: Bytes

    def over(self, picture: Floats) -> Floats:
        """The picture (H, W, 3) with this sprite in front."""
        return picture * (1 - self.alpha[..., None]) + self.colour

    def shifted(self, down: int, right: int) -> Sprite:
        """The sprite moved by whole pixels; what leaves the image is cut off."""
        return Sprite(*(_shift(array, down, right) for array in (self.colour, self.alpha, self.solid, self.parts)))


@dataclass(frozen=True)
class _Shape:
    material: Material
    part: int
    origin: Point
    axis: Point
    radius: float
    light: float


class Canvas:
    """Shapes in painter's order: the last one is in front.

    Args:
        width: image width in pixels.
        height: image height in pixels.
        left: x in pixels of the drawing's origin.
        top: y in pixels of the drawing's origin.
        scale: pixels per unit of the drawing (for a person, its height).
    """

    def __init__(self, width: int, height: int, left: float, top: float, scale: float) -> None:
        size = (width * OVERSAMPLING, height * OVERSAMPLING)
        self._sheet, self._body = Image.new("L", size), Image.new("L", size)
        self._pens = ImageDraw.Draw(self._sheet), ImageDraw.Draw(self._body)
        self._left, self._top, self._scale = left * OVERSAMPLING, top * OVERSAMPLING, scale * OVERSAMPLING
        self._shapes: list[_Shape] = []

    def polygon(
        self,
        points: list[Point],
        material: Material,
        part: int | None = 0,
        *,
        origin: Point = (0.0, 0.0),
        axis: Point = (0.0, 1.0),
        radius: float = 0.0,
        light: float = 1.0,
    ) -> None:
        """Lay a polygon.

        Args:
            points: corners in units of the drawing.
            material: its surface, painted along `axis` from `origin`.
            part: mask class; None leaves the class of what is behind (a strap on a torso stays torso).
            origin: where the material's frame begins.
            axis: direction of the material's frame.
            radius: half the width over which the surface bends away from the light; 0 is flat.
            light: brightness.
        """
        number = self._new(material, part, origin, axis, radius, light)
        corners = [self._pixel(point) for point in points]
        for pen in self._pens if part is not None else self._pens[:1]:
            pen.polygon(corners, fill=number)

    def limb(
        self, start: Point, end: Point, radii: Point, material: Material, part: int | None, light: float = 1.0
    ) -> None:
        """Lay a rounded, tapering limb from `start` to `end`; `radii` are those of its two ends."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = max(float(np.hypot(dx, dy)), 1e-6)
        axis = (dx / length, dy / length)
        number = self._new(material, part, start, axis, max(radii), light)
        corners = [
            self._pixel((point[0] + side * axis[1] * radius, point[1] - side * axis[0] * radius))
            for point, radius, side in (
                (start, radii[0], 1),
                (end, radii[1], 1),
                (end, radii[1], -1),
                (start, radii[0], -1),
            )
        ]
        for pen in self._pens if part is not None else self._pens[:1]:
            pen.polygon(corners, fill=number)
            for point, radius in zip((start, end), radii, strict=True):
                pen.ellipse(self._box(point, (radius, radius)), fill=number)

    def ellipse(
        self, centre: Point, radii: Point, material: Material, part: int | None = 0, *, light: float = 1.0
    ) -> None:
        """Lay an ellipse; its material's frame begins at its upper end."""
        number = self._new(material, part, (centre[0], centre[1] - radii[1]), (0.0, 1.0), radii[0], light)
        for pen in self._pens if part is not None else self._pens[:1]:
            pen.ellipse(self._box(centre, radii), fill=number)

    def render(self) -> Sprite:
        """Paint every visible pixel and reduce the sheet to image size."""
        sheet = np.asarray(self._sheet)
        height, width = sheet.shape
        owner = sheet.ravel()
        colour = np.zeros((owner.size, 3), np.float32)
        order = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.bincount(owner, minlength=len(self._shapes) + 1))
        for number, shape in enumerate(self._shapes, start=1):
            where = order[ends[number - 1] : ends[number]]
            if where.size:
                colour[where] = self._surface(shape, where, width)
        classes = np.array([0, *(shape.part for shape in self._shapes)], np.uint8)
        body = classes[np.asarray(self._body)]
        inside = sheet > 0
        # Masks are sampled, not averaged: a class has no half.
        return Sprite(
            colour=_reduced(colour.reshape(height, width, 3)),
            alpha=_reduced(inside.astype(np.float32)),
            solid=inside[::OVERSAMPLING, ::OVERSAMPLING].copy(),
            parts=body[::OVERSAMPLING, ::OVERSAMPLING].copy(),
        )

    def _surface(self, shape: _Shape, where: NDArray[np.intp], width: int) -> Floats:
        x = ((where % width) - self._left).astype(np.float32) / self._scale - shape.origin[0]
        y = ((where // width) - self._top).astype(np.float32) / self._scale - shape.origin[1]
        across, along = x * shape.axis[1] - y * shape.axis[0], x * shape.axis[0] + y * shape.axis[1]
        colour = paint(shape.material, across, along)
        if shape.radius > 0:
            bend = np.clip(across / shape.radius, -1, 1)
            colour *= (shape.light * (1.06 - 0.12 * bend - 0.26 * bend * bend))[:, None]
        elif shape.light != 1:
            colour *= shape.light
        return np.minimum(colour, 255, out=colour)

    def _new(
        self, material: Material, part: int | None, origin: Point, axis: Point, radius: float, light: float
    ) -> int:
        self._shapes.append(_Shape(material, part or 0, origin, axis, radius, light))
        if len(self._shapes) > 255:
            raise RuntimeError("a canvas holds at most 255 shapes")
        return len(self._shapes)

    def _pixel(self, point: Point) -> Point:
        return self._left + point[0] * self._scale, self._top + point[1] * self._scale

    def _box(self, centre: Point, radii: Point) -> list[Point]:
        return [
            self._pixel((centre[0] - radii[0], centre[1] - radii[1])),
            self._pixel((centre[0] + radii[0], centre[1] + radii[1])),
        ]


def _reduced(array: Floats) -> Floats:
    """Means over OVERSAMPLING × OVERSAMPLING pixels; adding slices is five times faster than `mean` over two axes."""
    total = np.zeros_like(array[::OVERSAMPLING, ::OVERSAMPLING])
    for row in range(OVERSAMPLING):
        for column in range(OVERSAMPLING):
            total += array[row::OVERSAMPLING, column::OVERSAMPLING]
    total /= OVERSAMPLING * OVERSAMPLING
    return total


def _shift(array: NDArray[Any], down: int, right: int) -> NDArray[Any]:
    moved = np.zeros_like(array)
    height, width = array.shape[:2]
    if abs(down) < height and abs(right) < width:
        rows = slice(max(down, 0), height + min(down, 0)), slice(max(-down, 0), height - max(down, 0))
        columns = slice(max(right, 0), width + min(right, 0)), slice(max(-right, 0), width - max(right, 0))
        moved[rows[0], columns[0]] = array[rows[1], columns[1]]
    return moved
