import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import ShapeError
from occluded_reid.visualize import aggregation_maps, overlay_mask, visibility_overlay
from occluded_reid.visualize.colors import GREY, PAPER, PART_NAMES, VISIBLE, part_palette
from occluded_reid.visualize.overlays import part_bands

GREEN_COAT = np.full((128, 64, 3), (0, 200, 0), np.uint8)


def test_mask_tints_the_body_and_leaves_the_background():
    mask = np.zeros((8, 4), np.int64)
    mask[2:6] = 3
    shown = np.asarray(overlay_mask(GREEN_COAT, mask, alpha=1.0, height=128))
    assert shown.shape == (128, 64, 3)
    assert (shown[:32] == (0, 200, 0)).all()
    assert (shown[97:] == (0, 200, 0)).all()
    assert (shown[33:96] == part_palette(8)[3]).all()


def test_alpha_mixes():
    shown = np.asarray(overlay_mask(GREEN_COAT, np.full((2, 2), 2), alpha=0.25, height=128))
    wanted = np.rint(0.75 * np.array([0, 200, 0]) + 0.25 * part_palette(8)[2])
    assert (shown == wanted).all()
    assert np.array_equal(overlay_mask(GREEN_COAT, np.full((2, 2), 2), alpha=0.0, height=128), GREEN_COAT)


def test_legend_is_beside_the_image_with_every_color():
    mask = np.zeros((2, 2), np.uint8)
    plain, told = overlay_mask(GREEN_COAT, mask), overlay_mask(GREEN_COAT, mask, legend=True)
    assert told.width > plain.width
    beside = {tuple(c) for c in np.asarray(told)[:, plain.width :].reshape(-1, 3)}
    assert {tuple(c) for c in part_palette(8)[1:]} <= beside


@pytest.mark.parametrize("classes", sorted(PART_NAMES))
def test_palette_has_different_colors(classes):
    assert len({tuple(c) for c in part_palette(classes)}) == classes


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.full((2, 2), 8), {}, "0 … 7"),
        (np.full((2, 2), -1), {}, "-1"),
        (np.full((2, 2), 5), {"classes": 5}, "0 … 4"),
        (np.zeros((2, 2, 1), np.uint8), {}, r"\(h, w\)"),
        (np.zeros((2, 2)), {}, "integers"),
        (np.zeros((2, 2), np.uint8), {"classes": 7}, "8, 5 or 2"),
        (np.zeros((2, 2), np.uint8), {"alpha": 2.0}, "alpha"),
        (np.zeros((2, 2), np.uint8), {"height": 0}, "height"),
    ],
)
def test_a_wrong_mask_is_refused(mask, options, message):
    with pytest.raises(ShapeError, match=message):
        overlay_mask(GREEN_COAT, mask, **options)


def test_hidden_bands_are_washed_out_and_hatched():
    shown = np.asarray(
        visibility_overlay(GREEN_COAT, {"global": 1.0, "part_1": 1.0, "part_2": 0.0}, width=64, height=128)
    )
    person, bar = shown[:, 14:], shown[:, :10]
    assert (person[:64] == (0, 200, 0)).all()
    washed = person[80:128].astype(int)
    assert (washed.max(-1) - washed.min(-1)).max() < 20  # next to no color left
    assert (bar[:64] == VISIBLE).all()
    assert {tuple(c) for c in bar[66:126, 1:9].reshape(-1, 3)} == {PAPER, GREY}


def test_soft_visibility_fills_its_share_of_the_bar():
    bar = np.asarray(visibility_overlay(GREEN_COAT, {"part_1": 0.25}, width=64, height=128))[:, 1:9]
    rows = (bar == VISIBLE).all((1, 2))
    assert rows[96:].all()
    assert not rows[1:95].any()


def test_slots_without_a_place_leave_the_image_alone():
    shown = np.asarray(visibility_overlay(GREEN_COAT, {"global": 1.0, "head": 0.0}, width=64, height=128))
    assert np.array_equal(shown[:, 14:], GREEN_COAT)


def test_part_bands_are_in_the_order_of_their_numbers():
    shares = {f"part_{n}": n / 20 for n in (10, 2, 1, 3, 4, 5, 6, 7, 9)}
    assert part_bands(shares) == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.0, 0.45, 0.5]


def test_visibility_outside_its_range_is_refused():
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ShapeError, match="part_1"):
            visibility_overlay(GREEN_COAT, {"part_1": value})


def test_more_parts_than_rows_and_one_pixel():
    visibility_overlay(np.zeros((1, 1, 3), np.uint8), {"part_300": 1.0})
    overlay_mask(Image.new("RGB", (1, 1)), np.ones((1, 1), np.uint8), legend=True)
    aggregation_maps(Image.new("RGB", (1, 1)), np.ones((3, 3, 1)))


def test_maps_are_bright_where_they_are_high_and_outlined_in_their_band():
    maps = np.zeros((2, 8, 4))
    maps[0, :4] = 1.0
    maps[1] = 0.5
    shown = np.asarray(aggregation_maps(np.zeros((128, 64, 3), np.uint8), maps, height=128)).astype(int)
    image = shown[12:140]
    black = (image == 0).all(-1)
    columns = np.flatnonzero(black.all(0))
    assert len(columns) == 64  # the picture itself, untouched
    first = image[:, columns[-1] + 20 : columns[-1] + 88].mean(-1)
    assert first[10:50, 20:40].mean() > 100 + first[80:120, 20:40].mean()
    second = image[:, columns[-1] + 110 :]
    bright = np.flatnonzero((second[:, 40] == PAPER).all(-1))
    assert bright.min() >= 64  # its outline lies in the lower band


@pytest.mark.parametrize(
    "maps", [np.ones((4, 4)), np.full((1, 2, 2), 1.5), np.full((1, 2, 2), np.nan), np.ones((0, 2, 2))]
)
def test_wrong_maps_are_refused(maps):
    with pytest.raises(ShapeError, match="maps must be"):
        aggregation_maps(GREEN_COAT, maps)


def test_more_maps_than_rows_are_refused():
    with pytest.raises(ShapeError, match="bands"):
        aggregation_maps(GREEN_COAT, np.ones((3, 2, 2)))
