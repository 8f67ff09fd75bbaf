"""Things between camera and person: cars, umbrellas, pillars, trees, crates, bushes, banners, other pedestrians."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from occluded_reid.data.synthetic.body import draw_person
from occluded_reid.data.synthetic.camera import make_camera
from occluded_reid.data.synthetic.canvas import Canvas, Point, Sprite
from occluded_reid.data.synthetic.options import SyntheticOptions
from occluded_reid.data.synthetic.person import BAGS, SKIN, UPPER, make_person
from occluded_reid.data.synthetic.pose import make_pose
from occluded_reid.data.synthetic.textures import PATTERNS, Material

_Draw = Callable[[Canvas, float, np.random.Generator], None]
_GLASS, _TYRE = Material((70.0, 90.0, 104.0)), Material((26.0, 26.0, 28.0))


def place_occluder(
    options: SyntheticOptions,
    camera: int,
    body: NDArray[np.bool_],
    cover: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[str, Sprite]:
    """Draw an occluder and slide it in front of a body until it covers as much as was asked for.

    It comes in from below, from a side or from above, to a place that is drawn and not aligned with any stripe.

    Args:
        options: image size, seed and difficulty.
        camera: number of the camera.
        body: (H, W), where the body is.
        cover: least and largest fraction of the body to cover.
        rng: the picture's generator.

    Returns:
        The kind of occluder, one of `KINDS`, and its sprite.
    """
    target = rng.uniform(*cover)
    for attempt in range(8):
        # A crate from below covers any fraction, so the last attempt always succeeds.
        kind = str(rng.choice(list(KINDS), p=_SHARES)) if attempt < 7 else "crate"
        sides = KINDS[kind] if attempt < 7 else ("below",)
        side = sides[rng.integers(len(sides))]
        sprite = _draw(options, camera, kind, side, rng)
        shift = _best_shift(sprite.solid, body, side, target)
        sprite = sprite.shifted(*shift)
        if cover[0] <= float((sprite.solid & body).sum() / max(body.sum(), 1)) <= cover[1]:
            return kind, sprite
    return kind, sprite


def _best_shift(solid: NDArray[np.bool_], body: NDArray[np.bool_], side: str, target: float) -> tuple[int, int]:
    """The shift (down, right) at which the covered fraction comes nearest to the target."""
    height, width = body.shape
    steps = np.arange(0, width if side in ("left", "right") else height)
    towards = {"below": (1, 0), "above": (-1, 0), "left": (0, -1), "right": (0, 1)}[side]
    area = max(int(body.sum()), 1)
    fractions = []
    for step in steps:
        down, right = towards[0] * int(step), towards[1] * int(step)
        there = body[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        thing = solid[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
        fractions.append(np.count_nonzero(there & thing) / area)
    best = int(np.argmin(np.abs(np.array(fractions) - target)))
    return towards[0] * best, towards[1] * best


def _draw(options: SyntheticOptions, camera: int, kind: str, side: str, rng: np.random.Generator) -> Sprite:
    width, height = options.width, options.height
    if kind == "pedestrian":
        lens = make_camera(options, camera)
        # Beyond every identity of the set: this passer-by matches no query.
        passer = make_person(options.seed, 20_000 + int(rng.integers(5_000)), options.difficulty)
        # Whoever comes in from below stands nearer to the camera, and therefore larger.
        scale = lens.height * height * (rng.uniform(1.3, 1.7) if side == "below" else rng.uniform(0.98, 1.25))
        across = width * (0.5 + (rng.normal(0, 0.06) if side == "below" else 0.0))
        canvas = Canvas(width, height, across, height * rng.uniform(0.0, 0.12), scale)
        draw_person(canvas, passer, make_pose(passer, lens.heading, options.difficulty, rng))
        return canvas.render()
    canvas = Canvas(width, height, 0.0, 0.0, height)
    _DRAWERS[kind](canvas, width / height, rng)
    return canvas.render()


def _cloth(rng: np.random.Generator, *, plain: float = 0.15) -> Material:
    """A surface in clothing's own colours and patterns, so that an occluder looks like evidence."""
    base, accent = (UPPER[i] for i in rng.choice(len(UPPER), 2, replace=False))
    pattern = "plain" if rng.random() < plain else str(rng.choice(PATTERNS[1:7]))
    return Material(base, accent, pattern, float(rng.uniform(0.04, 0.12)), float(rng.uniform(0.3, 0.6)), rng.random())


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _car(canvas: Canvas, wide: float, rng: np.random.Generator) -> None:
    x, roof, length = -rng.uniform(0.0, 0.55), rng.uniform(0.14, 0.22), 0.95
    paint, trim = Material(UPPER[rng.integers(len(UPPER))]), Material(UPPER[rng.integers(len(UPPER))])
    belt, sill = roof + 0.16, roof + 0.42
    cabin = [(x + 0.16, belt), (x + 0.26, roof), (x + 0.66, roof), (x + 0.80, belt)]
    canvas.polygon(cabin, paint)
    for left, right in ((0.22, 0.44), (0.47, 0.72)):
        canvas.polygon([(x + left, belt - 0.01), (x + left + 0.05, roof + 0.02), (x + right - 0.04, roof + 0.02),
                        (x + right, belt - 0.01)], _GLASS, light=float(rng.uniform(0.8, 1.3)))  # fmt: skip
    canvas.polygon(_box(x, belt, x + length, 1.05), paint, origin=(x, belt), light=0.92)
    canvas.polygon(_box(x, belt + 0.12, x + length, belt + 0.16), trim)
    canvas.polygon(_box(x, sill, x + length, 1.05), _TYRE, light=1.4)
    for wheel in (0.2, 0.74):
        canvas.ellipse((x + wheel, sill), (0.10, 0.10), _TYRE)
        canvas.ellipse((x + wheel, sill), (0.055, 0.055), Material((176.0, 178.0, 180.0)))
    for lamp in (0.01, 0.90):
        canvas.polygon(_box(x + lamp, belt + 0.03, x + lamp + 0.04, belt + 0.09), Material((232.0, 196.0, 120.0)))
    canvas.polygon(_box(0, 0.985, wide, 1.05), _TYRE)


def _umbrella(canvas: Canvas, wide: float, rng: np.random.Generator) -> None:
    x, low = wide * rng.uniform(0.3, 0.7), 0.8
    radius, high = rng.uniform(0.16, 0.24), 0.62
    light, dark = _cloth(rng), _cloth(rng, plain=1.0)
    canvas.limb((x, low - 0.05), (x, 1.1), (0.007, 0.007), _TYRE, 0)
    edge = np.linspace(-1, 1, 9)
    for gore in range(8):
        outer = [
            (x + radius * e, low - 0.25 * high * (1 - e * e) ** 0.5) for e in np.linspace(edge[gore], edge[gore + 1], 5)
        ]
        rim = [(x + radius * e, low - high * (1 - e * e) ** 0.5) for e in np.linspace(edge[gore + 1], edge[gore], 5)]
        canvas.polygon(
            outer + rim, light if gore % 2 else dark, origin=(x, low - high), light=1.0 - 0.05 * abs(gore - 3)
        )
    # Its upper end reaches out of the picture: an umbrella held before the camera hides what is above it, too.
    side = 0.75 * radius
    shoulder, crown = low - 0.6 * high, low - 0.95 * high
    cover = [(x - radius, 0.0), (x + radius, 0.0), (x + side, shoulder), (x, crown), (x - side, shoulder)]
    canvas.polygon(cover, light, origin=(x, 0.0), radius=radius)


def _pillar(canvas: Canvas, wide: float, rng: np.random.Generator) -> None:
    x, half = wide * 0.5, rng.uniform(0.05, 0.15)
    canvas.polygon(_box(x - half, -0.02, x + half, 1.02), _cloth(rng), origin=(x, 0.0), radius=half * 1.1)
    if rng.random() < 0.6:  # a poster or a traffic sign
        y, size = rng.uniform(0.1, 0.7), half * rng.uniform(0.6, 0.95)
        canvas.polygon(_box(x - size, y, x + size, y + 0.2), _cloth(rng, plain=0.5), origin=(x, y))
        canvas.ellipse((x, y + 0.1), (size * 0.6, size * 0.6), Material(SKIN[rng.integers(len(SKIN))]))


def _tree(canvas: Canvas, wide: float, rng: np.random.Generator) -> None:
    x, half = wide * 0.5, rng.uniform(0.035, 0.08)
    tone = float(rng.uniform(0.7, 1.3))
    bark = Material((96 * tone, 72 * tone, 50 * tone), (60 * tone, 46 * tone, 36 * tone), "camouflage", 0.03, 0.5)
    canvas.limb((x, 0.1), (x + rng.normal(0, 0.02), 1.05), (half, half * 1.3), bark, 0)
    _leaves(canvas, x, rng.uniform(0.08, 0.3), rng.uniform(0.12, 0.2), rng)


def _bush(canvas: Canvas, wide: float, rng: np.random.Generator) -> None:
    x, half = wide * 0.5, wide * 0.62
    green = _green(rng)
    canvas.polygon(_box(x - half, 0.3, x + half, 1.05), green, origin=(x, 0.0))
    for _ in range(5):
        _leaves(canvas, x + rng.uniform(-0.6, 0.6) * half, rng.uniform(0.24, 0.95), 0.13, rng)


def _leaves(canvas: Canvas, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    for _ in range(12):
        spot = x + rng.normal(0, 0.5) * size, y + rng.normal(0, 0.5) * size
        radius = size * float(rng.uniform(0.2, 0.45))
        canvas.ellipse(spot, (radius, radius * 0.8), _green(rng), light=float(rng.uniform(0.75, 1.25)))


def _green(rng: np.random.Generator) -> Material:
    value = float(rng.uniform(70, 130))
    base = (value * rng.uniform(0.4, 0.9), value, value * 0.5)
    return Material(base, (value * 0.35, value * 0.6, value * 0.3), "camouflage", 0.035, 0.45, float(rng.random()))


def _crate(canvas: Canvas, wide: float, rng: np.random.Generator) -> None:
    top, row = 0.02, 0
    while top < 1.0:
        high, split = rng.uniform(0.14, 0.32), wide * rng.uniform(0.25, 0.75)
        for left, right in ((-0.02, split), (split, wide + 0.02)) if row % 2 else ((-0.02, wide + 0.02),):
            surface = _cloth(rng) if rng.random() < 0.7 else Material(BAGS[rng.integers(len(BAGS))])
            canvas.polygon(_box(left, top, right, top + high + 0.01), surface, origin=(left, top))
            canvas.polygon(_box(left, top, right, top + 0.008), _TYRE)
            canvas.polygon(_box(right - 0.006, top, right, top + high), _TYRE)
        top, row = top + high, row + 1


def _banner(canvas: Canvas, wide: float, rng: np.random.Generator) -> None:
    low = rng.uniform(0.85, 0.95)
    slant = float(rng.uniform(-0.06, 0.06))
    corners = [(-0.02, -0.02), (wide + 0.02, -0.02), (wide + 0.02, low + slant), (-0.02, low - slant)]
    canvas.polygon(corners, _cloth(rng), origin=(0.5 * wide, 0.0))
    for _ in range(6):
        x, y, size = rng.uniform(0, wide), rng.uniform(0.05, low), rng.uniform(0.03, 0.08)
        if rng.random() < 0.5:
            canvas.ellipse((x, y), (size, size), _cloth(rng, plain=0.7))
        else:
            canvas.polygon(_box(x - size, y - 0.4 * size, x + size, y + 0.4 * size), _cloth(rng, plain=0.7))


_DRAWERS: dict[str, _Draw] = {
    "car": _car,
    "umbrella": _umbrella,
    "pillar": _pillar,
    "tree": _tree,
    "crate": _crate,
    "bush": _bush,
    "banner": _banner,
}

KINDS: dict[str, tuple[str, ...]] = {
    "car": ("below",),
    "umbrella": ("above",),
    "pillar": ("left", "right"),
    "tree": ("left", "right"),
    "crate": ("below", "below", "below", "left", "right"),
    "bush": ("below", "below", "below", "left", "right"),
    "banner": ("above",),
    "pedestrian": ("below", "below", "left", "right"),
}
"""Kinds of occluder and the sides from which they come into the picture."""

# In streets most of what hides a person hides the legs; what comes from a side touches every stripe.
_SHARES = np.array([4, 2, 1, 1, 4, 3, 2, 4]) / 21
