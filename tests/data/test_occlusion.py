"""Occlusion covers the share that was asked for, at random places, and repeats itself from a seed."""

import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from occluded_reid.data.occlusion import KINDS, Occluders, occlude
from occluded_reid.data.occlusion.pins import PLACES, Place
from occluded_reid.errors import DataError, ImageError, ShapeError

HEIGHT, WIDTH = 96, 40
THINGS = Occluders.generated(3, count=24)


def body_of(number: int) -> np.ndarray:
    """A head and a trunk, somewhere, of some size."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    top, x, half = random.integers(4, 20), random.integers(14, 26), random.integers(5, 10)
    head = (rows - top - 6) ** 2 + (columns - x) ** 2 < 36
    return head | ((rows > top + 10) & (rows < HEIGHT - random.integers(2, 12)) & (abs(columns - x) < half))


def picture_of(number: int) -> np.ndarray:
    return np.random.default_rng([number, 1]).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def people() -> Occluders:
    numbers = range(50, 58)
    return Occluders.pedestrians(
        [picture_of(n) for n in numbers], [body_of(n) for n in numbers], [str(n) for n in numbers]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("cutouts")
    rows, columns = np.mgrid[:60, :90]
    for number, name in enumerate("cab"):
        pixels = np.full((60, 90, 4), 40 * number + 20, dtype=np.uint8)
        pixels[..., 3] = 255 * ((rows - 30) ** 2 / 900 + (columns - 45) ** 2 / 1600 < 1)
        Image.fromarray(pixels).save(root / f"{name}.png")
    (root / "licence.txt").write_text("mine")
    return root


@pytest.mark.parametrize("fraction", [0.2, 0.35, 0.5, 0.8])
def test_covers_the_share_that_was_asked_for(fraction: float, people: Occluders, folder) -> None:
    occluders = Occluders.generated(3, count=24) + people + Occluders.from_folder(folder)
    shares, centres, kinds = [], [], set()
    for number in range(60):
        image, body = picture_of(number), body_of(number)
        result = occlude(image, body, fraction, occluders, np.random.default_rng(number))
        covered = sum(bool(result.mask[y, x]) for y, x in zip(*np.nonzero(body), strict=True)) / np.count_nonzero(body)
        assert result.fraction == pytest.approx(covered, abs=1e-12)
        shares.append(covered)
        centres.append(np.argwhere(result.mask).mean(0) / (HEIGHT, WIDTH))
        kinds.add(result.kind)
    assert np.abs(np.array(shares) - fraction).max() <= 0.03
    assert np.abs(np.array(shares) - fraction).mean() < 0.01
    if fraction <= 0.5:  # what covers most of the body has little choice of place
        assert np.std(centres, axis=0).min() > 0.08
    assert {"pedestrian"} < kinds
    assert kinds & {"a", "b", "c"}
    assert kinds & set(KINDS)


def test_covers_upper_and_lower_edges_off_the_stripes() -> None:
    edges = []
    for number in range(40):
        result = occlude(picture_of(1), body_of(1), 0.3, Occluders.generated(0, 24), np.random.default_rng(number))
        rows = np.flatnonzero(result.mask.any(1))
        edges += [row for row in (int(rows[0]), int(rows[-1]) + 1) if 0 < row < HEIGHT]
    aligned = np.mean([edge % (HEIGHT // 3) == 0 for edge in edges])
    assert len(set(edges)) > 20
    assert aligned < 0.2


def test_the_picture_changes_under_the_occluder_only() -> None:
    image, body = picture_of(2), body_of(2)
    before = image.copy()
    result = occlude(image, body, 0.4, Occluders.generated(0, 24), np.random.default_rng(5))
    assert np.array_equal(image, before)
    changed = (result.image != image).any(2)
    assert changed[result.mask].mean() > 0.95
    reach = np.pad(result.mask, 4)
    near = np.max([reach[4 + y : 4 + y + HEIGHT, 4 + x : 4 + x + WIDTH] for y in range(-4, 5) for x in range(-4, 5)], 0)
    assert not changed[~near].any()  # beyond the soft edge nothing is touched


def test_repeats_itself_from_the_generator_and_after_pickling() -> None:
    occluders = Occluders.generated(7, 12)
    copied = pickle.loads(pickle.dumps(occluders))  # noqa: S301 - what spawned workers do
    first, again, other = (
        occlude(picture_of(0), body_of(0), 0.35, stock, np.random.default_rng(seed))
        for stock, seed in ((occluders, 1), (copied, 1), (occluders, 2))
    )
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.mask, other.mask)


def test_other_seeds_draw_other_shapes() -> None:
    first, again, other = (Occluders.generated(seed, 6).draw(np.random.default_rng(0)) for seed in (1, 1, 2))
    assert np.array_equal(first.colour, again.colour)
    assert first.colour.shape != other.colour.shape or not np.array_equal(first.colour, other.colour)


def test_nothing_of_the_body_to_cover() -> None:
    nothing = occlude(picture_of(0), body_of(0), 0.0, Occluders.generated(0, 6), np.random.default_rng(0))
    assert np.array_equal(nothing.image, picture_of(0))
    assert (nothing.fraction, nothing.kind, nothing.mask.any()) == (0.0, "nothing", False)


def test_anywhere_draws_bit_by_bit_as_it_always_did(people: Occluders) -> None:
    """Published numbers were measured with these draws; the hash was taken before other places were added."""
    digest = hashlib.sha256()
    occluders = Occluders.generated(3, count=12) + people
    for number in range(12):
        for fraction in (0.1, 0.35, 0.7):
            generator = np.random.default_rng([number, 5])
            found = occlude(picture_of(number), body_of(number), fraction, occluders, generator, identity="52")
            digest.update(found.mask.tobytes() + found.image.tobytes() + found.kind.encode())
    assert digest.hexdigest() == "7b9aae36f9d0d7ac6b96de5abf242cf4582968a075f8c5a4cac2f5bdd50724db"


@pytest.mark.parametrize("fraction", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("place", PLACES)
def test_every_place_covers_the_share_that_was_asked_for(
    place: Place, fraction: float, people: Occluders, folder
) -> None:
    occluders = Occluders.generated(3, count=24) + people + Occluders.from_folder(folder)
    shares = []
    for number in range(30):
        image, body = picture_of(number), body_of(number)
        found = occlude(image, body, fraction, occluders, np.random.default_rng(number), place=place)
        again = occlude(image, body, fraction, occluders, np.random.default_rng(number), place=place)
        assert np.array_equal(found.image, again.image)
        shares.append(np.count_nonzero(found.mask & body) / np.count_nonzero(body))
        assert found.fraction == pytest.approx(shares[-1], abs=1e-12)
    assert np.abs(np.array(shares) - fraction).max() <= 0.03


def touched(mask: np.ndarray) -> set[str]:
    """The borders of the picture that a mask touches."""
    edges = {"top": mask[0], "bottom": mask[-1], "left": mask[:, 0], "right": mask[:, -1]}
    return {name for name, edge in edges.items() if edge.any()}


@pytest.mark.parametrize("place", ["bottom", "top", "side"])
def test_an_occluder_is_pinned_to_its_border_and_grows_from_there(place: Place, folder) -> None:
    """Of crates, discs, poles and the folder's ellipses the mask is one piece, and the larger holds the smaller."""
    shapes = Occluders.generated(3, count=24)
    solid = shapes[::6] + shapes[1::6] + shapes[3::6] + Occluders.from_folder(folder)
    inside, edges = [], []
    for number in range(40):
        image, body = picture_of(number), body_of(number)
        small, large = (
            occlude(image, body, fraction, solid, np.random.default_rng(number), place=place).mask
            for fraction in (0.15, 0.45)
        )
        for mask in (small, large):
            assert ndimage.label(mask)[1] == 1
            assert touched(mask) & ({"left", "right"} if place == "side" else {place})
        inside.append(np.count_nonzero(small & large) / np.count_nonzero(small))
        edges.append(touched(small))
        rows, columns = (axis.mean() for axis in np.nonzero(small))
        if place == "side":
            assert columns < WIDTH / 2 if "left" in touched(small) else columns > WIDTH / 2
        else:
            assert rows > HEIGHT / 2 if place == "bottom" else rows < HEIGHT / 2
    assert np.mean(np.array(inside) > 0.9) > 0.85  # but for those that could not grow so far, and were replaced
    if place == "side":
        assert {"left", "right"} <= set().union(*edges)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(14, 80), st.integers(10, 36)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    fraction=st.floats(0.05, 0.7),
    place=st.sampled_from(["bottom", "side", "top"]),
    seed=st.integers(0, 2**31),
)
def test_a_body_anywhere_in_the_picture_is_reached_from_every_border(size, corner, fraction, place, seed) -> None:
    top, left = (round(share * (room - side)) for share, room, side in zip(corner, (HEIGHT, WIDTH), size, strict=True))
    body = np.zeros((HEIGHT, WIDTH), dtype=bool)
    body[top : top + size[0], left : left + size[1]] = True
    found = occlude(picture_of(0), body, fraction, THINGS, np.random.default_rng(seed), place=place)
    assert abs(np.count_nonzero(found.mask & body) / np.count_nonzero(body) - fraction) <= 0.03
    assert touched(found.mask) & ({"left", "right"} if place == "side" else {place})


def test_at_a_border_an_occluder_covers_a_side_of_the_body_rather_than_its_middle() -> None:
    hidden = {place: np.zeros((HEIGHT, WIDTH)) for place in PLACES}
    for place, sums in hidden.items():
        for number in range(40):
            body = np.zeros((HEIGHT, WIDTH), dtype=bool)
            body[8:88, 8:32] = True
            generator = np.random.default_rng(number)
            sums += occlude(picture_of(0), body, 0.5, Occluders.generated(1, 24), generator, place=place).mask
    rows = {place: sums[8:88, 8:32].mean(1) / 40 for place, sums in hidden.items()}
    assert rows["bottom"][-20:].mean() > 0.8 > 0.3 > rows["bottom"][:20].mean()
    assert rows["top"][:20].mean() > 0.8 > 0.3 > rows["top"][-20:].mean()
    columns = hidden["side"][8:88, 8:32].mean(0) / 40
    assert abs(columns[:8].mean() - columns[-8:].mean()) < 0.3, "from the left as often as from the right"


def test_what_is_thin_at_the_border_is_pushed_out_over_it() -> None:
    umbrellas = Occluders.generated(3, count=24)[5::6]
    for number in range(12):
        mask = occlude(
            picture_of(0), body_of(number), 0.3, umbrellas, np.random.default_rng(number), place="bottom"
        ).mask
        assert np.count_nonzero(mask[-1]) >= 0.2 * mask.sum(1).max(), "not the stick, which is 3 % of the rim"


def test_someone_standing_is_as_tall_as_the_picture_and_comes_in_from_both_sides(people: Occluders) -> None:
    came, centres = [], {0.15: [], 0.4: []}
    for number in range(40):
        for fraction, seen in centres.items():
            mask = occlude(
                picture_of(number), body_of(number), fraction, people, np.random.default_rng(number), place="standing"
            ).mask
            rows = np.flatnonzero(mask.any(1))
            assert rows[-1] >= HEIGHT - 4
            assert len(rows) > 0.75 * HEIGHT
            seen.append(float(np.nonzero(mask)[1].mean()))
        came.append("left" if centres[0.15][-1] < WIDTH / 2 else "right")
    assert 10 <= came.count("left") <= 30
    nearer = [abs(b - WIDTH / 2) < abs(a - WIDTH / 2) for a, b in zip(*centres.values(), strict=True)]
    assert np.mean(nearer) > 0.8, "he covers more by coming further in"


def test_an_empty_body_stands_for_the_whole_picture() -> None:
    empty = np.zeros((HEIGHT, WIDTH), dtype=bool)
    result = occlude(picture_of(0), empty, 0.3, Occluders.generated(0, 6), np.random.default_rng(0))
    assert result.fraction == pytest.approx(result.mask.mean())
    assert abs(result.fraction - 0.3) <= 0.03


def test_a_body_too_small_gets_the_nearest_share_and_says_so() -> None:
    body = np.zeros((HEIGHT, WIDTH), dtype=bool)
    body[40, 20:23] = True
    result = occlude(picture_of(0), body, 0.5, Occluders.generated(0, 6), np.random.default_rng(0))
    assert result.fraction in (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_nobody_is_occluded_by_himself(people: Occluders) -> None:
    for seed in range(30):
        assert people.draw(np.random.default_rng(seed), "52").identity != "52"
    alone = Occluders.pedestrians([picture_of(0)], [body_of(0)], ["7"])
    with pytest.raises(DataError, match="all cut-outs of 'pedestrians' show identity '7'"):
        alone.draw(np.random.default_rng(0), "7")


def test_a_folder_is_read_in_order_and_can_be_halved(folder) -> None:
    occluders = Occluders.from_folder(folder)
    assert len(occluders) == 3
    generators = [np.random.default_rng(seed) for seed in range(40)]
    assert {occluders[::2].draw(g).kind for g in generators} == {"a", "c"}
    assert {occluders[1::2].draw(g).kind for g in generators} == {"b"}
    assert occluders.description == f"folder {folder.name} (3)"
    assert Occluders.generated(0, 12)[1::2].draw(np.random.default_rng(0)).kind in KINDS[1::2]


@pytest.mark.parametrize("ground", [0, 255])
def test_pastes_its_own_colour_and_nothing_of_its_surrounding(tmp_path, ground: int) -> None:
    pixels = np.full((64, 64, 4), (255, 0, 0, 0), dtype=np.uint8)  # red where it is transparent
    rows, columns = np.mgrid[:64, :64]
    pixels[(rows - 32) ** 2 + (columns - 32) ** 2 < 900] = (0, 0, 200, 255)
    Image.fromarray(pixels).save(tmp_path / "blue.png")
    plain = np.full((HEIGHT, WIDTH, 3), ground, dtype=np.uint8)
    for seed in range(5):
        result = occlude(plain, body_of(0), 0.3, Occluders.from_folder(tmp_path), np.random.default_rng(seed))
        lit = result.image[result.mask]
        assert (np.abs(lit - np.median(lit, axis=0)).max(1) <= 2).mean() > 0.7  # inside, away from the soft edge
        assert np.median(lit, axis=0)[:2].tolist() == [0, 0]
        assert 145 <= np.median(lit, axis=0)[2] <= 255
        if ground == 0:
            assert result.image[..., 0].max() == 0


def test_bad_input(tmp_path) -> None:
    with pytest.raises(DataError, match="holds no cut-outs"):
        Occluders.from_folder(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        Occluders.from_folder(tmp_path / "nowhere")
    Image.new("RGB", (8, 8)).save(tmp_path / "solid.png")
    with pytest.raises(DataError, match=r"solid\.png' has no transparency \(mode RGB\)"):
        Occluders.from_folder(tmp_path)
    (tmp_path / "solid.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ImageError, match=r"solid\.png' cannot be read"):
        Occluders.from_folder(tmp_path)
    Image.new("RGBA", (8, 8)).save(tmp_path / "solid.png")
    with pytest.raises(DataError, match="transparent everywhere"):
        Occluders.from_folder(tmp_path)
    with pytest.raises(DataError, match="nothing to occlude with"):
        Occluders.generated(0, 1)[5:]
    with pytest.raises(DataError, match="must not be negative"):
        Occluders.generated(-1)
    with pytest.raises(DataError, match="none of 1 pictures"):
        Occluders.pedestrians([picture_of(0)], [np.zeros((HEIGHT, WIDTH), dtype=bool)])
    with pytest.raises(ShapeError, match="need as many masks"):
        Occluders.pedestrians([picture_of(0)], [])
    with pytest.raises(ShapeError, match="of one size"):
        Occluders.pedestrians([picture_of(0)], [body_of(0)[1:]])
    good = Occluders.generated(0, 6)
    with pytest.raises(ShapeError, match=r"must lie in \[0, 1\]; got 35"):
        occlude(picture_of(0), body_of(0), 35, good, np.random.default_rng(0))
    with pytest.raises(ShapeError, match=r"no place 'botom' to occlude from; choose one of anywhere, bottom, side"):
        occlude(picture_of(0), body_of(0), 0.3, good, np.random.default_rng(0), place="botom")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="wants an image"):
        occlude(picture_of(0), body_of(0)[1:], 0.3, good, np.random.default_rng(0))
