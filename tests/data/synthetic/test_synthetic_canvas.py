"""Shapes on a canvas: order, classes, sub-pixel edges, shifts; and cloth patterns."""

from __future__ import annotations

import numpy as np
import pytest

from occluded_reid.data.synthetic.canvas import Canvas
from occluded_reid.data.synthetic.textures import PATTERNS, Material, paint

RED, BLUE = Material((200.0, 0.0, 0.0)), Material((0.0, 0.0, 200.0))


def square(left: float, top: float, size: float) -> list[tuple[float, float]]:
    return [(left, top), (left + size, top), (left + size, top + size), (left, top + size)]


def test_the_last_shape_is_in_front_and_a_strap_keeps_the_class() -> None:
    canvas = Canvas(20, 20, 0, 0, 20)
    canvas.polygon(square(0.2, 0.2, 0.6), RED, 2)
    canvas.polygon(square(0.4, 0.4, 0.2), BLUE, None)
    sprite = canvas.render()
    assert sprite.colour[10, 10].tolist() == [0, 0, 200]
    assert sprite.colour[6, 6].tolist() == [200, 0, 0]
    assert sprite.parts[10, 10] == sprite.parts[6, 6] == 2
    assert not sprite.solid[1, 1]
    assert sprite.alpha[1, 1] == 0


def test_over_mixes_by_alpha() -> None:
    canvas = Canvas(20, 20, 0, 0, 20)
    canvas.limb((0.3, 0.5), (0.7, 0.5), (0.1, 0.1), RED, 3)
    sprite = canvas.render()
    picture = sprite.over(np.full((20, 20, 3), 100, np.float32))
    assert picture[0, 0].tolist() == [100, 100, 100]
    edge = (sprite.alpha > 0) & (sprite.alpha < 1)
    assert edge.any()
    assert picture[edge][:, 1] == pytest.approx(100 * (1 - sprite.alpha[edge]))


@pytest.mark.parametrize(("down", "right"), [(3, 0), (-4, 2), (0, -5), (30, 0)])
def test_shift_moves_every_pixel(down: int, right: int) -> None:
    canvas = Canvas(12, 16, 0, 0, 12)
    canvas.polygon(square(0.3, 0.3, 0.5), RED, 4)
    sprite = canvas.render()
    moved = sprite.shifted(down, right)
    for y in range(16):
        for x in range(12):
            inside = 0 <= y - down < 16 and 0 <= x - right < 12
            assert moved.parts[y, x] == (sprite.parts[y - down, x - right] if inside else 0)
            assert moved.solid[y, x] == (sprite.solid[y - down, x - right] if inside else False)


def test_a_canvas_says_when_it_is_full() -> None:
    canvas = Canvas(4, 4, 0, 0, 4)
    for _ in range(255):
        canvas.polygon(square(0, 0, 1), RED)
    with pytest.raises(RuntimeError, match="255"):
        canvas.polygon(square(0, 0, 1), RED)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_show_both_colours(pattern: str) -> None:
    cloth = Material((10.0, 20.0, 30.0), (210.0, 220.0, 230.0), pattern, 0.06, 0.5, 0.4)
    across, along = (
        grid.ravel().astype(np.float32) for grid in np.meshgrid(np.linspace(-0.1, 0.1, 60), np.linspace(0, 0.3, 90))
    )
    colours = paint(cloth, across, along)
    assert colours.dtype == np.float32
    share = (colours[:, 0] > 100).mean()
    assert share == 0 if pattern == "plain" else 0.05 < share < 0.95
