"""A camera: its place, its light and its lens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from occluded_reid.data.synthetic.canvas import Bytes
from occluded_reid.data.synthetic.options import SyntheticOptions, generator
from occluded_reid.data.synthetic.textures import Floats

WALLS = ("bricks", "fence", "windows", "hedge", "panels", "arcade")
GROUNDS = ("asphalt", "paving", "grass", "cobbles")


@dataclass(frozen=True)
class Camera:
    """What all pictures of one camera share.

    Args:
        gain: factor per colour channel.
        gamma: exponent of the tone curve.
        saturation: 1 keeps colours, 0 makes them grey.
        haze: grey level that the darkest tone is lifted to, as a fraction of 255.
        reduction: factor by which pictures are reduced and enlarged again.
        noise: standard deviation of the noise in grey levels.
        blur: radius of a Gaussian blur in pixels.
        height: body height as a fraction of the image height.
        top: top of the head as a fraction of the image height.
        heading: preferred direction of walking in radians.
        sun: brightness of the right border against the left one.
    """

    gain: tuple[float, float, float]
    gamma: float
    saturation: float
    haze: float
    reduction: float
    noise: float
    blur: float
    height: float
    top: float
    heading: float
    sun: float


@lru_cache(maxsize=64)
def make_camera(options: SyntheticOptions, camera: int) -> Camera:
    """Draw a camera from the seed and its number."""
    rng = generator(options.seed, "camera", (camera,))
    hard = options.difficulty
    red, green, blue = (float(np.exp(rng.normal(0, hard.camera_cast))) for _ in range(3))
    return Camera(
        gain=(red, green, blue),
        gamma=float(np.exp(rng.uniform(-1, 1) * hard.camera_gamma)),
        saturation=float(rng.uniform(0.8, 1.05)),
        haze=float(rng.uniform(0, hard.camera_haze)),
        reduction=float(rng.uniform(1, max(hard.camera_blur, 1.0))),
        noise=float(rng.uniform(0.2, 1) * hard.camera_noise),
        blur=float(rng.uniform(0, 0.6)),
        height=float(rng.uniform(0.88, 0.97)),
        top=float(rng.uniform(0.01, 0.04)),
        # Spread evenly, so that no two cameras prefer the same side.
        heading=float(np.pi * hard.views * (camera - 1) / options.cameras + rng.normal(0, 0.1)),
        sun=float(rng.uniform(-0.25, 0.25)),
    )


def background(options: SyntheticOptions, camera: int, rng: np.random.Generator) -> Floats:
    """A random view of the camera's street.

    Args:
        options: image size and seed.
        camera: number of the camera.
        rng: the picture's generator.

    Returns:
        (height, width, 3) float32, 0 to 255.
    """
    street = _street(options.seed, camera, options.width, options.height)
    down = rng.integers(street.shape[0] - options.height + 1)
    right = rng.integers(street.shape[1] - options.width + 1)
    return street[down : down + options.height, right : right + options.width].astype(np.float32)


def photograph(options: SyntheticOptions, camera: int, scene: Floats, rng: np.random.Generator) -> Image.Image:
    """What the camera makes of a scene: light, tone curve, lost resolution, blur and noise.

    Args:
        options: seed and difficulty.
        camera: number of the camera.
        scene: (height, width, 3) colours, 0 to 255.
        rng: the picture's generator.

    Returns:
        An RGB picture of the same size.
    """
    lens = make_camera(options, camera)
    height, width = scene.shape[:2]
    light = np.float32(np.exp(rng.normal(0, 0.08)))
    ramp = 1 + np.float32(lens.sun) * np.linspace(-0.5, 0.5, width, dtype=np.float32)
    tones = scene * (np.asarray(lens.gain, np.float32) * (light / 255)) * ramp[None, :, None]
    tones = np.clip(tones, 0, 1) ** np.float32(lens.gamma)
    grey = tones.mean(2, keepdims=True)
    tones = grey + (tones - grey) * np.float32(lens.saturation)
    tones = lens.haze + (1 - lens.haze) * tones
    picture = Image.fromarray(np.clip(tones * 255, 0, 255).astype(np.uint8))
    factor = lens.reduction * rng.uniform(0.9, 1.15)
    if factor > 1.05:
        small = max(int(width / factor), 8), max(int(height / factor), 8)
        picture = picture.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BILINEAR)
    if lens.blur > 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(lens.blur))
    noise = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(lens.noise)
    return Image.fromarray(np.clip(np.asarray(picture, np.float32) + noise, 0, 255).astype(np.uint8))


@lru_cache(maxsize=32)
def _street(seed: int, camera: int, width: int, height: int) -> Bytes:
    """A panorama eight images wide, of which every picture shows another cut."""
    rng = generator(seed, "street", (camera,))
    wide, high = width * 8, int(height * 1.12)
    horizon = int(high * rng.uniform(0.5, 0.72))
    wall, joint = _grey_tint(rng, 90, 190), _grey_tint(rng, 60, 210)
    picture = Image.new("RGB", (wide, high), wall)
    pen = ImageDraw.Draw(picture)
    unit = width / 64
    _wall(pen, WALLS[int(rng.integers(len(WALLS)))], wide, horizon, unit, joint, rng)
    pen.rectangle((0, horizon, wide, high), fill=_grey_tint(rng, 80, 170))
    _ground(pen, GROUNDS[int(rng.integers(len(GROUNDS)))], wide, horizon, high, unit, _grey_tint(rng, 60, 180))
    for _ in range(22):  # clutter: posts, bins, posters, bushes
        x, size = rng.uniform(0, wide), rng.uniform(4, 16) * unit
        foot = rng.uniform(horizon, horizon + 0.2 * high)
        tall = size * rng.uniform(0.8, 5)
        box = (x, foot - tall, x + size, foot)
        if rng.random() < 0.3:
            pen.ellipse(box, fill=_tint(rng))
        else:
            pen.rectangle(box, fill=_tint(rng), outline=_tint(rng))
    pixels = np.asarray(picture, np.float32)
    coarse = rng.normal(0, 1, (high // 12 + 1, wide // 12 + 1)).astype(np.float32)
    stains = np.asarray(Image.fromarray(coarse).resize((wide, high), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 5, (high, wide)).astype(np.float32)
    street: Bytes = np.clip(pixels + (12 * stains + grain)[..., None], 0, 255).astype(np.uint8)
    street.flags.writeable = False
    return street


def _wall(
    pen: ImageDraw.ImageDraw,
    kind: str,
    wide: int,
    horizon: int,
    unit: float,
    joint: tuple[int, int, int],
    rng: np.random.Generator,
) -> None:
    pitch = unit * float(rng.uniform(6, 14))
    if kind == "bricks":
        for row, y in enumerate(np.arange(0, horizon, pitch * 0.6)):
            pen.line((0, y, wide, y), fill=joint)
            for x in np.arange((row % 2) * pitch * 0.7, wide, pitch * 1.4):
                pen.line((x, y, x, y + pitch * 0.6), fill=joint)
    elif kind == "fence":
        for x in np.arange(0, wide, pitch):
            pen.rectangle((x, horizon * 0.2, x + pitch * 0.5, horizon), fill=joint)
    elif kind == "windows":
        for y in np.arange(pitch, horizon, pitch * 4):
            for x in np.arange(pitch, wide, pitch * 3):
                pen.rectangle(
                    (x, y, x + pitch * 1.8, y + pitch * 2.6), fill=joint if rng.random() < 0.6 else _tint(rng)
                )
    elif kind == "hedge":
        for _ in range(int(1200 * wide / 512)):
            x, y, size = rng.uniform(0, wide), rng.uniform(0, horizon), rng.uniform(2, 6) * unit
            green = int(rng.integers(60, 140))
            pen.ellipse((x, y, x + size, y + size), fill=(green // 2, green, green // 2))
    elif kind == "panels":
        for x in np.arange(0, wide, pitch * 4):
            pen.rectangle((x, 0, x + pitch * 3.6, horizon), fill=_grey_tint(rng, 80, 200))
    else:
        for x in np.arange(0, wide, pitch * 5):
            pen.rectangle((x, horizon * 0.3, x + pitch * 3.4, horizon), fill=joint)
            pen.ellipse((x, horizon * 0.12, x + pitch * 3.4, horizon * 0.5), fill=joint)


def _ground(
    pen: ImageDraw.ImageDraw,
    kind: str,
    wide: int,
    horizon: int,
    high: int,
    unit: float,
    colour: tuple[int, int, int],
) -> None:
    if kind == "paving":
        for y in horizon + (high - horizon) * np.linspace(0, 1, 7) ** 1.5:
            pen.line((0, y, wide, y), fill=colour)
        for x in np.arange(-wide, 2 * wide, 22 * unit):
            pen.line((x, horizon, x + (x - wide / 2) * 0.3, high), fill=colour)
    elif kind == "cobbles":
        for y in np.arange(horizon, high, 5 * unit):
            for x in np.arange(0, wide, 7 * unit):
                pen.ellipse((x, y, x + 6 * unit, y + 4 * unit), outline=colour)
    elif kind == "grass":
        for x in np.arange(0, wide, 3 * unit):
            for y in np.arange(horizon, high, 7 * unit):
                pen.line((x, y + 4 * unit, x + unit, y), fill=(70, 110, 60))
    else:
        pen.rectangle((0, horizon, wide, horizon + 4 * unit), fill=colour)


def _tint(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(30, 220, 3))
    return red, green, blue


def _grey_tint(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(rng.uniform(low, high) + rng.normal(0, 14, 3), 0, 255))
    return red, green, blue
