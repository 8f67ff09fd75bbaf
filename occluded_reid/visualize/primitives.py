"""What a chart is made of, and the two ways to draw it: as SVG text and as pixels."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from html import escape
from typing import Literal

from PIL import Image, ImageDraw

from occluded_reid.visualize.canvas import fit_text, font, text_width
from occluded_reid.visualize.colours import INK, MUTED, PAPER, RGB

__all__ = ["FINE", "Area", "Dot", "Label", "Line", "Primitive", "paint", "to_svg", "write_label"]

FINE = 4
"""Shapes are painted at this many times their size and scaled down, which smooths them."""


@dataclass(frozen=True)
class Line:
    """A polyline; "ink" is the colour of the text around it."""

    points: tuple[tuple[float, float], ...]
    colour: RGB | Literal["ink"]
    width: float = 1.0
    opacity: float = 1.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Area:
    """A filled polygon without an outline."""

    points: tuple[tuple[float, float], ...]
    colour: RGB
    opacity: float


@dataclass(frozen=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    colour: RGB


@dataclass(frozen=True)
class Label:
    """One line of text on its baseline; `upright` reads from below to above, around its middle."""

    x: float
    y: float
    text: str
    size: int
    anchor: Literal["start", "middle", "end"] = "start"
    strong: bool = False
    upright: bool = False


Primitive = Line | Area | Dot | Label
"""Anything a chart is drawn with."""


def to_svg(primitive: Primitive) -> str:
    """Return the SVG element of a primitive; text is escaped."""
    if isinstance(primitive, Label):
        turn = f' transform="rotate(-90 {primitive.x:.1f} {primitive.y:.1f})"' if primitive.upright else ""
        weight = ' font-weight="600"' if primitive.strong else ' fill-opacity="0.75"'
        return (
            f'<text x="{primitive.x:.1f}" y="{primitive.y:.1f}" font-size="{primitive.size}" fill="currentColor" '
            f'text-anchor="{primitive.anchor}"{weight}{turn}>{escape(primitive.text)}</text>'
        )
    if isinstance(primitive, Dot):
        return (
            f'<circle cx="{primitive.x:.1f}" cy="{primitive.y:.1f}" r="{primitive.radius:g}" '
            f'fill="{_hex(primitive.colour)}"/>'
        )
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in primitive.points)
    if isinstance(primitive, Area):
        return f'<polygon points="{points}" fill="{_hex(primitive.colour)}" fill-opacity="{primitive.opacity:g}"/>'
    dash = f' stroke-dasharray="{" ".join(f"{d:g}" for d in primitive.dash)}"' if primitive.dash else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{_hex(primitive.colour)}" stroke-width="{primitive.width:g}" '
        f'stroke-opacity="{primitive.opacity:g}" stroke-linejoin="round"{dash}/>'
    )


def _hex(colour: RGB | Literal["ink"]) -> str:
    return "currentColor" if colour == "ink" else "#{:02x}{:02x}{:02x}".format(*colour)


def paint(canvas: Image.Image, primitive: Primitive) -> None:
    """Draw a shape at FINE times its size; labels are left to `write_label`, which draws them at the final size."""
    draw = ImageDraw.Draw(canvas)
    if isinstance(primitive, Line):
        base = INK if primitive.colour == "ink" else primitive.colour
        colour = _blend(base, primitive.opacity)
        width = round(primitive.width * FINE)
        points = [(x * FINE, y * FINE) for x, y in primitive.points]
        for piece in _dashed(points, tuple(d * FINE for d in primitive.dash)):
            draw.line(piece, fill=colour, width=width, joint="curve")
    elif isinstance(primitive, Area):
        points = [(x * FINE, y * FINE) for x, y in primitive.points]
        veil = Image.new("L", canvas.size, 0)
        ImageDraw.Draw(veil).polygon(points, fill=round(255 * primitive.opacity))
        canvas.paste(Image.new("RGB", canvas.size, primitive.colour), (0, 0), veil)
    elif isinstance(primitive, Dot):
        x, y, r = primitive.x * FINE, primitive.y * FINE, primitive.radius * FINE
        draw.ellipse((x - r, y - r, x + r, y + r), fill=primitive.colour)


def _dashed(points: list[tuple[float, float]], dash: tuple[float, ...]) -> list[list[tuple[float, float]]]:
    """Cut a polyline into its dashes."""
    if not dash:
        return [points]
    pieces: list[list[tuple[float, float]]] = [[points[0]]]
    place, left = 0, dash[0]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while length - done > left:
            done += left
            at = (x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length)
            if place % 2 == 0:
                pieces[-1].append(at)
            else:
                pieces.append([at])
            place += 1
            left = dash[place % len(dash)]
        left -= length - done
        if place % 2 == 0:
            pieces[-1].append((x1, y1))
    return [piece for piece in pieces if len(piece) > 1]


def _blend(colour: RGB, opacity: float) -> RGB:
    red, green, blue = (round(p + (c - p) * opacity) for c, p in zip(colour, PAPER, strict=True))
    return red, green, blue


def write_label(canvas: Image.Image, text: Label, scale: int) -> None:
    """Write a label on a canvas of `scale` pixels a unit."""
    size = text.size * scale
    colour = INK if text.strong else MUTED
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
    if not text.upright:
        draw = ImageDraw.Draw(canvas)
        draw.text(
            (text.x * scale, text.y * scale),
            fit_text(text.text, 10**6, size),
            font=font(size),
            fill=colour,
            anchor=anchor,
        )
        return
    shown = fit_text(text.text, canvas.height, size)
    label = Image.new("L", (text_width(shown, size) + 2, size + size // 2), 0)
    ImageDraw.Draw(label).text((1, size), shown, font=font(size), fill=255, anchor="ls")
    turned = label.transpose(Image.Transpose.ROTATE_90)
    at = (round(text.x * scale) - size, round(text.y * scale - turned.height / 2))
    canvas.paste(Image.new("RGB", turned.size, colour), at, turned)
