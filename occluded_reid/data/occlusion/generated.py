"""Procedural occluders: crates, discs, shrubs, poles, cars and umbrellas with surfaces of many patterns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from PIL import Image, ImageDraw

from occluded_reid.data.occlusion.cutouts import Cutout, make_cutout

__all__ = ["KINDS", "GeneratedCutouts", "draw_cutout"]

SIDE = 128  # pixels of the longer side
SMOOTH = 3  # outlines are drawn this many times larger and then shrunk, which softens their edges

Point = tuple[float, float]
Painter = Callable[["_Board", np.random.Generator], None]


class _Board:
    """A transparent sheet of w × h pixels; shapes are given in units of its sides and filled with a surface."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.pixels = np.zeros((height, width, 4), dtype=np.float32)

    def fill(self, outline: Sequence[Point], surface: np.ndarray) -> None:
        """Fill a polygon."""
        self._blend(lambda pen, points: pen.polygon(points, fill=255), outline, surface)

    def disc(self, centre: Point, radii: Point, surface: np.ndarray) -> None:
        """Fill an ellipse."""
        (x, y), (a, b) = centre, radii
        self._blend(lambda pen, points: pen.ellipse(points, fill=255), [(x - a, y - b), (x + a, y + b)], surface)

    def _blend(
        self,
        draw: Callable[[ImageDraw.ImageDraw, list[Point]], None],
        points: Sequence[Point],
        surface: np.ndarray,
    ) -> None:
        sheet = Image.new("L", (self.width * SMOOTH, self.height * SMOOTH))
        draw(ImageDraw.Draw(sheet), [(x * self.width * SMOOTH, y * self.height * SMOOTH) for x, y in points])
        cover = np.asarray(sheet.reduce(SMOOTH), dtype=np.float32)[..., None] / 255
        self.pixels[..., :3] += cover * (surface - self.pixels[..., :3])
        self.pixels[..., 3:] = np.maximum(self.pixels[..., 3:], cover * 255)

    def surface(self, generator: np.random.Generator, *, colour: np.ndarray | None = None) -> np.ndarray:
        """A patterned, unevenly lit surface over the whole sheet, (h, w, 3)."""
        return _surface(self.height, self.width, generator, colour)


def _colour(generator: np.random.Generator) -> np.ndarray:
    """Any colour; the greys, blues and blacks of clothing and street are frequent, so that it looks like evidence."""
    if generator.random() < 0.5:
        grey = generator.uniform(20, 225)
        tinted: np.ndarray = np.clip(grey + generator.normal(0, 12, 3), 0, 255)
        return tinted
    vivid: np.ndarray = generator.uniform(15, 240, 3)
    dulled: np.ndarray = vivid + generator.uniform(0, 0.6) * (vivid.mean() - vivid)
    return dulled


def _noise(height: int, width: int, cells: int, generator: np.random.Generator) -> np.ndarray:
    """Smooth noise in 0 … 1 with about `cells` bumps along the longer side."""
    unit = max(height, width) / cells
    rows, columns = max(int(height / unit), 1) + 1, max(int(width / unit), 1) + 1
    coarse = Image.fromarray(generator.integers(0, 256, (rows, columns), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return smooth.astype(np.float32) / np.float32(255)


def _surface(height: int, width: int, generator: np.random.Generator, colour: np.ndarray | None) -> np.ndarray:
    base = _colour(generator) if colour is None else colour
    other = _colour(generator) if colour is None else np.clip(base * generator.uniform(0.4, 0.8), 0, 255)
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    period = generator.uniform(0.05, 0.25)
    # Paint, leaves and glass are plain or blotched; cloth and crates are striped, checked and dotted too.
    pattern = int(generator.integers(6 if colour is None else 3))
    if pattern == 0:
        share = np.zeros_like(y)
    elif pattern == 1:
        share = _noise(height, width, int(generator.integers(5, 24)), generator)
    elif pattern == 2:
        share = (_noise(height, width, int(generator.integers(6, 20)), generator) > 0.5).astype(np.float32)
    elif pattern == 3:
        angle = generator.choice([0.0, math.pi / 2, math.pi / 4])
        share = ((x * math.cos(angle) + y * math.sin(angle)) % period < period / 2).astype(np.float32)
    elif pattern == 4:
        share = ((x % period < period / 2) != (y % period < period / 2)).astype(np.float32)
    else:
        across, down = x % period - period / 2, y % period - period / 2
        share = (across**2 + down**2 < (0.3 * period) ** 2).astype(np.float32)
    mixed = base + share[..., None] * (other - base)
    slope = generator.normal(0, 0.35, 2)
    light = 1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5) + 0.25 * (_noise(height, width, 5, generator) - 0.5)
    grain = generator.normal(0, 4, (height, width, 1))
    surface: np.ndarray = np.clip(mixed * light[..., None] + grain, 0, 255)
    return surface.astype(np.float32)


def _crate(board: _Board, generator: np.random.Generator) -> None:
    slant = generator.uniform(0, 0.12, 4)
    corners = [(slant[0], 0.02 + slant[1]), (0.98, 0.02), (0.98 - slant[2], 0.98), (0.02, 0.98 - slant[3])]
    board.fill(corners, board.surface(generator))
    for _ in range(int(generator.integers(0, 4))):
        left, top, size = generator.uniform(0.15, 0.7), generator.uniform(0.15, 0.75), generator.uniform(0.08, 0.2)
        label = [(left, top), (left + size, top), (left + size, top + size), (left, top + size)]
        board.fill(label, board.surface(generator))


def _disc(board: _Board, generator: np.random.Generator) -> None:
    board.disc((0.5, 0.5), (0.49, 0.49), board.surface(generator))
    if generator.random() < 0.6:
        inner = generator.uniform(0.15, 0.4)
        board.disc((0.5, 0.5), (inner, inner), board.surface(generator))


def _shrub(board: _Board, generator: np.random.Generator) -> None:
    green = np.array([generator.uniform(30, 120), generator.uniform(70, 150), generator.uniform(15, 80)])
    colour = green if generator.random() < 0.6 else None
    angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    radius = np.full_like(angles, 0.36)
    for wave in range(2, 12):
        radius += generator.normal(0, 0.09) / wave**0.7 * np.cos(wave * angles + generator.uniform(0, 2 * math.pi))
    radius = np.clip(radius, 0.12, 0.49)
    outline = [(0.5 + r * math.cos(a), 0.5 + r * math.sin(a)) for r, a in zip(radius, angles, strict=True)]
    board.fill(outline, board.surface(generator, colour=colour))
    for _ in range(12):
        a, r, size = generator.uniform(0, 2 * math.pi), generator.uniform(0, 0.3), generator.uniform(0.04, 0.12)
        tone = None if colour is None else np.clip(colour * generator.uniform(0.5, 1.5), 0, 255)
        board.disc((0.5 + r * math.cos(a), 0.5 + r * math.sin(a)), (size, size), board.surface(generator, colour=tone))


def _pole(board: _Board, generator: np.random.Generator) -> None:
    half, lean = generator.uniform(0.25, 0.45), generator.normal(0, 0.04)
    outline = [
        (0.5 - half + lean, 0.01),
        (0.5 + half + lean, 0.01),
        (0.5 + half - lean, 0.99),
        (0.5 - half - lean, 0.99),
    ]
    board.fill([(min(max(x, 0.0), 1.0), y) for x, y in outline], board.surface(generator))
    if generator.random() < 0.5:
        top = generator.uniform(0.02, 0.5)
        board.fill([(0.0, top), (1.0, top), (1.0, top + 0.2), (0.0, top + 0.2)], board.surface(generator))


def _car(board: _Board, generator: np.random.Generator) -> None:
    paint = board.surface(generator, colour=_colour(generator))
    glass = board.surface(generator, colour=np.array([60.0, 75.0, 85.0]) * generator.uniform(0.4, 1.6))
    tyre = board.surface(generator, colour=np.array([25.0, 25.0, 27.0]))
    belt, front, back = generator.uniform(0.38, 0.46), generator.uniform(0.2, 0.3), generator.uniform(0.72, 0.9)
    board.fill(
        [(front - 0.1, belt + 0.02), (front + 0.04, 0.04), (back - 0.06, 0.04), (back + 0.08, belt + 0.02)], paint
    )
    middle = (front + back) / 2
    board.fill(
        [(front - 0.04, belt - 0.02), (front + 0.06, 0.1), (middle - 0.02, 0.1), (middle - 0.02, belt - 0.02)], glass
    )
    board.fill([(middle + 0.02, belt - 0.02), (middle + 0.02, 0.1), (back - 0.07, 0.1), (back, belt - 0.02)], glass)
    board.fill([(0.01, belt + 0.12), (0.06, belt), (0.97, belt), (0.99, 0.82), (0.02, 0.82)], paint)
    for wheel in (0.2, 0.8):
        board.disc((wheel, 0.8), (0.09, 0.19), tyre)
        board.disc((wheel, 0.8), (0.05, 0.1), board.surface(generator, colour=np.array([165.0, 165.0, 170.0])))


def _umbrella(board: _Board, generator: np.random.Generator) -> None:
    rim, gores = generator.uniform(0.5, 0.7), int(generator.integers(4, 9))
    cloths = [board.surface(generator), board.surface(generator)]
    board.fill([(0.485, 0.1), (0.515, 0.1), (0.515, 0.98), (0.485, 0.98)], board.surface(generator))
    edges = np.linspace(-1, 1, gores + 1)
    for gore in range(gores):
        along = np.linspace(edges[gore], edges[gore + 1], 8)
        arch = [(0.5 + 0.49 * e, rim - (rim - 0.02) * math.sqrt(max(1 - e * e, 0.0))) for e in along]
        sag = [(0.5 + 0.49 * e, rim - 0.06 * math.sin(math.pi * i / 7)) for i, e in enumerate(along)]
        board.fill(arch + sag[::-1], cloths[gore % 2])


# kind -> painter, and the range of width / height
_PAINTERS: dict[str, tuple[Painter, tuple[float, float]]] = {
    "crate": (_crate, (0.5, 2.0)),
    "disc": (_disc, (0.6, 1.6)),
    "shrub": (_shrub, (0.7, 1.8)),
    "pole": (_pole, (0.1, 0.3)),
    "car": (_car, (2.0, 2.8)),
    "umbrella": (_umbrella, (0.9, 1.4)),
}

KINDS: tuple[str, ...] = tuple(_PAINTERS)


def draw_cutout(kind: str, generator: np.random.Generator) -> Cutout:
    """Draw one occluder of a kind.

    Args:
        kind: one of `KINDS`.
        generator: settles its form and surfaces.
    """
    paint, (narrow, wide) = _PAINTERS[kind]
    aspect = math.exp(generator.uniform(math.log(narrow), math.log(wide)))
    board = _Board(round(SIDE * min(aspect, 1.0)), round(SIDE * min(1 / aspect, 1.0)))
    paint(board, generator)
    return make_cutout(np.round(board.pixels).astype(np.uint8), kind)


class GeneratedCutouts(Sequence[Cutout]):
    """`count` drawn occluders, the kinds in turn; each is drawn on first use from (seed, number) and kept.

    Args:
        seed: not negative.
        count: how many.
        start: number of the first one.
        step: distance between numbers.
    """

    def __init__(self, seed: int, count: int, start: int = 0, step: int = 1) -> None:
        self.seed, self._numbers = seed, range(start, start + count * step, step)
        self._drawn: dict[int, Cutout] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Cutout: ...
    @overload
    def __getitem__(self, index: slice) -> GeneratedCutouts: ...
    def __getitem__(self, index: int | slice) -> Cutout | GeneratedCutouts:
        if isinstance(index, slice):
            chosen = self._numbers[index]
            return GeneratedCutouts(self.seed, len(chosen), chosen.start, chosen.step)
        number = self._numbers[index]
        if number not in self._drawn:
            generator = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
            self._drawn[number] = draw_cutout(KINDS[number % len(KINDS)], generator)
        return self._drawn[number]
