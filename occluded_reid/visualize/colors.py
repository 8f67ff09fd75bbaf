"""The colors of every picture: told apart by color-blind readers, and never the only carrier of a meaning."""

from __future__ import annotations

import numpy as np

__all__ = [
    "FAINT",
    "GREEN",
    "GREY",
    "INK",
    "MUTED",
    "PAPER",
    "PART_NAMES",
    "RED",
    "RGB",
    "SERIES",
    "VISIBLE",
    "heat",
    "part_palette",
]

RGB = tuple[int, int, int]

PAPER: RGB = (255, 255, 255)
INK: RGB = (31, 35, 40)
MUTED: RGB = (104, 112, 122)
FAINT: RGB = (226, 229, 233)

GREEN: RGB = (26, 152, 80)
RED: RGB = (208, 40, 40)
GREY: RGB = (150, 156, 164)
VISIBLE: RGB = (0, 122, 165)

SERIES: tuple[RGB, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (222, 150, 0),
    (86, 180, 233),
    (120, 120, 120),
)
"""Line colors: Okabe and Ito's, which readers with any of the three color deficiencies tell apart, in an order that
keeps the first of them farthest; the orange is a little darker, for it stands on white. A chart also changes marks or
dashes."""

PART_NAMES: dict[int, tuple[str, ...]] = {
    8: ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg", "foot"),
    5: ("background", "head", "torso", "arm", "leg"),
    2: ("background", "body"),
}
"""Names of the mask classes by how many there are (SORN §3.2)."""

# Okabe and Ito's palette, ordered so that limbs that touch differ in lightness too.
_PART_COLOURS: dict[str, RGB] = {
    "background": (0, 0, 0),
    "head": (240, 228, 66),
    "torso": (0, 114, 178),
    "upper arm": (230, 159, 0),
    "lower arm": (213, 94, 0),
    "upper leg": (86, 180, 233),
    "lower leg": (0, 158, 115),
    "foot": (204, 121, 167),
    "arm": (230, 159, 0),
    "leg": (86, 180, 233),
    "body": (230, 159, 0),
}

# A dark-to-light ramp: lightness rises evenly, so the map also reads in grey.
_HEAT_STOPS = np.array(
    [(10, 8, 40), (72, 18, 108), (140, 40, 112), (204, 72, 86), (245, 130, 52), (252, 196, 72), (252, 252, 190)],
    dtype=np.float64,
)


def part_palette(classes: int) -> np.ndarray:
    """Return the (classes, 3) uint8 colors of the mask classes 8, 5 or 2."""
    return np.array([_PART_COLOURS[name] for name in PART_NAMES[classes]], dtype=np.uint8)


def heat(values: np.ndarray) -> np.ndarray:
    """Color values in [0, 1] from dark violet to pale yellow.

    Args:
        values: any shape, clipped to [0, 1].

    Returns:
        The same shape with a last axis of 3, float64 in 0 … 255.
    """
    place = np.clip(values, 0.0, 1.0) * (len(_HEAT_STOPS) - 1)
    stops = np.arange(len(_HEAT_STOPS))
    return np.stack([np.interp(place, stops, _HEAT_STOPS[:, channel]) for channel in range(3)], axis=-1)
