"""Many small pictures on one page: images beside their part masks, with one legend for all."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from occluded_reid.data.images import open_mask
from occluded_reid.errors import ShapeError
from occluded_reid.visualize.canvas import Picture, as_rgb, fit_image, fit_text, font, text_width
from occluded_reid.visualize.colors import INK, MUTED, PAPER, PART_NAMES, part_palette

__all__ = ["class_palette", "contact_sheet"]

_PAD = 12
_CAPTION = 11
_LEGEND = 13

# The same part has the same color in every picture, whatever the label set calls it.
_KNOWN = {
    name: color
    for classes in PART_NAMES
    for name, color in zip(PART_NAMES[classes], part_palette(classes), strict=True)
}
_KNOWN |= {"upper_body": _KNOWN["torso"], "lower_body": _KNOWN["leg"], "shoes": _KNOWN["foot"]}


def class_palette(names: Sequence[str]) -> np.ndarray:
    """Return a color for each class: that of `part_palette` where the part is known, else one told apart by hue.

    Args:
        names: of the classes, background first.

    Returns:
        (classes, 3) uint8.

    Example:
        >>> class_palette(["background", "body"]).tolist()
        [[0, 0, 0], [230, 159, 0]]
    """
    if all(name in _KNOWN for name in names):
        return np.array([_KNOWN[name] for name in names], dtype=np.uint8)
    # Steps of the golden angle keep any number of hues apart; neighbours differ in lightness too.
    hues = [(0.11 + 0.618034 * k) % 1.0 for k in range(len(names) - 1)]
    colors = [colorsys.hls_to_rgb(hue, (0.45, 0.68, 0.3)[k % 3], 0.75) for k, hue in enumerate(hues)]
    return np.asarray(np.rint(255 * np.array([(0.0, 0.0, 0.0), *colors])), dtype=np.uint8)


def contact_sheet(
    images: Sequence[Picture],
    masks: Sequence[np.ndarray | str | Path],
    names: Sequence[str],
    *,
    captions: Sequence[str] = (),
    columns: int = 6,
    height: int = 192,
    alpha: float = 0.6,
) -> Image.Image:
    """Draw each image beside itself with its mask laid over it.

    Args:
        images: of any kind and size; files are opened one after another.
        masks: for each image (H, W) whole numbers, one for each pixel; or the file that holds them.
        names: of the classes, background first; it is not tinted.
        captions: a line under each image; none where empty.
        columns: images in a row.
        height: of an image in pixels; it is at most as wide.
        alpha: how much of the tint covers the image.

    Returns:
        RGB.

    Raises:
        ImageError: an image cannot be read.
        MaskError: the file of a mask cannot be read, or holds another class.
        ShapeError: there is nothing to draw, a mask does not fit its image, or it holds a class without a name.

    Example:
        >>> contact_sheet([np.zeros((8, 4, 3), np.uint8)], [np.ones((8, 4), np.uint8)], ["background", "body"]).mode
        'RGB'
    """
    if not images or len(images) != len(masks) or (captions and len(captions) != len(images)):
        raise ShapeError(
            f"a contact sheet of {len(images)} images, {len(masks)} masks and {len(captions)} captions cannot be "
            "drawn; give one mask for each image, at least one image, and a caption for each or none."
        )
    if columns < 1 or height < 16:
        raise ShapeError(f"columns is {columns} and height {height}; give at least 1 column and 16 pixels.")
    palette = class_palette(names)
    pairs = [_pair(as_rgb(image), mask, palette, height, alpha) for image, mask in zip(images, masks, strict=True)]
    cell = max(pair.width for pair in pairs)
    line = _CAPTION + 6 if captions else 0
    across = min(columns, len(pairs))
    width = max(_PAD + across * (cell + _PAD), 240)
    rows = -(-len(pairs) // across)
    top = _PAD + rows * (height + line + _PAD)
    legend = _legend(names, palette, width - 2 * _PAD)
    canvas = Image.new("RGB", (width, top + legend.height + _PAD), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, pair in enumerate(pairs):
        left, above = _PAD + (number % across) * (cell + _PAD), _PAD + (number // across) * (height + line + _PAD)
        canvas.paste(pair, (left + (cell - pair.width) // 2, above))
        if captions:
            shown = fit_text(captions[number], cell, _CAPTION)
            draw.text((left + cell // 2, above + height + 3), shown, font=font(_CAPTION), fill=MUTED, anchor="ma")
    canvas.paste(legend, (_PAD, top))
    return canvas


def _pair(
    image: Image.Image, given: np.ndarray | str | Path, palette: np.ndarray, height: int, alpha: float
) -> Image.Image:
    mask: np.ndarray = open_mask(given, classes=len(palette)) if isinstance(given, str | Path) else np.asarray(given)
    if mask.shape != (image.height, image.width) or mask.dtype.kind not in "iu":
        raise ShapeError(
            f"a mask is {mask.dtype} of shape {mask.shape}; its image needs whole numbers of shape "
            f"{(image.height, image.width)}."
        )
    if int(mask.min()) < 0 or int(mask.max()) >= len(palette):
        raise ShapeError(f"a mask holds classes {mask.min()} … {mask.max()}; only 0 … {len(palette) - 1} have a name.")
    photo = fit_image(image, height, height)
    labels = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(photo.size, Image.Resampling.NEAREST))
    share = np.where(labels > 0, alpha, 0.0)[..., None]
    mixed = np.asarray(photo, dtype=np.float64) * (1 - share) + palette[labels] * share
    pair = Image.new("RGB", (2 * photo.width + 2, height), PAPER)
    pair.paste(photo, (0, 0))
    pair.paste(Image.fromarray(np.rint(mixed).astype(np.uint8)), (photo.width + 2, 0))
    return pair


def _legend(names: Sequence[str], palette: np.ndarray, width: int) -> Image.Image:
    """Names and colors in as many rows as they need."""
    places: list[tuple[int, int]] = []
    x = y = 0
    for name in names[1:]:
        long = text_width(name, _LEGEND) + _LEGEND + 24
        if x and x + long > width:
            x, y = 0, y + _LEGEND + 8
        places.append((x, y))
        x += long
    canvas = Image.new("RGB", (width, y + _LEGEND + 8), PAPER)
    draw = ImageDraw.Draw(canvas)
    for (left, top), name, color in zip(places, names[1:], palette[1:], strict=True):
        box = (left, top + 2, left + _LEGEND - 1, top + _LEGEND + 1)
        draw.rectangle(box, fill=tuple(int(c) for c in color), outline=INK)
        draw.text((left + _LEGEND + 7, top + 1), fit_text(name, width, _LEGEND), font=font(_LEGEND), fill=INK)
    return canvas
