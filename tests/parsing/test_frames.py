"""Where an image lies on a network's canvas, and how scores come back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import BuildError, ImageError
from occluded_reid.parsing.frames import Frame, Placement, labels_on_image


def test_bodypix_on_a_market_crop():
    frame = Frame(height=256, multiple=16, pad=(0.15, 0.05), stride=8)
    layout = frame.layout((64, 128))
    assert layout == Placement(image=(64, 128), content=(128, 256), pad=(32, 16), network=(193, 289))
    assert layout.canvas == (192, 288)


@pytest.mark.parametrize(
    ("frame", "image", "content", "network"),
    [
        (Frame(height=64), (30, 60), (32, 64), (32, 64)),
        (Frame(height=64, multiple=32), (10, 100), (32, 64), (32, 64)),
        (Frame(height=64, width=48), (10, 100), (48, 64), (48, 64)),
        (Frame(fixed=(40, 20)), (10, 100), (20, 40), (20, 40)),
        (Frame(height=64, multiple=4, fixed=(40, 20)), (50, 100), (32, 64), (20, 40)),
        (Frame(height=64, fixed=(None, 20)), (50, 100), (32, 64), (20, 64)),
        (Frame(height=33, width=17, stride=16), (5, 5), (17, 33), (33, 49)),
    ],
)
def test_sizes(frame, image, content, network):
    layout = frame.layout(image)
    assert (layout.content, layout.network) == (content, network)


def test_padding_repeats_the_outermost_pixels():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 4, 3), dtype=np.uint8)
    frame = Frame(height=8, width=4, multiple=2, pad=(0.3, 0.2))
    layout = frame.layout((4, 8))
    assert layout.pad == (2, 2)
    drawn = frame.draw(Image.fromarray(pixels), layout)
    assert drawn.shape == (12, 8, 3)
    for row in range(12):
        for column in range(8):
            nearest = pixels[min(max(row - 2, 0), 7), min(max(column - 2, 0), 3)]
            np.testing.assert_array_equal(drawn[row, column], nearest)


@pytest.mark.parametrize("decide", ["image", "canvas"])
def test_scores_come_back_to_where_they_were(decide):
    """The canvas has 8×12 cells of one pixel; the image is its middle 4×8, scaled down by two."""
    scores = np.random.default_rng(1).random((3, 12, 8)).astype(np.float32)
    person = np.random.default_rng(2).random((12, 8)).astype(np.float32)
    layout = Placement(image=(2, 4), content=(4, 8), pad=(2, 2), network=(8, 12))
    found = labels_on_image(scores, layout, person=person, threshold=0.5, decide=decide)
    assert found.shape == (4, 2)
    middle, someone = scores[:, 2:10, 2:6], person[2:10, 2:6]
    for row in range(4):
        for column in range(2):
            if decide == "canvas":  # Pillow's nearest neighbour takes the later of the two in the middle
                at = (2 * row + 1, 2 * column + 1)
                expected = int(middle[:, at[0], at[1]].argmax()) if someone[at] > 0.5 else -1
                assert found[row, column] == expected
            else:
                # Scaling down by two with a triangle: each pixel's neighbours as far as two away, clipped to the map.
                weights = np.zeros((12, 8))
                for r in range(12):
                    for c in range(8):
                        y, x = abs(r + 0.5 - (2 * row + 3)), abs(c + 0.5 - (2 * column + 3))
                        weights[r, c] = max(0, 1 - y / 2) * max(0, 1 - x / 2)
                weights /= weights.sum()
                mixed = [(score * weights).sum() for score in scores]
                expected = int(np.argmax(mixed)) if (person * weights).sum() > 0.5 else -1
                assert found[row, column] == expected


def test_the_first_of_equals_wins():
    layout = Placement(image=(2, 2), content=(2, 2), pad=(0, 0), network=(2, 2))
    assert (labels_on_image(np.ones((3, 2, 2)), layout) == 0).all()


def test_what_cannot_be_framed():
    with pytest.raises(BuildError, match="Give height=512"):
        Frame()
    with pytest.raises(BuildError, match="stride is 0"):
        Frame(height=4, stride=0)
    with pytest.raises(BuildError, match="pad is"):
        Frame(height=4, pad=(0.0, -0.1))
    with pytest.raises(ImageError, match="5000×2 would become a canvas of 20000×5000"):
        Frame(height=5000).layout((5000, 2))


@pytest.mark.parametrize("width", [1025, 6000, 60_000])
def test_a_very_wide_image_is_squeezed_and_its_labels_still_reach_its_ends(width):
    """More than four times as wide as high: the canvas stays at four times the height."""
    frame = Frame(height=256, multiple=16, pad=(0.15, 0.05), stride=8)
    layout = frame.layout((width, 256))
    assert layout.content == (1024, 256)
    assert layout.network[0] * layout.network[1] < 500_000
    scores = np.zeros((2, 10, 100), np.float32)
    scores[1, :, 50:] = 1.0  # the right half of the canvas
    found = labels_on_image(scores, layout, decide="canvas")
    assert found.shape == (256, width)
    assert found[:, 0].max() == 0
    assert found[:, -1].min() == 1
    assert abs(int((found[128] == 1).sum()) / width - 0.5) < 0.02
