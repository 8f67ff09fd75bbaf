"""The ranked list: a query, what of it is visible, and the gallery images found for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from occluded_reid.errors import ShapeError
from occluded_reid.visualize.canvas import Picture, as_rgb, fit_image, fit_text, font, hatch, printable, text_width
from occluded_reid.visualize.colors import FAINT, GREEN, GREY, INK, MUTED, PAPER, RED, VISIBLE
from occluded_reid.visualize.marks import draw_bars, draw_labels, draw_sign, short_names
from occluded_reid.visualize.overlays import overlay_mask, visibility_overlay

__all__ = ["RankedItem", "RankedQuery", "ranked_list", "ranked_lists"]

_MARGIN = 16
_FRAME = 4
_GAP = 8
_TEXT = 13
_SMALL = 10
_BAR_SIDE = 14  # the visibility bar beside the query and its gap
_SKIP = 18  # the dots before a hit that does not follow the one beside it


@dataclass(frozen=True)
class RankedItem:
    """One gallery image of a ranked list.

    Attributes:
        image: the gallery image; None where there is none to show.
        distance: to the query.
        correct: whether it is the query's person; None where it is unknown.
        identity: what to call the person, or None.
        camera: number or name of the camera, or None.
        shared: slot -> v(query) · v(gallery) in [0, 1].
        slot_distances: slot -> distance of that slot alone.
        rank: its place among all answers where that is not its place in the list; dots before it say so.
        missing: what stands in the place of an image that is None: which file, and why.
    """

    image: Picture | None
    distance: float
    correct: bool | None = None
    identity: str | None = None
    camera: int | str | None = None
    shared: Mapping[str, float] = field(default_factory=dict)
    slot_distances: Mapping[str, float] = field(default_factory=dict)
    rank: int | None = None
    missing: str = ""


@dataclass(frozen=True)
class RankedQuery:
    """One query and its hits, nearest first.

    Attributes:
        image: the query image.
        hits: what was found, in order; may be empty.
        visibility: slot -> visibility of the query in [0, 1]; ``part_p`` are marked on the image.
        mask: (h, w) integer part classes, drawn over a second copy of the query, or None.
        classes: how many classes the mask has: 8, 5 or 2.
        identity: who it is, or None.
        camera: number or name of the camera, or None.
        note: a line above the row, or empty.
    """

    image: Picture
    hits: Sequence[RankedItem]
    visibility: Mapping[str, float] = field(default_factory=dict)
    mask: np.ndarray | None = None
    classes: int = 8
    identity: str | None = None
    camera: int | str | None = None
    note: str = ""


def ranked_list(
    query_image: Picture,
    hits: Sequence[RankedItem],
    *,
    query_visibility: Mapping[str, float] | None = None,
    query_mask: np.ndarray | None = None,
    classes: int = 8,
    identity: str | None = None,
    camera: int | str | None = None,
    title: str | None = None,
    width: int = 1500,
    image_height: int = 208,
) -> Image.Image:
    """Draw one query and its hits; `ranked_lists` says how.

    Example:
        >>> grey = np.full((8, 4, 3), 128, np.uint8)
        >>> ranked_list(grey, [RankedItem(grey, 0.1, correct=True)], query_visibility={"part_1": 1.0}).mode
        'RGB'
    """
    row = RankedQuery(query_image, hits, query_visibility or {}, query_mask, classes, identity, camera)
    return ranked_lists([row], title=title, width=width, image_height=image_height)


def ranked_lists(
    rows: Sequence[RankedQuery], *, title: str | None = None, width: int = 1500, image_height: int = 208
) -> Image.Image:
    """Draw queries below each other, each with its ranked gallery images.

    The query stands at the left, hidden parts washed out and hatched at its side. A hit has a green frame where it is
    the query's person, a red one where it is not, a grey one where nobody knows, and the same as a sign in its corner;
    below stand rank, distance, identity, camera, and for each slot a bar of how much of it both images show, with the
    distance of that slot alone. Hits that do not fit beside each other go on in the next line.

    Args:
        rows: the queries; none gives a picture that says so.
        title: a line above all.
        width: the picture is at most this wide, in pixels; at least 480.
        image_height: of every person in pixels; images are fitted into half as much width.

    Returns:
        RGB, the same bytes for the same input.

    Raises:
        ShapeError: the picture would be too narrow, an image or a mask is not one, or a visibility lies outside [0, 1].
    """
    if width < 480 or not 48 <= image_height <= 640:
        raise ShapeError(
            f"width is {width} and image_height {image_height}; give at least 480 and between 48 and 640 pixels."
        )
    layout = _Layout(
        width,
        image_height,
        masks=any(row.mask is not None for row in rows),
        skips=any(hit.rank is not None for row in rows for hit in row.hits),
    )
    strips = [layout.strip(row) for row in rows] or [layout.note("no queries")]
    head = [layout.title(title)] if title else []
    foot = [layout.legend(rows)] if any(row.hits or row.visibility for row in rows) else []
    blocks = [*head, *strips, *foot]
    across = max(block.width for block in blocks) + 2 * _MARGIN
    canvas = Image.new("RGB", (across, _MARGIN + sum(block.height + _MARGIN for block in blocks)), PAPER)
    draw = ImageDraw.Draw(canvas)
    top = _MARGIN
    for number, block in enumerate(blocks):
        if number > len(head):
            draw.line((_MARGIN, top - _MARGIN // 2, across - _MARGIN, top - _MARGIN // 2), fill=FAINT)
        canvas.paste(block, (_MARGIN, top))
        top += block.height + _MARGIN
    return canvas


class _Layout:
    """Sizes that all rows of one picture share, and what is drawn with them."""

    def __init__(self, width: int, image_height: int, *, masks: bool, skips: bool) -> None:
        self.inner = width - 2 * _MARGIN
        self.high = image_height
        self.wide = image_height // 2
        self.across = self.wide + 2 * _FRAME
        self.panel = _BAR_SIDE + self.wide + 2 * _FRAME + (self.wide + _GAP if masks else 0)
        self.masks = masks
        self.skip = _SKIP if skips else 0
        self.columns = max(1, (self.inner - self.panel - 2 * _GAP - self.skip) // (self.across + _GAP))

    def title(self, text: str) -> Image.Image:
        shown = fit_text(text, self.inner, 20)
        block = Image.new("RGB", (text_width(shown, 20) + 2, 26), PAPER)
        ImageDraw.Draw(block).text((0, 0), shown, font=font(20), fill=INK)
        return block

    def note(self, text: str) -> Image.Image:
        block = Image.new("RGB", (max(160, text_width(text, _TEXT) + 4), 40), PAPER)
        ImageDraw.Draw(block).text((0, 12), text, font=font(_TEXT), fill=MUTED)
        return block

    def tall(self, labels: bool, bars: bool) -> int:
        """Height of an image with its frame and the lines below it."""
        line = _TEXT + 5
        return self.high + 2 * _FRAME + 4 + line + (line if labels else 0) + (_SMALL + 17 if bars else 0)

    def strip(self, row: RankedQuery) -> Image.Image:
        labels = any(hit.identity is not None or hit.camera is not None for hit in row.hits)
        cell = self.tall(labels, any(hit.shared for hit in row.hits)) + _GAP
        panel = self.tall(row.identity is not None or row.camera is not None, bool(row.visibility))
        lines = -(-len(row.hits) // self.columns)
        shown = min(len(row.hits), self.columns)
        left = self.panel + 2 * _GAP
        across = left + (shown * (self.across + _GAP) - _GAP + self.skip if shown else 120)
        head = _TEXT + 9 if row.note else 0
        block = Image.new("RGB", (across, head + max(panel, lines * cell - _GAP)), PAPER)
        draw = ImageDraw.Draw(block)
        if row.note:
            draw.text((_BAR_SIDE + _FRAME, 0), fit_text(row.note, across, _TEXT), font=font(_TEXT), fill=INK)
        self._query(block, row, head)
        if not row.hits:
            draw.text((left, head + _FRAME + self.high // 2), "no hits", font=font(_TEXT + 2), fill=MUTED, anchor="lm")
        for number, hit in enumerate(row.hits):
            line, column = divmod(number, self.columns)
            at, top = left + column * (self.across + _GAP), head + line * cell
            if hit.rank is not None:
                draw.text(
                    (at + self.skip // 2 - 4, top + _FRAME + self.high // 2),
                    "…",
                    font=font(20),
                    fill=MUTED,
                    anchor="mm",
                )
                at += self.skip
            self._hit(block, at, top, hit, hit.rank or number + 1, labels)
        return block

    def _query(self, block: Image.Image, row: RankedQuery, above: int) -> None:
        draw = ImageDraw.Draw(block)
        marked = visibility_overlay(row.image, row.visibility, width=self.wide, height=self.high)
        box_left, top = _BAR_SIDE + _FRAME, above + _FRAME
        offset = (self.wide - (marked.width - _BAR_SIDE)) // 2
        draw.rectangle((box_left, top, box_left + self.wide - 1, top + self.high - 1), fill=FAINT)
        down = top + (self.high - marked.height) // 2
        block.paste(marked.crop((_BAR_SIDE, 0, marked.width, marked.height)), (box_left + offset, down))
        if any(name.startswith("part_") for name in row.visibility):
            block.paste(marked.crop((0, 0, _BAR_SIDE, marked.height)), (_FRAME - 2, down))
        if row.mask is not None:
            second = fit_image(overlay_mask(row.image, row.mask, classes=row.classes, height=256), self.wide, self.high)
            at = box_left + self.wide + _GAP
            draw.rectangle((at, top, at + self.wide - 1, top + self.high - 1), fill=FAINT)
            block.paste(second, (at + (self.wide - second.width) // 2, top + (self.high - second.height) // 2))
        line = top + self.high + _FRAME + 4
        draw.text((box_left, line), "query", font=font(_TEXT), fill=INK)
        line += _TEXT + 5
        if row.identity is not None or row.camera is not None:
            draw_labels(draw, box_left, line, self.wide, row.identity, row.camera)
            line += _TEXT + 5
        draw_bars(block, box_left, line + 2, self.wide, row.visibility, short_names(row.visibility))

    def _hit(self, block: Image.Image, left: int, top: int, hit: RankedItem, rank: int, labels: bool) -> None:
        draw = ImageDraw.Draw(block)
        color = GREY if hit.correct is None else GREEN if hit.correct else RED
        right, bottom = left + self.across, top + self.high + 2 * _FRAME
        draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
        inner = (left + _FRAME, top + _FRAME, right - _FRAME - 1, bottom - _FRAME - 1)
        draw.rectangle(inner, fill=FAINT)
        if hit.image is None:
            self._missing(block, (inner[0], inner[1]), hit.missing or "no picture")
        else:
            photo = fit_image(as_rgb(hit.image, f"image of hit {rank}"), self.wide, self.high)
            block.paste(photo, (inner[0] + (self.wide - photo.width) // 2, inner[1] + (self.high - photo.height) // 2))
        draw_sign(block, left, top, hit.correct, color)
        line, at = bottom + 4, left + _FRAME
        draw.text((at, line), f"#{rank}", font=font(_TEXT), fill=MUTED)
        room = self.wide - text_width(f"#{rank}", _TEXT) - 4
        number = fit_text(f"{hit.distance:.4f}", room, _TEXT)
        draw.text((at + self.wide, line), number, font=font(_TEXT), fill=INK, anchor="ra")
        line += _TEXT + 5
        if labels:
            draw_labels(draw, at, line, self.wide, hit.identity, hit.camera)
            line += _TEXT + 5
        below = {name: f"{value:.2f}".removeprefix("0") for name, value in hit.slot_distances.items()}
        draw_bars(block, at, line + 2, self.wide, hit.shared, below or short_names(hit.shared))

    def _missing(self, block: Image.Image, corner: tuple[int, int], text: str) -> None:
        """Say in the place of an image what is missing, in lines of as many signs as fit; the end of a path matters."""
        left, top = corner[0] + 4, corner[1] + 18  # below the sign
        lines, rest = [], printable(text[-400:] if len(text) > 400 else text)
        while rest:
            count = len(rest)
            while count > 1 and text_width(rest[:count], _SMALL) > self.wide - 8:
                count -= 1
            lines.append(rest[:count].strip())
            rest = rest[count:]
        fitting = max(1, (self.high - 20) // (_SMALL + 3))
        if len(lines) > fitting:
            lines = [lines[0], "…", *lines[len(lines) - fitting + 2 :]] if fitting > 2 else lines[:fitting]
        draw = ImageDraw.Draw(block)
        for number, line in enumerate(lines):
            draw.text((left, top + number * (_SMALL + 3)), line, font=font(_SMALL), fill=INK)

    def legend(self, rows: Sequence[RankedQuery]) -> Image.Image:
        hits = [hit for row in rows for hit in row.hits]
        entries: list[tuple[str, str]] = [
            (kind, text)
            for kind, text, wanted in (
                ("right", "same person", True),
                ("wrong", "another person", False),
                ("unknown", "not known", None),
            )
            if any(hit.correct is wanted for hit in hits)
        ]
        slots = list(dict.fromkeys(name for row in rows for name in row.visibility))
        slots = slots or list(dict.fromkeys(name for hit in hits for name in hit.shared))
        if slots:
            entries += [("solid", "visible (hits: in both images)"), ("hatched", "hidden")]
            named = [(short, name) for name, short in short_names(dict.fromkeys(slots, 0.0)).items()]
            entries.append(("", "slots: " + ", ".join(f"{short} = {name}" for short, name in named)))
        if any(hit.slot_distances for hit in hits):
            entries.append(("", "under a bar: distance of that slot"))
        places: list[tuple[int, int, str, str]] = []
        x = y = right = 0
        for kind, text in entries:
            shown = fit_text(text, self.inner - 40, 12)
            wide = (22 if kind else 0) + text_width(shown, 12)
            if x and x + wide > self.inner:
                x, y = 0, y + 20
            places.append((x, y, kind, shown))
            x += wide + 20
            right = max(right, x - 20)
        block = Image.new("RGB", (right + 2, y + 18), PAPER)
        draw = ImageDraw.Draw(block)
        for x, y, kind, shown in places:
            if kind in ("right", "wrong", "unknown"):
                correct = {"right": True, "wrong": False, "unknown": None}[kind]
                draw_sign(block, x, y, correct, GREEN if correct else GREY if correct is None else RED)
            elif kind == "solid":
                draw.rectangle((x, y + 3, x + 15, y + 11), fill=VISIBLE)
            elif kind == "hatched":
                hatch(block, (x, y + 3, x + 16, y + 12), PAPER, GREY)
                draw.rectangle((x, y + 3, x + 15, y + 11), outline=GREY)
            draw.text((x + (22 if kind else 0), y + 1), shown, font=font(12), fill=MUTED)
        return block
