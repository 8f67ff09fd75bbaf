"""The contact sheet: every image beside its own mask, in the colors of the legend."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import ShapeError
from occluded_reid.parsing import LABEL_SETS
from occluded_reid.visualize.contact_sheet import class_palette, contact_sheet

NAMES = ("background", "head", "torso")


def sheet(**options):
    white = np.full((32, 16, 3), 255, np.uint8)
    masks = [np.zeros((32, 16), np.uint8) for _ in range(3)]
    masks[1][16:] = 2
    return np.asarray(contact_sheet([white] * 3, masks, NAMES, height=32, alpha=1.0, **options))


def test_masks_lie_over_their_own_image():
    drawn = sheet(columns=3)
    torso = class_palette(NAMES)[2]
    # Padding 12; a pair is 16 + 2 + 16 wide; the second pair's mask starts at 12 + 34 + 12 + 18.
    assert (drawn[12 + 16 : 12 + 32, 76:92] == torso).all()
    assert (drawn[12:28, 76:92] == 255).all()
    assert (drawn[12:44, 58:74] == 255).all(), "the image beside it stays as it is"
    assert (drawn[12:44, 12:46] == 255).all(), "nobody is not tinted"
    assert (drawn == torso).all(-1).sum() > 16 * 16, "the legend has the color too"


def test_rows_and_captions():
    one, two = sheet(columns=3), sheet(columns=2)
    assert two.shape[0] == one.shape[0] + 32 + 12
    assert sheet(columns=3, captions=["a", "b", "c"]).shape[0] == one.shape[0] + 17


@pytest.mark.parametrize("name", LABEL_SETS)
def test_every_label_set_has_colors_of_its_own(name):
    palette = class_palette(LABEL_SETS[name].names)
    assert palette.shape == (LABEL_SETS[name].classes, 3)
    assert len({tuple(color) for color in palette.tolist()}) == len(palette)
    assert palette[0].tolist() == [0, 0, 0]


def test_sizes_may_differ_and_long_legends_wrap():
    images = [Image.new("RGB", (8, 30)), Image.new("RGB", (60, 10))]
    masks = [np.zeros((30, 8), int), np.ones((10, 60), int)]
    drawn = contact_sheet(images, masks, LABEL_SETS["bodypix24"].names, captions=["a" * 200, "ü"])
    assert drawn.height > drawn.width / 4


def test_what_cannot_be_drawn():
    image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    with pytest.raises(ShapeError, match="0 images"):
        contact_sheet([], [], NAMES)
    with pytest.raises(ShapeError, match="1 images, 1 masks and 2 captions"):
        contact_sheet([image], [mask], NAMES, captions=["a", "b"])
    with pytest.raises(ShapeError, match=r"a mask is uint8 of shape \(4, 4, 3\)"):
        contact_sheet([image], [image], NAMES)
    with pytest.raises(ShapeError, match="a mask holds classes 3 … 3; only 0 … 2 have a name"):
        contact_sheet([image], [mask + 3], NAMES)
    with pytest.raises(ShapeError, match="columns is 0"):
        contact_sheet([image], [mask], NAMES, columns=0)
