"""One person image with something shown on it: the parsed mask, the visible bands, the aggregation maps."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from occluded_reid.errors import ShapeError
from occluded_reid.functional.bands import bands
from occluded_reid.visualize.canvas import Picture, as_rgb, fit_image, fit_text, font, hatch, text_width
from occluded_reid.visualize.colors import FAINT, GREY, INK, MUTED, PAPER, PART_NAMES, VISIBLE, heat, part_palette

__all__ = ["aggregation_maps", "overlay_mask", "part_bands", "visibility_overlay"]

_PART = re.compile(r"part_(\d+)")
_BAR = 10
_GAP = 4


def overlay_mask(
    image: Picture,
    mask: np.ndarray,
    alpha: float = 0.55,
    *,
    classes: int = 8,
    height: int = 256,
    legend: bool = False,
) -> Image.Image:
    """Draw the parsed parts over an image: tinted, with a dark outline between parts; background stays as it is.

    Args:
        image: the person.
        mask: (h, w) integers 0 … classes - 1, 0 is background; stretched over the image by nearest neighbour.
        alpha: how much of the tint covers the image, in [0, 1].
        classes: 8, 5 or 2 (SORN §3.2); decides names and colors.
        height: of the picture in pixels.
        legend: add the names of the parts at the right.

    Returns:
        RGB, `height` pixels high; as wide as the image's proportions ask, plus the legend.

    Raises:
        ShapeError: the mask is not such a map, or `classes` is none of 8, 5, 2.
    """
    labels = _check_mask(mask, classes)
    if not 0.0 <= alpha <= 1.0:
        raise ShapeError(f"alpha is {alpha}; give a share between 0 and 1.")
    photo = _at_height(image, height)
    stretched = np.asarray(Image.fromarray(labels).resize(photo.size, Image.Resampling.NEAREST))
    pixels = np.asarray(photo, dtype=np.float64)
    tint = part_palette(classes)[stretched].astype(np.float64)
    share = np.where(stretched > 0, alpha, 0.0)[..., None]
    mixed = pixels * (1 - share) + tint * share
    # The outline keeps parts apart where their tints look alike on a colored coat.
    edge = np.zeros(stretched.shape, dtype=bool)
    edge[:, 1:] |= stretched[:, 1:] != stretched[:, :-1]
    edge[1:] |= stretched[1:] != stretched[:-1]
    mixed[edge] *= 1 - 0.6 * min(1.0, 2 * alpha)
    shown = Image.fromarray(np.rint(mixed).astype(np.uint8))
    return _with_legend(shown, classes) if legend else shown


def part_bands(visibility: Mapping[str, float]) -> list[float]:
    """Return the visibility of part_1 … part_P from top to bottom; a part that is not named counts as hidden.

    Example:
        >>> part_bands({"global": 1.0, "part_2": 0.0, "part_1": 1.0})
        [1.0, 0.0]
    """
    parts = {int(m[1]): float(v) for name, v in visibility.items() if (m := _PART.fullmatch(name))}
    return [parts.get(number, 0.0) for number in range(1, max(parts, default=0) + 1)]


def visibility_overlay(
    image: Picture, visibility: Mapping[str, float], *, width: int = 128, height: int = 256
) -> Image.Image:
    """Draw which horizontal bands of a person count as visible: a bar at the left, and hidden bands washed out.

    The bar is solid where a part is visible and hatched where it is hidden; a soft visibility fills its share of the
    bar from below and washes the band out by the rest.

    Args:
        image: the person.
        visibility: slot -> [0, 1]; only the slots ``part_1`` … ``part_P`` have a place in the image.
        width: the largest width of the person in pixels.
        height: the largest height of the person in pixels.

    Returns:
        RGB, as large as the fitted image and the bar.

    Raises:
        ShapeError: a visibility lies outside [0, 1].
    """
    for name, value in visibility.items():
        if not 0.0 <= value <= 1.0:
            raise ShapeError(f"visibility of slot '{name}' is {value}; it must lie in [0, 1].")
    photo = fit_image(as_rgb(image), width, height)
    shares = part_bands(visibility)
    canvas = Image.new("RGB", (photo.width + _BAR + _GAP, photo.height), PAPER)
    if not shares or len(shares) > photo.height:
        canvas.paste(photo, (_BAR + _GAP, 0))
        return canvas
    pixels = np.asarray(photo, dtype=np.float64)
    grey = np.asarray(photo.convert("L"), dtype=np.float64)[..., None]
    washed = 0.30 * grey + 0.70 * np.array(FAINT, dtype=np.float64)
    shown = pixels.copy()
    rows_of = bands(photo.height, len(shares))
    for (start, stop), share in zip(rows_of, shares, strict=True):
        shown[start:stop] = share * pixels[start:stop] + (1 - share) * washed[start:stop]
    canvas.paste(Image.fromarray(np.rint(shown).astype(np.uint8)), (_BAR + _GAP, 0))
    draw = ImageDraw.Draw(canvas)
    for number, ((start, stop), share) in enumerate(zip(rows_of, shares, strict=True)):
        top = start + (1 if number else 0)
        hatch(canvas, (0, top, _BAR, stop), PAPER, GREY)
        filled = round((stop - top) * share)
        if filled:
            draw.rectangle((0, stop - filled, _BAR - 1, stop - 1), fill=VISIBLE)
        draw.rectangle((0, top, _BAR - 1, stop - 1), outline=VISIBLE if share > 0 else GREY)
        if number:
            for left in range(_BAR + _GAP, canvas.width, 6):
                draw.line((left, start, min(left + 2, canvas.width - 1), start), fill=PAPER)
    return canvas


def aggregation_maps(image: Picture, maps: np.ndarray, *, height: int = 256) -> Image.Image:
    """Draw the aggregation maps M_n (SORN Eq. 2-4) side by side over the image, each with its own band outlined.

    Under each map stands the share of ΣM_n inside its own band, which the spatial-position constraint is to raise; an
    even map has 1/N there.

    Args:
        image: the person.
        maps: (N, h, w) in [0, 1], set n beside band n.
        height: of each map in pixels.

    Returns:
        RGB: the image, then N maps.

    Raises:
        ShapeError: the maps are not (N, h, w) in [0, 1] with h >= N >= 1.

    Example:
        >>> aggregation_maps(np.zeros((8, 4, 3), np.uint8), np.full((2, 4, 2), 0.5), height=80).mode
        'RGB'
    """
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim != 3 or 0 in values.shape or not (values.min() >= 0.0 and values.max() <= 1.0):
        raise ShapeError(f"maps must be (N, h, w) in [0, 1]; got {values.shape}. Pass the maps after the sigmoid.")
    own = bands(values.shape[1], values.shape[0])
    photo = _at_height(image, height)
    size, pad = 12, 12
    cell = max(photo.width, 76)
    canvas = Image.new("RGB", (pad + (cell + pad) * (len(values) + 1), 2 * pad + photo.height + 2 * (size + 5)), PAPER)
    draw = ImageDraw.Draw(canvas)
    grey = np.asarray(photo.convert("L").convert("RGB"), dtype=np.float64)
    for column in range(len(values) + 1):
        left = pad + column * (cell + pad)
        inset = left + (cell - photo.width) // 2
        top = pad
        if column == 0:
            canvas.paste(photo, (inset, top))
            _caption(draw, left, top + photo.height + 6, cell, "image", "")
            continue
        start, stop = own[column - 1]
        single = values[column - 1]
        smooth = Image.fromarray(single.astype(np.float32)).resize(photo.size, Image.Resampling.BILINEAR)
        mixed = 0.35 * grey + 0.65 * heat(np.asarray(smooth, dtype=np.float64))
        canvas.paste(Image.fromarray(np.rint(mixed).astype(np.uint8)), (inset, top))
        first = top + round(start * photo.height / values.shape[1])
        last = top + round(stop * photo.height / values.shape[1]) - 1
        box = (inset, first, inset + photo.width - 1, max(first, last))
        draw.rectangle(box, outline=INK, width=4)
        draw.rectangle(tuple(v + s for v, s in zip(box, (1, 1, -1, -1), strict=True)), outline=PAPER, width=2)
        total = float(single.sum())
        share = f"{float(single[start:stop].sum()) / total:.0%} in own band" if total > 0 else "empty"
        _caption(draw, left, top + photo.height + 6, cell, f"M{column}", share)
    return canvas


def _caption(draw: ImageDraw.ImageDraw, left: int, top: int, width: int, first: str, second: str) -> None:
    draw.text((left + width // 2, top), fit_text(first, width, 13), font=font(13), fill=INK, anchor="ma")
    draw.text((left + width // 2, top + 16), fit_text(second, width + 10, 11), font=font(11), fill=MUTED, anchor="ma")


def _at_height(image: Picture, height: int) -> Image.Image:
    if height < 8:
        raise ShapeError(f"height is {height}; give at least 8 pixels.")
    return fit_image(as_rgb(image), 2 * height, height)


def _check_mask(mask: np.ndarray, classes: int) -> np.ndarray:
    if classes not in PART_NAMES:
        raise ShapeError(f"classes is {classes}; give 8, 5 or 2.")
    labels = np.asarray(mask)
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "iub":
        raise ShapeError(f"mask must be (h, w) integers; got {labels.dtype} {labels.shape}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ShapeError(f"mask holds classes {low} … {high}; with {classes} classes they must be 0 … {classes - 1}.")
    return labels.astype(np.uint8)


def _with_legend(shown: Image.Image, classes: int) -> Image.Image:
    names, palette, size = PART_NAMES[classes][1:], part_palette(classes)[1:], 13
    line = size + 8
    width = max(text_width(name, size) for name in names) + size + 24
    canvas = Image.new("RGB", (shown.width + width, max(shown.height, line * len(names) + 8)), PAPER)
    canvas.paste(shown, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (name, color) in enumerate(zip(names, palette, strict=True)):
        top, left = 4 + row * line, shown.width + 12
        draw.rectangle((left, top + 2, left + size - 1, top + size + 1), fill=tuple(int(c) for c in color), outline=INK)
        draw.text((left + size + 7, top + 1), name, font=font(size), fill=INK)
    return canvas
