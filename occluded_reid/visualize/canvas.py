"""What all pictures are drawn with: images of any kind as RGB, text that fits, hatching."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFont

from occluded_reid.errors import ShapeError
from occluded_reid.pixels import ImageLike, to_rgb
from occluded_reid.visualize.colors import RGB

__all__ = ["Picture", "as_rgb", "fit_image", "fit_text", "font", "hatch", "printable", "text_width"]

Picture = ImageLike
"""An image as this room takes it: of any kind, arrays and tensors in the order R, G, B."""

# Pillow's bundled font knows ASCII and a little more; these are the signs that labels here really use.
_SPELT = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "→": "->", "×": "x", "≥": ">=", "≤": "<=", "λ": "lambda", "τ": "tau", "ß": "ss"}
)
_LOWEST_SIDE = 8


def as_rgb(image: Picture, name: str = "image") -> Image.Image:
    """Return an image of any kind as RGB, as `occluded_reid.pixels.to_rgb` does.

    Raises:
        ImageError: an image cannot be read, or has no pixels.
        ShapeError: an array or a tensor has another type or shape than an image.
    """
    return to_rgb(image, name=name)


def fit_image(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale an image to fit into width × height, its proportions kept as far as that leaves something to see."""
    scale = min(width / image.width, height / image.height)
    size = (
        min(width, max(_LOWEST_SIDE, round(image.width * scale))),
        min(height, max(_LOWEST_SIDE, round(image.height * scale))),
    )
    return image.resize(size, Image.Resampling.LANCZOS)


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's bundled font, so that pictures are the same on every machine.

    Raises:
        ShapeError: this Pillow was built without FreeType.
    """
    loaded = ImageFont.load_default(size=size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise ShapeError("this Pillow was built without FreeType and cannot draw text; install the wheel from PyPI.")
    return loaded


def printable(text: str) -> str:
    """Return text that the bundled font can draw: one line, accents dropped, other unknown signs as "?".

    Example:
        >>> printable("Zoë – 20 ≥ 3")
        'Zoe - 20 >= 3'
    """
    flat = " ".join(text.split()).translate(_SPELT)
    return "".join(_drawable(sign) for sign in flat)


def text_width(text: str, size: int) -> int:
    """Return the width of printable text in pixels."""
    return int(np.ceil(font(size).getlength(text)))


def fit_text(text: str, width: int, size: int) -> str:
    """Return printable text, cut with "…" where it would be wider than `width` pixels.

    Example:
        >>> fit_text("a name that never ends", 60, 12).endswith("…")
        True
    """
    # Nobody reads beyond a few hundred signs, and measuring a megabyte of label would take long.
    shown = printable(text[:400])
    if text_width(shown, size) <= width:
        return shown
    low, high = 0, len(shown)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(shown[:middle].rstrip() + "…", size) <= width:
            low = middle
        else:
            high = middle - 1
    return shown[:low].rstrip() + "…" if low else ""


def hatch(canvas: Image.Image, box: tuple[int, int, int, int], paper: RGB, ink: RGB, step: int = 4) -> None:
    """Fill a box (left, top, right, bottom; the last two outside) with diagonal lines: the sign of "hidden"."""
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return
    rows, columns = np.mgrid[0 : bottom - top, 0 : right - left]
    lines = (rows + columns) % step == 0
    tile = np.where(lines[..., None], np.array(ink, np.uint8), np.array(paper, np.uint8))
    canvas.paste(Image.fromarray(tile), (left, top))


@lru_cache(maxsize=4096)
def _drawable(sign: str) -> str:
    if _has_glyph(sign):
        return sign
    plain = "".join(c for c in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(c))
    return plain if plain and all(_has_glyph(c) for c in plain) else "?"


@lru_cache(maxsize=4096)
def _has_glyph(sign: str) -> bool:
    if " " <= sign <= "~":
        return True
    if not sign.isprintable():
        return False
    face = font(16)
    missing = face.getmask("\uffff")
    glyph = face.getmask(sign)
    return glyph.size != missing.size or bytes(glyph) != bytes(missing)
