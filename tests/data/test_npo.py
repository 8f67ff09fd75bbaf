"""FED's patches: as high or as wide as the picture, in any corner, with an exact mask."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from occluded_reid.config import Component
from occluded_reid.data.occlusion import Cutout, Occluders, paste_npo
from occluded_reid.data.occlusion.cutouts import make_cutout
from occluded_reid.data.occlusion.npo import _jittered
from occluded_reid.data.samplers import sample_generator
from occluded_reid.data.transforms import Npo, View, make_transform
from occluded_reid.errors import DataError, ImageError, RecipeError, ShapeError, UnknownOptionError

HEIGHT, WIDTH = 64, 32


def opaque(rows: int, columns: int, kind: str = "patch", identity: str | None = None) -> Cutout:
    """Red on the left, blue on the right: a mirrored one is seen."""
    colour = np.zeros((rows, columns, 3), dtype=np.uint8)
    colour[:, : columns // 2] = 200, 10, 10
    colour[:, columns // 2 :] = 10, 10, 200
    return Cutout(colour, np.full((rows, columns), 255, dtype=np.uint8), kind, identity)


def stock(*cutouts: Cutout) -> Occluders:
    return Occluders([("patches", cutouts)])


def make(**options: object) -> Npo:
    transform = make_transform(Component(type="npo", options=options))
    assert isinstance(transform, Npo)
    return transform


def black(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def corners(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row, first and last column of a filled rectangle."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert mask.sum() == (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0])
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def chi_square(counts: Counter, outcomes: int) -> float:
    total = sum(counts.values())
    assert len(counts) <= outcomes
    return sum((count - total / outcomes) ** 2 for count in (*counts.values(), *[0] * (outcomes - len(counts)))) / (
        total / outcomes
    )


@pytest.mark.parametrize(
    ("rows", "columns", "upright"), [(30, 10, True), (21, 10, True), (20, 10, False), (12, 40, False), (9, 9, False)]
)
def test_every_place_and_length_is_as_likely(rows: int, columns: int, upright: bool) -> None:
    lengths: Counter = Counter()
    sides: Counter = Counter()
    mirrored = 0
    for seed in range(500):
        result = paste_npo(black(), stock(opaque(rows, columns)), np.random.default_rng(seed), jitter=0)
        top, bottom, left, right = corners(result.mask)
        if upright:
            assert (top, bottom) == (0, HEIGHT - 1)
            assert (left == 0) != (right == WIDTH - 1)
            lengths[right - left + 1] += 1
            sides["left" if left == 0 else "right"] += 1
        else:
            assert (left, right) == (0, WIDTH - 1)
            assert (top == 0) != (bottom == HEIGHT - 1)
            lengths[bottom - top + 1] += 1
            sides["top" if top == 0 else "bottom"] += 1
        mirrored += bool(result.image[bottom, left, 2] > 100)
        assert np.array_equal((result.image > 0).any(2), result.mask)
        assert result.fraction == pytest.approx(result.mask.mean())
        assert result.kind == "patch"
    shortest, longest = (8, 16) if upright else (16, 32)
    assert (min(lengths), max(lengths)) == (shortest, longest)
    # Beyond these values chance goes once in a thousand times (1, 8 and 16 degrees of freedom); the seeds are fixed.
    assert chi_square(sides, 2) < 10.8
    assert chi_square(lengths, longest - shortest + 1) < (26.1 if upright else 39.3)
    assert chi_square(Counter({True: mirrored, False: 500 - mirrored}), 2) < 10.8


def test_all_four_sides_are_as_likely() -> None:
    """A lying patch fills two corners at once, a standing one two others: half of each, and every side a quarter."""
    counts: Counter = Counter()
    patches = stock(opaque(10, 30), opaque(30, 10))
    for seed in range(600):
        rows, columns = np.nonzero(paste_npo(black(), patches, np.random.default_rng(seed)).mask)
        counts[(rows.min() > 0, rows.max() < HEIGHT - 1, columns.min() > 0, columns.max() < WIDTH - 1)] += 1
    assert {sum(sides) for sides in counts} == {1}
    assert chi_square(counts, 4) < 16.3


def test_an_upright_patch_keeps_its_colours_and_is_resized_bicubically() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 12, 3), dtype=np.uint8)
    patch = Cutout(noise, np.full((40, 12), 255, dtype=np.uint8), "noise")
    for seed in range(20):
        result = paste_npo(black(), stock(patch), np.random.default_rng(seed))
        top, bottom, left, right = corners(result.mask)
        wanted = np.asarray(Image.fromarray(noise).resize((right - left + 1, HEIGHT), Image.Resampling.BICUBIC))
        pasted = result.image[top : bottom + 1, left : right + 1]
        assert np.array_equal(pasted, wanted) or np.array_equal(pasted, wanted[:, ::-1])


def test_a_lying_patch_changes_its_colours() -> None:
    greys = {
        int(result.image[result.mask][0, 0])
        for result in (
            paste_npo(
                black(), stock(make_cutout(np.full((9, 9, 4), (100, 100, 100, 255), np.uint8), "grey")), generator
            )
            for generator in map(np.random.default_rng, range(200))
        )
    }
    assert 49 <= min(greys) < 60 < 140 < max(greys) <= 151  # only brightness moves a grey of one tone


def test_colours_change_as_pillow_changes_them() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    noise = np.asarray(Image.fromarray(noise).resize((60, 60), Image.Resampling.BICUBIC))
    patch = Cutout(noise, np.full((60, 60), 255, dtype=np.uint8), "noise")
    orders = set()
    for seed in range(30):
        generator = np.random.default_rng(seed)
        image = Image.fromarray(noise)
        order = tuple(generator.permutation(3).tolist())
        for step in order:
            enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
            image = enhancer(image).enhance(generator.uniform(0.5, 1.5))
        actual = _jittered(patch, 0.5, np.random.default_rng(seed))
        assert np.abs(actual.astype(int) - np.asarray(image)).max() <= 4  # Pillow rounds after each step
        orders.add(order)
    assert len(orders) == 6


def test_what_is_transparent_does_not_count_for_contrast() -> None:
    alpha = np.zeros((8, 8), dtype=np.uint8)
    alpha[2:6, 2:6] = 255
    alpha[2] = 128
    colour = np.where(alpha[..., None] > 0, alpha[..., None] // 2, 0).repeat(3, axis=2).astype(np.uint8)
    small = Cutout(colour[2:6, 2:6], alpha[2:6, 2:6], "small")
    for seed in range(10):
        whole = _jittered(Cutout(colour, alpha, "grey"), 0.5, np.random.default_rng(seed))
        assert np.array_equal(whole[2:6, 2:6], _jittered(small, 0.5, np.random.default_rng(seed)))
        assert (whole <= alpha[..., None]).all()
        assert not whole[alpha == 0].any()


@pytest.mark.parametrize("aspect", [(60, 20), (40, 40)])
def test_the_mask_is_where_the_patch_hides_at_least_half(aspect: tuple[int, int]) -> None:
    """Pasted over black and over white, the same patch tells its opacity at each pixel."""
    rows, columns = np.mgrid[: aspect[0], : aspect[1]]
    distance = ((rows + 0.5) / aspect[0] - 0.5) ** 2 + ((columns + 0.5) / aspect[1] - 0.5) ** 2
    pixels = np.full((*aspect, 4), (30, 250, 250, 0), dtype=np.uint8)
    pixels[..., 3] = np.clip(2500 * (0.23 - distance), 0, 255)
    disc = make_cutout(pixels, "disc")
    seen = set()
    for seed in range(20):
        over_black, over_white = (
            paste_npo(np.full_like(black(), ground), stock(disc), np.random.default_rng(seed)) for ground in (0, 255)
        )
        opacity = 255 - (over_white.image.astype(int) - over_black.image)[..., 0]
        assert np.array_equal(over_white.mask, opacity >= 128)
        assert np.array_equal(over_white.mask, over_black.mask)
        assert np.array_equal(over_white.image[opacity == 0], np.full_like(over_white.image[opacity == 0], 255))
        assert np.array_equal(over_white.image[opacity == 255], over_black.image[opacity == 255])
        assert 0.5 < over_white.mask.sum() / (opacity > 0).sum() <= 1
        seen |= set(opacity.ravel().tolist())
    assert {0, 255} < seen
    assert len(seen) > 20  # there are soft edges, too


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 30),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.integers(0, 1000),
)
def test_any_size(height: int, width: int, rows: int, columns: int, size: tuple[float, float], seed: int) -> None:
    size = min(size), max(size)
    image = np.full((height, width, 3), 77, dtype=np.uint8)
    result = paste_npo(image, stock(opaque(rows, columns)), np.random.default_rng(seed), size=size)
    top, bottom, left, right = corners(result.mask)
    upright = rows / columns > 2
    side, length = (width, right - left + 1) if upright else (height, bottom - top + 1)
    assert (bottom - top + 1 == height) if upright else (right - left + 1 == width)
    # Where no whole number lies between the bounds, the next larger one is taken.
    assert length == 1 or size[0] * side - 1e-5 <= length < max(size[1] * side, size[0] * side + 1) + 1e-5
    assert (image == 77).all()
    assert (result.image[~result.mask] == 77).all()


def test_difference_is_the_sum_over_the_channels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    parsing = np.ones((HEIGHT, WIDTH), dtype=np.uint8)
    exact, difference = make(mask="coverage"), make()
    for index in range(10):
        covered = exact(View(image, parsing), sample_generator(0, 0, index))
        changed = difference(View(image, parsing), sample_generator(0, 0, index))
        assert np.array_equal(covered.image, changed.image)
        assert covered.occlusion is not None
        assert changed.occlusion is not None
        assert covered.occlusion.dtype == bool
        assert changed.occlusion.dtype == np.float32
        wanted = np.abs(changed.image / 255.0 - image / 255.0).sum(2)
        assert np.abs(changed.occlusion - wanted).max() < 1e-6
        assert np.array_equal(changed.parsing == 0, covered.occlusion)  # whichever mask, what is hidden is hidden
        again = difference(changed, sample_generator(0, 0, index + 50)).occlusion
        assert again is not None
        assert (again >= changed.occlusion).all()


def test_a_patch_of_the_same_colour_makes_no_difference() -> None:
    grey = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    pillars = Occluders.strips([np.full((30, 9, 3), 90, dtype=np.uint8)])
    both = {}
    for mask in ("coverage", "difference"):
        transform = make_transform(
            Component(type="npo", options={"mask": mask, "kinds": ["strips"]}), strips=lambda: pillars
        )
        both[mask] = transform(View(grey), np.random.default_rng(0)).occlusion
    assert not both["difference"].any()
    assert both["coverage"].mean() >= 0.25


def test_happens_as_often_as_its_probability() -> None:
    view = View(black())
    assert all(make(p=0)(view, sample_generator(0, 0, index)) is view for index in range(50))
    transform = make(p=0.3, patches=4)
    happened = [transform(view, sample_generator(0, 0, index)) is not view for index in range(400)]
    assert np.mean(happened) == pytest.approx(0.3, abs=0.07)
    assert make()(view, sample_generator(0, 0, 0)) is not view  # always, by default, as in FED


def save(folder: Path, name: str, rows: int = 20, columns: int = 20, mode: str = "RGB") -> None:
    folder.mkdir(exist_ok=True)
    Image.new(mode, (columns, rows), (90, 80, 70, 255)[: len(mode)]).save(folder / name)


def test_folders_hold_cutouts_and_crops(tmp_path: Path) -> None:
    for name in ("d.png", "a.jpg", "e.JPEG", "b.png", "c.bmp"):
        save(tmp_path / "first", name, mode="RGBA" if name == "b.png" else "RGB")
    (tmp_path / "first" / "licence.txt").write_text("mine")
    save(tmp_path / "second", "f.jpg")
    both = [str(tmp_path / "first"), str(tmp_path / "second")]

    def kinds(**options: object) -> Counter:
        occluders = make(kinds=["folder"], folders=both, **options).occluders
        return Counter(occluders.draw(np.random.default_rng(seed)).kind for seed in range(500))

    everything = kinds()
    assert set(everything) == set("abcdef")
    assert chi_square(everything, 6) < 20.6  # all folders are one set
    assert set(kinds(take="even")) == set("acef")
    save(tmp_path / "second", "g.jpg")
    assert set(kinds(take="odd")) == set("bdg")
    limited = kinds(patches=3)
    assert len(limited) == 3
    assert limited == kinds(patches=3)
    assert any(set(kinds(patches=3, seed=seed)) != set(limited) for seed in range(1, 4))
    assert set(kinds(patches=50)) == set("abcdefg")


def test_large_files_are_kept_small(tmp_path: Path) -> None:
    save(tmp_path / "large", "wall.jpg", 1500, 700)
    occluders = Occluders.from_folder(tmp_path / "large", crops=True)
    wall = occluders.draw(np.random.default_rng(0))
    assert wall.colour.nbytes + wall.alpha.nbytes <= 256 * 256 * 4
    assert paste_npo(black(), occluders, np.random.default_rng(0)).mask.any(1).all()  # still upright


def test_kinds_are_as_likely_whatever_they_hold(tmp_path: Path) -> None:
    save(tmp_path / "one", "box.png")
    occluders = make(kinds=["folder", "generated"], folders=[str(tmp_path / "one")], patches=24).occluders
    assert occluders.description == "folder one (1) + generated (24)"
    drawn = Counter(occluders.draw(np.random.default_rng(seed)).kind == "box" for seed in range(400))
    assert chi_square(drawn, 2) < 10.8


def test_strips_are_borders_of_other_people() -> None:
    images = [np.random.default_rng(n).integers(0, 256, (20, 10, 3), dtype=np.uint8) for n in range(6)]
    strips = Occluders.strips(images, [str(n) for n in range(6)])
    assert len(strips) == 6
    wanted = [
        images[0][:, :3], images[1][:, 7:], images[2][:6], images[3][:, :3], images[4][:, 7:], images[5][14:]
    ]  # fmt: skip
    for number in range(6):
        strip = strips[number : number + 1].draw(np.random.default_rng(0))
        assert np.array_equal(strip.colour, wanted[number])
        assert (strip.alpha == 255).all()
        assert strip.identity == str(number)
    transform = make_transform(Component(type="npo", options={"kinds": ["strips"]}), strips=lambda: strips)
    assert isinstance(transform, Npo)
    assert all(transform.occluders.draw(np.random.default_rng(seed), "2").identity != "2" for seed in range(60))
    with pytest.raises(ShapeError, match="6 images need as many identities; got 1"):
        Occluders.strips(images, ["1"])
    with pytest.raises(DataError, match="nothing to occlude with"):
        Occluders.strips([])


def test_nobody_is_occluded_by_himself() -> None:
    shades = {str(n): 40 * n + 40 for n in range(4)}
    people = Occluders.pedestrians(
        [np.full((30, 10, 3), shade, dtype=np.uint8) for shade in shades.values()],
        [np.ones((30, 10))] * 4,
        list(shades),
    )
    transform = make_transform(Component(type="npo", options={"kinds": ["pedestrians"]}), people=lambda: people)
    for who, shade in shades.items():
        seen = {
            int(transform(View(black(), identity=who), np.random.default_rng(seed)).image.max()) for seed in range(60)
        }
        assert seen == set(shades.values()) - {shade}
    alone = people[:1]
    with pytest.raises(DataError, match="show identity '0', who is to be occluded"):
        paste_npo(black(), alone, np.random.default_rng(0), identity="0")


def test_stocks_are_made_only_if_asked_for() -> None:
    def never() -> Occluders:
        raise AssertionError("a stock was made without being asked for")

    make_transform(Component(type="npo"), people=never, strips=never)


def test_repeats_itself_from_the_generator_and_after_pickling() -> None:
    transform = make(kinds=["generated"], patches=7)
    copied = pickle.loads(pickle.dumps(transform))  # noqa: S301 - what spawned workers do
    view = View(black())
    for index in range(5):
        one, two = (t(view, sample_generator(1, 2, index)) for t in (transform, copied))
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.occlusion, two.occlusion)


def test_refused(tmp_path: Path) -> None:
    empty = str(tmp_path)
    with pytest.raises(DataError, match=r"holds no cut-outs. Put pictures of what stands in front of people: PNG"):
        make(kinds=["folder"], folders=[empty])
    with pytest.raises(DataError, match=r"nowhere' is no folder. Give a folder of cut-outs: pictures of what"):
        make(kinds=["folder"], folders=[str(tmp_path / "nowhere")])
    save(tmp_path / "one", "a.jpg")
    with pytest.raises(DataError, match="nothing to occlude with"):
        make(kinds=["folder"], folders=[str(tmp_path / "one")], take="odd")
    with pytest.raises(DataError, match="holds no cut-outs"):
        Occluders.from_folder(tmp_path / "one")  # crops are not asked for
    (tmp_path / "one" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"a\.jpg' cannot be read"):
        make(kinds=["folder"], folders=[str(tmp_path / "one")])
    for options in ({"kinds": ["folder"]}, {"folders": [empty]}, {"kinds": []}):
        with pytest.raises(RecipeError, match="folders exactly if 'folder' is among them"):
            make(**options)
    with pytest.raises(RecipeError, match=r"'npo': 'pedestrians' are cut out with part masks"):
        make(kinds=["pedestrians"])
    with pytest.raises(RecipeError, match="only a loader has them"):
        make(kinds=["strips"])
    with pytest.raises(RecipeError, match=r"size is \(0.5, 0.25\)"):
        make(size=(0.5, 0.25))
    for options in ({"mask": "soft"}, {"patches": 0}, {"jitter": -0.1}, {"size": (0.2, 1.2)}, {"kinds": ["people"]}):
        with pytest.raises(UnknownOptionError, match=f"'{next(iter(options))}' was given"):
            make(**options)
    good = Occluders.generated(0, 6)
    with pytest.raises(ShapeError, match="paste_npo wants an image"):
        paste_npo(black()[..., 0], good, np.random.default_rng(0))
    for size, above, jitter in (((0.5, 0.2), 2.0, 0.0), ((0.2, 1.5), 2.0, 0.0), ((0.2, 0.5), -1.0, 0.0)):
        with pytest.raises(ShapeError, match="two shares in"):
            paste_npo(black(), good, np.random.default_rng(0), size=size, vertical_above=above, jitter=jitter)
    for count, seed in ((0, 0), (3, -1)):
        with pytest.raises(DataError, match="a count of 1 or more"):
            good.at_most(count, seed)
