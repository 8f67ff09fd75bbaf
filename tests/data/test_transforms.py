"""Image, part mask and occluder mask stay together through every augmentation."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from occluded_reid.config import Component
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.samplers import sample_generator
from occluded_reid.data.transforms import TRANSFORMS, Transform, View, make_transform
from occluded_reid.errors import DataError, RecipeError, UnknownNameError, UnknownOptionError

HEIGHT, WIDTH = 48, 20


def coded_view() -> View:
    """Parsing and occlusion can be read off the image, so that a mask that moves apart from it is seen."""
    random = np.random.default_rng(0)
    parsing = random.integers(1, 8, (HEIGHT, WIDTH), dtype=np.uint8)
    occlusion = random.random((HEIGHT, WIDTH)) < 0.3
    image = np.stack([parsing * 30, occlusion * np.uint8(200), random.integers(1, 256, parsing.shape)], 2)
    return View(image.astype(np.uint8), parsing, occlusion, "7")


def together(view: View) -> np.ndarray:
    """Where the masks still say what the image says."""
    assert view.parsing is not None
    assert view.occlusion is not None
    return (view.image[..., 0] == view.parsing * 30) & ((view.image[..., 1] == 200) == view.occlusion)


def make(name: str, **options: object) -> Transform:
    return make_transform(Component(type=name, options=options), mean=(0.2, 0.4, 0.6))


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_every_transform_keeps_its_word(name: str) -> None:
    # What was occluded before is true or false, which a difference joins as numbers.
    transform = make(name, **({"mask": "coverage"} if name in ("npo", "erase_occluder") else {}))
    before = coded_view()
    changed = 0
    for index in range(20):
        view = coded_view()
        result = transform(view, sample_generator(1, 2, index))
        again = transform(coded_view(), sample_generator(1, 2, index))
        for attribute in ("image", "parsing", "occlusion"):
            assert np.array_equal(getattr(view, attribute), getattr(before, attribute)), "the input was written to"
            assert np.array_equal(getattr(result, attribute), getattr(again, attribute)), "chance from elsewhere"
            assert getattr(result, attribute).shape == getattr(before, attribute).shape
            assert getattr(result, attribute).dtype == getattr(before, attribute).dtype
        changed += not np.array_equal(result.image, before.image)
        bare = transform(View(before.image), sample_generator(1, 2, index))
        assert bare.parsing is None
        assert not transform.occludes or (bare.occlusion is None) == np.array_equal(bare.image, before.image)
    assert changed >= 5


@pytest.mark.parametrize("name", ["flip", "pad_crop"])
def test_moves_masks_with_the_image(name: str) -> None:
    moved = 0
    for index in range(10):
        result = make(name)(coded_view(), sample_generator(0, 0, index))
        assert together(result).all()  # padding is black, background and not occluded
        moved += not np.array_equal(result.parsing, coded_view().parsing)
    assert moved >= 3


def test_flip_mirrors() -> None:
    view, result = coded_view(), make("flip", p=1)(coded_view(), sample_generator(0, 0, 0))
    assert result.parsing is not None
    assert view.parsing is not None
    for row in range(HEIGHT):
        for column in range(WIDTH):
            assert (result.image[row, column] == view.image[row, WIDTH - 1 - column]).all()
            assert result.parsing[row, column] == view.parsing[row, WIDTH - 1 - column]


def test_flip_happens_as_often_as_its_probability() -> None:
    views = [make("flip", p=0.3)(coded_view(), sample_generator(0, 1, index)) for index in range(400)]
    flipped = [not np.array_equal(view.image, coded_view().image) for view in views]
    assert np.mean(flipped) == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_truncate_cuts_a_border_and_stretches_the_rest(side: str) -> None:
    """A ramp along the cut axis: half of it is left, over the whole length, in the image and in its masks."""
    ramp = np.arange(HEIGHT, dtype=np.uint8)[:, None].repeat(WIDTH, 1)
    if side in ("left", "right"):
        ramp = np.arange(WIDTH, dtype=np.uint8)[None].repeat(HEIGHT, 0)
    length = ramp.max() + 1
    view = View(ramp[..., None].repeat(3, 2), (ramp >= length / 2).astype(np.uint8), ramp < 3)
    result = make("truncate", p=1.0, share=[0.5, 0.5], sides=[side])(view, sample_generator(0, 0, 0))
    low, high = (length / 2, length - 1) if side in ("top", "left") else (0, length / 2 - 1)
    assert result.image.min() == low
    assert result.image.max() == high
    assert result.image.shape == view.image.shape
    assert result.parsing is not None
    assert result.occlusion is not None
    assert (result.parsing == (1 if side in ("top", "left") else 0)).all(), "the other half is gone"
    assert result.occlusion.any() == (side in ("bottom", "right"))
    assert result.occlusion.dtype == np.bool_


def test_truncate_leaves_something() -> None:
    with pytest.raises(RecipeError, match="something must be left"):
        make("truncate", share=[0.5, 1.0])
    with pytest.raises(RecipeError, match="a side to cut at"):
        make("truncate", sides=[])
    with pytest.raises(RecipeError, match="smaller bound"):
        make("truncate", share=[0.5, 0.2])
    tiny = View(np.zeros((1, 1, 3), np.uint8))
    assert make("truncate", p=1.0, share=[0.9, 0.9])(tiny, sample_generator(0, 0, 0)).image.shape == (1, 1, 3)


def test_pad_crop_reaches_every_shift() -> None:
    view = coded_view()
    shifts = set()
    for index in range(200):
        result = make("pad_crop", pad=1)(view, sample_generator(0, 0, index)).image
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                padded = np.zeros((HEIGHT + 2, WIDTH + 2, 3), dtype=np.uint8)
                padded[1:-1, 1:-1] = view.image
                if np.array_equal(padded[1 + down : 1 + down + HEIGHT, 1 + right : 1 + right + WIDTH], result):
                    shifts.add((down, right))
    assert len(shifts) == 9


def test_erase_fills_a_box_with_the_mean() -> None:
    view = coded_view()
    for index in range(60):
        result = make("erase", p=1)(view, sample_generator(0, 0, index))
        gone = (result.image != view.image).any(2)
        rows, columns = np.flatnonzero(gone.any(1)), np.flatnonzero(gone.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (result.image[box] == (51, 102, 153)).all()
        assert result.parsing is not None
        assert not result.parsing[box].any()
        outside = np.ones(gone.shape, dtype=bool)
        outside[box] = False
        assert np.array_equal(result.parsing[outside], view.parsing[outside])  # type: ignore[index]
        assert not gone[outside].any()
        assert np.array_equal(result.occlusion, view.occlusion)
        high, wide = len(rows), len(columns)
        assert 0.01 < high * wide / gone.size < 0.45
        assert 0.2 < high / wide < 4.5


def test_erase_fills_a_box_with_noise() -> None:
    view = View(np.full((128, 64, 3), 255, dtype=np.uint8))
    options = {"p": 1.0, "fill": "noise", "area": (0.3, 0.3), "aspect": (1.0, 1.0)}
    erase = make_transform(Component(type="erase", options=options), mean=(0.2, 0.5, 0.6), std=(0.1, 0.05, 0.2))
    values = []
    for index in range(8):
        result = erase(view, sample_generator(0, 0, index))
        red = result.image[..., 0] != 255  # 8 deviations above the mean
        rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
        box = result.image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert red.sum() == box[..., 0].size == round((0.3 * 128 * 64) ** 0.5) ** 2
        values.append((box.reshape(-1, 3) / 255 - (0.2, 0.5, 0.6)) / (0.1, 0.05, 0.2))
    normal = np.concatenate(values)  # what normalisation makes of it: about 20,000 pixels
    assert np.abs(np.corrcoef(normal.T) - np.eye(3)).max() < 0.03  # each channel by itself
    assert np.abs(normal[:, :2].mean(0)).max() < 0.03
    assert np.abs(normal[:, :2].std(0) - 1).max() < 0.03
    assert (normal[:, 2] <= 2.0 + 1e-9).all()  # white: bytes end there, and what lies beyond becomes it
    assert 0.015 < (normal[:, 2] > 1.99).mean() < 0.03
    assert np.abs((np.abs(normal[:, :2]) < 1).mean(0) - 0.683).max() < 0.03
    assert np.array_equal(result.image, erase(view, sample_generator(0, 0, 7)).image)


def test_erase_draws_aspects_as_timm_does() -> None:
    """Half of the rectangles upright, the logarithm uniform; a uniform aspect stands upright three times of four."""
    shares = {}
    for draw in ("uniform", "log_uniform"):
        erase = make("erase", p=1, area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3), aspect_draw=draw)
        logs, areas = [], []
        for index in range(1500):
            found = erase.erased(np.zeros((256, 256, 3), np.uint8), sample_generator(0, 0, index))
            assert found is not None
            (rows, columns), size = found[1], 256 * 256
            high, wide = rows.stop - rows.start, columns.stop - columns.start
            logs.append(math.log(high / wide))
            areas.append(high * wide / size)
        assert 0.015 < min(areas) < 0.03 < 0.31 < max(areas) < 0.34
        shares[draw] = float(np.mean(np.array(logs) > 0))
    log_uniform, (low, high) = sorted(logs), (math.log(0.3), -math.log(0.3))
    assert abs(log_uniform[375] - (low + (high - low) / 4)) < 0.1  # quartiles of a uniform distribution
    assert abs(log_uniform[1125] - (low + 3 * (high - low) / 4)) < 0.1
    assert abs(shares["log_uniform"] - 0.5) < 0.04
    assert abs(shares["uniform"] - (1 / 0.3 - 1) / (1 / 0.3 - 0.3)) < 0.04


@pytest.mark.parametrize("mask", ["difference", "coverage"])
def test_an_erased_rectangle_as_occluder(mask: str) -> None:
    view = View(np.full((64, 32, 3), 100, np.uint8), np.full((64, 32), 3, np.uint8))
    transform = make("erase_occluder", mask=mask)
    assert (transform.occludes, transform.mask, make("erase_occluder").mask) == (True, mask, "difference")
    for index in range(20):
        result = transform(view, sample_generator(0, 0, index))
        erased = result.parsing == 0
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased.sum() == len(rows) * len(columns)
        assert 0.04 < erased.mean() < 0.42
        assert not (result.image != view.image).any(2)[~erased].any()
        expected = np.zeros((64, 32))
        for y in range(64):
            for x in range(32):
                change = sum(abs(int(result.image[y, x, c]) - 100) for c in range(3)) / 255
                expected[y, x] = change if mask == "difference" else erased[y, x]
        assert np.allclose(result.occlusion, expected, atol=1e-6)
    assert make("erase_occluder", p=0)(view, sample_generator(0, 0, 0)) is view
    sliver = View(np.zeros((1, 1, 3), np.uint8))  # no rectangle fits
    assert transform(sliver, sample_generator(0, 0, 0)) is sliver


def test_color_jitter_follows_its_amounts() -> None:
    grey = View(np.full((4, 4, 3), 100, dtype=np.uint8))
    values = [make("color_jitter", brightness=0.5)(grey, sample_generator(0, 0, i)).image[0, 0, 0] for i in range(50)]
    assert 49 <= min(values) < 70 < 130 < max(values) <= 151
    still = make("color_jitter", brightness=0, contrast=0, saturation=0)(coded_view(), sample_generator(0, 0, 0))
    assert np.array_equal(still.image, coded_view().image)


def test_color_jitter_in_fixed_and_in_random_order() -> None:
    """Brightness cuts white off, contrast does not bring it back: so the order can be seen."""
    view = coded_view()
    amounts = {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9}
    fixed, random = make("color_jitter", **amounts), make("color_jitter", **amounts, order="random")
    orders = set()
    for index in range(40):
        generator = sample_generator(0, 0, index)
        generator.random()  # for the probability
        order = generator.permutation(3)
        image = Image.fromarray(view.image)
        for step in order:
            enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
            image = enhancer(image).enhance(generator.uniform(0.1, 1.9))
        assert np.array_equal(random(view, sample_generator(0, 0, index)).image, np.asarray(image))
        orders.add(tuple(order))
        generator = sample_generator(0, 0, index)
        generator.random()
        image = Image.fromarray(view.image)
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhancer(image).enhance(generator.uniform(0.1, 1.9))
        assert np.array_equal(fixed(view, sample_generator(0, 0, index)).image, np.asarray(image))
    assert len(orders) == 6


def test_a_difference_moves_with_the_image() -> None:
    view = coded_view()
    change = view.image.sum(2, dtype=np.float32) / 255
    for name in ("flip", "pad_crop"):
        for index in range(5):
            result = make(name)(View(view.image, occlusion=change), sample_generator(0, 0, index))
            assert result.occlusion is not None
            assert result.occlusion.dtype == np.float32
            assert np.allclose(result.occlusion, result.image.sum(2) / 255)


def test_occlude_blanks_the_mask_under_the_occluder() -> None:
    view = coded_view()
    body = np.zeros((HEIGHT, WIDTH), dtype=bool)
    body[6:44, 5:15] = True
    parsing = np.where(body, view.parsing, 0).astype(np.uint8)
    for index in range(20):
        result = make("occlude", p=1, share=(0.2, 0.4))(View(view.image, parsing), sample_generator(0, 0, index))
        assert result.parsing is not None
        assert result.occlusion is not None
        assert not result.parsing[result.occlusion].any()
        assert np.array_equal(result.parsing[~result.occlusion], parsing[~result.occlusion])
        assert 0.17 <= (result.occlusion & body).sum() / body.sum() <= 0.43
    both = make("occlude", p=1)(view, sample_generator(0, 0, 0)).occlusion
    assert both is not None
    assert both[view.occlusion].all()  # what was occluded before stays so


def test_occlude_takes_people_from_the_loader() -> None:
    people = Occluders.pedestrians([coded_view().image] * 2, [np.ones((HEIGHT, WIDTH))] * 2, ["7", "8"])
    component = Component(type="occlude", options={"kinds": ["pedestrians", "generated"]})
    transform = make_transform(component, people=lambda: people)
    assert transform.occluders.description == "generated (240) + pedestrians (2)"  # type: ignore[attr-defined]

    def never() -> Occluders:
        raise AssertionError("people were made without being asked for")

    make_transform(Component(type="occlude"), people=never)


def test_generators_differ_by_seed_epoch_sample_and_occurrence() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0, 1), (1, 1, 0), (0, 1, 1)]
    assert len({sample_generator(*key).random() for key in keys}) == len(keys)
    assert sample_generator(3, 4, 5).random() == sample_generator(3, 4, 5, 0).random()


def test_bad_recipes(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no transform is named 'flipp'. Did you mean 'flip'"):
        make("flipp")
    with pytest.raises(UnknownOptionError, match=r"data.augment 'pad_crop' takes no 'pads'. Did you mean 'pad'"):
        make("pad_crop", pads=3)
    with pytest.raises(UnknownOptionError, match=r"'p' was given 1.5"):
        make("flip", p=1.5)
    with pytest.raises(UnknownOptionError, match="'pad' was given -1"):
        make("pad_crop", pad=-1)
    with pytest.raises(RecipeError, match="neither 'on' nor 'weight'"):
        make_transform(Component(type="flip", on="parts"))
    with pytest.raises(RecipeError, match=r"area is \(0.5, 0.2\)"):
        make("erase", area=(0.5, 0.2))
    with pytest.raises(RecipeError, match="must be above 0"):
        make("erase", area=(0.0, 0.2))
    with pytest.raises(RecipeError, match="folder exactly if"):
        make("occlude", kinds=["folder"])
    with pytest.raises(RecipeError, match=r"data.masks is 0"):
        make("occlude", kinds=["pedestrians"])
    with pytest.raises(DataError, match="holds no cut-outs"):
        make("occlude", kinds=["folder"], folder=str(tmp_path))
