import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import ImageError, ShapeError
from occluded_reid.visualize.canvas import as_rgb, fit_image, fit_text, hatch, printable, text_width


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "I;16", "RGBA", "LA"])
def test_every_kind_of_image_becomes_rgb(mode):
    assert as_rgb(Image.new(mode, (3, 5))).mode == "RGB"


def test_transparent_places_become_white():
    assert as_rgb(Image.new("RGBA", (1, 1), (9, 9, 9, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_array_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(as_rgb(pixels)), pixels)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 3, 3), np.float32), "uint8 array"),
        (np.zeros((4, 3, 2), np.uint8), r"\(4, 3, 2\)"),
    ],
)
def test_a_wrong_array_is_refused(array, message):
    with pytest.raises(ShapeError, match=message):
        as_rgb(array)


def test_an_array_without_pixels_is_refused():
    with pytest.raises(ImageError, match="hit 3 has no pixels"):
        as_rgb(np.zeros((0, 3, 3), np.uint8), "hit 3")


@pytest.mark.parametrize(
    ("size", "fitted"), [((64, 128), (50, 100)), ((1, 1), (100, 100)), ((4000, 1), (100, 8)), ((1, 4000), (8, 100))]
)
def test_fit_keeps_proportions_and_something_to_see(size, fitted):
    assert fit_image(Image.new("RGB", size), 100, 100).size == fitted


def test_text_is_cut_to_the_width():
    for width in (0, 5, 40, 200):
        assert text_width(fit_text("wide " * 1000, width, 13), 13) <= width
    assert fit_text("short", 200, 13) == "short"


def test_text_the_font_cannot_draw_is_spelt_or_marked():
    assert printable("a\nb\tc") == "a b c"
    assert printable("Łé τ 人") == "?e tau ?"
    assert printable("\x00\u202e") == "??"


def test_hatch_fills_only_its_box_with_both_colors():
    canvas = Image.new("RGB", (10, 10), (1, 2, 3))
    hatch(canvas, (2, 2, 8, 8), (255, 255, 255), (0, 0, 0))
    pixels = np.asarray(canvas)
    assert {tuple(c) for c in pixels[2:8, 2:8].reshape(-1, 3)} == {(255, 255, 255), (0, 0, 0)}
    pixels = pixels.copy()
    pixels[2:8, 2:8] = (1, 2, 3)
    assert (pixels == (1, 2, 3)).all()
