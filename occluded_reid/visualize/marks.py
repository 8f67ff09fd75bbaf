"""The small marks around the images of a ranked list: labels, visibility bars, the sign of right and wrong."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw

from occluded_reid.errors import ShapeError
from occluded_reid.visualize.canvas import fit_text, font, hatch, printable, text_width
from occluded_reid.visualize.colors import GREY, INK, MUTED, PAPER, RGB, VISIBLE

__all__ = ["draw_bars", "draw_labels", "draw_sign", "short_names"]

_SMALL = 10
_MOST_BARS = 12

_Point = tuple[float, float]
_STROKES: dict[bool | None, tuple[tuple[_Point, _Point], ...]] = {
    True: (((3.5, 8.5), (6.5, 11.5)), ((6.5, 11.5), (12.5, 4.5))),
    False: (((4.5, 4.5), (11.5, 11.5)), ((11.5, 4.5), (4.5, 11.5))),
    None: (((4.0, 8.0), (12.0, 8.0)),),
}


def draw_labels(
    draw: ImageDraw.ImageDraw, left: int, top: int, width: int, identity: str | None, camera: int | str | None
) -> None:
    """Write the identity at the left and the camera at the right; a long identity gives way to the camera."""
    room = width
    if camera is not None:
        shown = fit_text(camera if isinstance(camera, str) else f"cam {camera}", width // 2, 12)
        draw.text((left + width, top), shown, font=font(12), fill=MUTED, anchor="ra")
        room -= text_width(shown, 12) + 5
    if identity is not None:
        draw.text((left, top), fit_text(identity, room, 12), font=font(12), fill=INK)


def draw_bars(
    block: Image.Image, left: int, top: int, width: int, shares: Mapping[str, float], below: Mapping[str, str]
) -> None:
    """Draw one bar a slot, filled from the left by its share, with a few signs below where they fit."""
    slots = list(shares)[:_MOST_BARS]
    draw = ImageDraw.Draw(block)
    for number, name in enumerate(slots):
        share = shares[name]
        if not 0.0 <= share <= 1.0:
            raise ShapeError(f"shared visibility of slot '{name}' is {share}; it must lie in [0, 1].")
        start = left + number * width // len(slots)
        stop = left + (number + 1) * width // len(slots) - 2
        hatch(block, (start, top, stop, top + 8), PAPER, GREY)
        filled = round((stop - start) * share)
        if filled:
            draw.rectangle((start, top, start + filled - 1, top + 7), fill=VISIBLE)
        draw.rectangle((start, top, stop - 1, top + 7), outline=VISIBLE if share > 0 else GREY)
        text = printable(below.get(name, ""))
        if text and text_width(text, _SMALL) <= stop - start + 1:
            color = MUTED if share > 0 else GREY
            draw.text(((start + stop) // 2, top + 11), text, font=font(_SMALL), fill=color, anchor="ma")


def short_names(slots: Mapping[str, float]) -> dict[str, str]:
    """Return slot -> a short name of its own: the number of a part, else the first letter or as many as it takes.

    Example:
        >>> short_names({"global": 1.0, "part_1": 1.0, "gait": 1.0})
        {'global': 'g', 'part_1': '1', 'gait': 'ga'}
    """
    short: dict[str, str] = {}
    for name in slots:
        if name.startswith("part_") and name[5:].isdigit():
            candidate = str(int(name[5:]))
        else:
            lengths = (name[:end] for end in range(1, len(name) + 1))
            candidate = next((c for c in lengths if c not in short.values()), name)
        short[name] = candidate
    return short


def draw_sign(block: Image.Image, left: int, top: int, correct: bool | None, color: RGB) -> None:
    """Draw a tick, a cross or a bar on a badge of 16 × 16: the frame's meaning for whoever sees no color."""
    size, fine = 16, 4
    badge = Image.new("RGB", (size * fine, size * fine), color)
    draw = ImageDraw.Draw(badge)
    for start, stop in _STROKES[correct]:
        points = [(x * fine, y * fine) for x, y in (start, stop)]
        draw.line(points, fill=PAPER, width=2 * fine)
    block.paste(badge.resize((size, size), Image.Resampling.BOX), (left, top))
