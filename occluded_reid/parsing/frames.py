"""How an image is laid on the canvas that a network sees, and how its maps come back to the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from occluded_reid.errors import BuildError, ImageError
from occluded_reid.pixels import to_rgb

__all__ = ["Decide", "Frame", "Placement", "Resample", "labels_on_image"]

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Decide = Literal["image", "canvas"]

_FILTERS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MAX_CANVAS = 16_000_000
_WIDEST = 4  # times the height: nobody stands so, and memory grows with the canvas


@dataclass(frozen=True)
class Placement:
    """Where an image lies; every pair is (width, height) in pixels.

    Attributes:
        image: as it is in its file.
        content: as it is scaled to.
        pad: what is added on each side of the content.
        network: what the padded canvas is stretched to at last.
    """

    image: tuple[int, int]
    content: tuple[int, int]
    pad: tuple[int, int]
    network: tuple[int, int]

    @property
    def canvas(self) -> tuple[int, int]:
        """The content and its padding."""
        return self.content[0] + 2 * self.pad[0], self.content[1] + 2 * self.pad[1]


@dataclass(frozen=True)
class Frame:
    """The rule by which images are scaled, padded, and stretched to what a network takes.

    Attributes:
        height: of the scaled image; None takes that of the network, which must then be fixed.
        width: of the scaled image; None keeps the proportions, unless the network's width is fixed. An image more than
            four times as wide as high is squeezed to four times the height: no person fills it, and what a network
            needs grows with its canvas.
        multiple: a width in proportion is rounded to this, and padding up to this.
        pad: share of the width that is added left and right, and share of the height at the top and at the bottom, by
            repeating the outermost pixels.
        stride: the canvas is stretched to the next k · stride + 1, which networks of a "same" padding want.
        resample: filter of both scalings.
        fixed: (height, width) of the network's input, each None where it takes any.
    """

    height: int | None = None
    width: int | None = None
    multiple: int = 1
    pad: tuple[float, float] = (0.0, 0.0)
    stride: int | None = None
    resample: Resample = "bilinear"
    fixed: tuple[int | None, int | None] = (None, None)

    def __post_init__(self) -> None:
        if self.height is None and self.fixed[0] is None:
            raise BuildError(
                "the network takes images of any height, so nothing says how large they should be. Give height=512 or "
                "whatever it was trained with (and width, unless proportions are to be kept)."
            )
        for name in ("height", "width", "multiple", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BuildError(f"{name} is {value}; give a whole number of pixels from 1.")
        if not all(0.0 <= share <= 1.0 for share in self.pad):
            raise BuildError(f"pad is {self.pad}; give two shares between 0 and 1: of the width, and of the height.")

    def layout(self, image: tuple[int, int]) -> Placement:
        """Plan for an image of (width, height).

        Raises:
            ImageError: the canvas would have more than 16 million pixels.
        """
        # __post_init__ has seen to it that one of the two is there.
        height = self.height or self.fixed[0] or self.multiple
        width = self.width or (self.fixed[1] if self.height is None else None)
        if width is None:
            wanted = min(image[0] * height / image[1], _WIDEST * height)
            width = max(1, round(wanted / self.multiple)) * self.multiple
        content = (width, height)
        across, down = (
            math.ceil(share * side / self.multiple) * self.multiple
            for share, side in zip(self.pad, content, strict=True)
        )
        canvas = (width + 2 * across, height + 2 * down)
        if canvas[0] * canvas[1] > _MAX_CANVAS:
            raise ImageError(
                f"an image of {image[0]}×{image[1]} would become a canvas of {canvas[0]}×{canvas[1]}, more than "
                f"{_MAX_CANVAS:,} pixels. Cut the person out of it, or give a smaller height."
            )
        network = (self.fixed[1] or self._stretched(canvas[0]), self.fixed[0] or self._stretched(canvas[1]))
        return Placement(image, content, (across, down), network)

    def _stretched(self, side: int) -> int:
        return side if self.stride is None else math.ceil(side / self.stride) * self.stride + 1

    def draw(self, image: Image.Image, layout: Placement) -> np.ndarray:
        """Return the pixels that the network sees, (H, W, 3) uint8."""
        filter_ = _FILTERS[self.resample]
        content = np.asarray(to_rgb(image).resize(layout.content, filter_))
        across, down = layout.pad
        padded = np.pad(content, ((down, down), (across, across), (0, 0)), mode="edge")
        if layout.canvas == layout.network:
            return padded
        return np.asarray(Image.fromarray(padded).resize(layout.network, filter_))


def labels_on_image(
    scores: np.ndarray,
    layout: Placement,
    *,
    person: np.ndarray | None = None,
    threshold: float = 0.5,
    decide: Decide = "image",
) -> np.ndarray:
    """Return which channel has the highest score at each pixel of an image.

    Args:
        scores: (K, h, w) over the network's whole canvas.
        layout: where the image lies on it.
        person: (h, w) score of there being a person; None takes every pixel.
        threshold: pixels with a `person` of no more than this are no person.
        decide: "image" brings the scores to the size of the image and compares them there; "canvas" compares them at
            the size of the canvas and brings the decisions to the image, by nearest neighbour.

    Returns:
        (H, W) int16 at the image's size: position of the channel, the first of equals; -1 where no person is.

    Example:
        >>> layout = Placement(image=(2, 1), content=(2, 1), pad=(0, 0), network=(2, 1))
        >>> labels_on_image(np.array([[[0.9, 0.2]], [[0.1, 0.8]]]), layout)
        array([[0, 1]], dtype=int16)
    """
    highest = _bring(scores[0], layout, decide)
    label = np.zeros(highest.shape, dtype=np.int16)
    # Channel by channel: all of them at the size of a photograph would not fit into memory.
    for channel in range(1, len(scores)):
        score = _bring(scores[channel], layout, decide)
        higher = score > highest
        label[higher] = channel
        np.copyto(highest, score, where=higher)
    if person is not None:
        label[_bring(person, layout, decide) <= threshold] = -1
    if decide == "image" or layout.content == layout.image:
        return label
    # Pillow has no signed mode for nearest neighbour below 32 bits.
    return np.asarray(
        Image.fromarray(label.astype(np.int32)).resize(layout.image, Image.Resampling.NEAREST), dtype=np.int16
    )


def _bring(score: np.ndarray, layout: Placement, decide: Decide) -> np.ndarray:
    """One map of the network, (h, w), where the image lies."""
    plane = Image.fromarray(np.ascontiguousarray(score, dtype=np.float32))
    across, down = layout.pad
    width, height = layout.content
    if decide == "canvas":
        grown = np.array(plane.resize(layout.canvas, Image.Resampling.BILINEAR))
        return grown[down : down + height, across : across + width]
    x, y = plane.width / layout.canvas[0], plane.height / layout.canvas[1]
    box = (across * x, down * y, (across + width) * x, (down + height) * y)
    return np.array(plane.resize(layout.image, Image.Resampling.BILINEAR, box=box))
