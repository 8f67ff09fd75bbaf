"""Cloth, skin and hair: colours as functions of a place on the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

PATTERNS = ("plain", "stripes", "pinstripes", "checks", "plaid", "dots", "diagonal", "two_tone", "band", "camouflage")
"""Kinds of cloth that `paint` knows."""


@dataclass(frozen=True)
class Material:
    """A surface: two colours and how they alternate.

    Args:
        base: ground colour, 0 to 255.
        accent: colour of the pattern.
        pattern: one of `PATTERNS`.
        period: length of one repeat, in body heights.
        duty: share of a repeat that shows the accent.
        phase: shift of the pattern in repeats; for `two_tone` and `band` the place along the garment.
    """

    base: Colour
    accent: Colour = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    period: float = 0.06
    duty: float = 0.5
    phase: float = 0.0


def paint(material: Material, across: Floats, along: Floats) -> Floats:
    """Colours of a material at places given in the garment's own frame.

    Args:
        material: what to paint.
        across: (N,) distance from the garment's axis, in body heights.
        along: (N,) distance from the garment's upper end, in body heights.

    Returns:
        (N, 3) float32 colours, 0 to 255, before shading.

    Example:
        >>> cloth = Material((0, 0, 0), (255, 255, 255), "stripes", period=0.1)
        >>> paint(cloth, np.zeros(2, np.float32), np.array([0.01, 0.06], np.float32))[:, 0].tolist()
        [255.0, 0.0]
    """
    mix = _coverage(material, across, along)
    base = np.asarray(material.base, np.float32)
    accent = np.asarray(material.accent, np.float32)
    return (base + mix[:, None] * (accent - base)).astype(np.float32)


def _coverage(material: Material, across: Floats, along: Floats) -> Floats:
    """How much of the accent shows at each place, 0 to 1."""
    kind, period, duty, phase = material.pattern, material.period, material.duty, material.phase
    if kind == "stripes":
        return _repeat(along, period, duty, phase)
    if kind == "pinstripes":
        return _repeat(across, period * 0.6, duty, phase)
    if kind == "diagonal":
        return _repeat(along + across, period * 1.4, duty, phase)
    if kind == "checks":
        return _shown(_repeat(along, period * 1.3, 0.5, phase) != _repeat(across, period * 1.3, 0.5, 0.25))
    if kind == "plaid":
        return 0.5 * (_repeat(along, period * 1.2, duty, phase) + _repeat(across, period * 1.2, duty, 0.1))
    if kind == "dots":
        pitch = period * 1.1
        row = np.floor(along / pitch)
        x = (across / pitch + 0.5 * (row % 2)) % 1.0 - 0.5
        y = (along / pitch) % 1.0 - 0.5
        return _shown(x * x + y * y < 0.04 + 0.16 * duty)
    if kind == "two_tone":
        return _shown(along > 0.06 + 0.2 * phase)
    if kind == "band":
        return _shown(np.abs(along - (0.05 + 0.22 * phase)) < 0.012 + 0.04 * duty)
    if kind == "camouflage":
        pitch = 2 * np.pi / (period * 2.2)
        wave = np.sin(along * pitch + 7 * phase) + np.sin(across * pitch * 1.1 + 2.0 * np.sin(along * pitch * 0.7))
        return _shown(wave > 1.2 - 2.0 * duty)
    return np.zeros_like(along)


def _repeat(place: Floats, period: float, duty: float, phase: float) -> Floats:
    return _shown((place / period + phase) % 1.0 < duty)


def _shown(where: NDArray[np.bool_]) -> Floats:
    return where.astype(np.float32)
