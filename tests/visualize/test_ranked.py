import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import ShapeError
from occluded_reid.visualize import RankedItem, RankedQuery, ranked_list, ranked_lists
from occluded_reid.visualize.colors import GREEN, GREY, RED

PERSON = np.full((64, 32, 3), (90, 60, 20), np.uint8)


def full_columns(picture, color):
    """Runs of columns in which `color` fills the height of an image: the upright sides of a frame."""
    high = (np.asarray(picture) == color).all(-1).sum(0)
    return np.flatnonzero(high >= 208)


def test_frames_tell_right_wrong_and_unknown_in_order():
    hits = [RankedItem(PERSON, 0.1, correct=c) for c in (True, False, None)]
    picture = ranked_list(PERSON, hits)
    green, red, grey = (full_columns(picture, c) for c in (GREEN, RED, GREY))
    assert [len(side) for side in (green, red, grey)] == [8, 8, 8]  # two sides of 4 pixels each
    assert green.max() < red.min() < red.max() < grey.min()
    assert green.max() - green.min() == red.max() - red.min() == 111
    pixels = np.asarray(picture)
    rows = np.flatnonzero((pixels[:, green.min()] == GREEN).all(-1))
    assert rows[-1] - rows[0] == 215  # image and frame
    assert (pixels[rows[0] : rows[0] + 4, green.min() + 20 : green.max()] == GREEN).all()
    assert (pixels[rows[0] + 40 : rows[0] + 200, green.min() + 4 : green.max() - 3] == PERSON[0, 0]).all()


def test_signs_differ_where_colors_are_not_seen():
    def inner(correct):
        picture = np.asarray(ranked_list(PERSON, [RankedItem(PERSON, 0.1, correct=correct)]))
        color = {True: GREEN, False: RED, None: GREY}[correct]
        left = full_columns(Image.fromarray(picture), color).min()
        top = np.flatnonzero((picture[:, left] == color).all(-1))[0]
        badge = picture[top : top + 16, left : left + 16].astype(int)
        return (np.abs(badge - color).sum(-1) > 100).astype(int)

    right, wrong, unknown = inner(True), inner(False), inner(None)
    assert right.any()
    assert wrong.any()
    assert unknown.any()
    assert (right != wrong).any()
    assert (wrong != unknown).any()


def test_same_input_gives_the_same_bytes():
    visibility = {"global": 1.0, "part_1": 0.4, "part_2": 0.0}
    hits = [RankedItem(PERSON, 0.25, True, "7", 2, visibility, dict.fromkeys(visibility, 0.5))] * 12
    mask = np.ones((4, 2), np.uint8)

    def draw():
        return ranked_list(PERSON, hits, query_visibility=visibility, query_mask=mask, title="x")

    assert draw().tobytes() == draw().tobytes()


@pytest.mark.parametrize("width", [480, 700, 1500])
@pytest.mark.parametrize("count", [0, 1, 10, 37])
def test_width_is_bounded_and_all_hits_are_there(width, count):
    hits = [RankedItem(PERSON, 0.1, correct=True)] * count
    picture = ranked_list(
        PERSON, hits, width=width, image_height=96, query_visibility={"part_1": 0.0}, title="t " * 900
    )
    assert picture.width <= width
    pixels = np.asarray(picture)
    if count == 0:
        assert not (pixels == GREEN).all(-1).any()
        return
    # Every frame has a lowest edge of 4 rows that is as long as the frame is wide.
    columns = full_frames(pixels, 56)
    assert columns == count


def full_frames(pixels, across):
    """Count frames by their lower left corners: a run of `across` green pixels with none below it."""
    green = (pixels == GREEN).all(-1)
    count = 0
    for row in range(pixels.shape[0] - 1):
        bottom = green[row] & ~green[row + 1]
        edges = np.flatnonzero(np.diff(np.concatenate(([0], bottom.astype(int), [0]))))
        count += sum(stop - start == across for start, stop in zip(edges[::2], edges[1::2], strict=True))
    return count


def test_shared_visibility_changes_the_bars():
    def draw(share):
        return ranked_list(PERSON, [RankedItem(PERSON, 0.1, shared={"global": 1.0, "part_1": share})])

    assert draw(0.0).size == draw(1.0).size
    assert draw(0.0).tobytes() != draw(1.0).tobytes()
    assert draw(0.5).tobytes() != draw(1.0).tobytes()


def test_several_queries_stand_below_each_other():
    one = ranked_lists([RankedQuery(PERSON, [RankedItem(PERSON, 0.1, True)])])
    three = ranked_lists([RankedQuery(PERSON, [RankedItem(PERSON, 0.1, True)])] * 3)
    assert three.width == one.width
    assert three.height > 2.5 * (one.height - 50)
    assert full_frames(np.asarray(three), 112) == 3


def test_odd_images_labels_and_slots():
    slots = {f"slot {n} ö": 0.5 for n in range(40)}
    hits = [
        RankedItem(Image.new("CMYK", (1, 1)), float("inf"), None, "<script>" * 4000, 10**12, slots, slots),
        RankedItem(np.zeros((1, 500), np.uint8), 1e30, True, "", None, {}, {"global": -1.0}),
    ]
    picture = ranked_lists(
        [RankedQuery(PERSON, hits, slots, None, 8, "人" * 500, 3), RankedQuery(PERSON, [])], width=480
    )
    assert picture.width <= 480


def test_no_queries_still_give_a_picture():
    assert ranked_lists([]).width > 100


def test_wrong_sizes_and_shares_are_refused():
    with pytest.raises(ShapeError, match="width is 100"):
        ranked_list(PERSON, [], width=100)
    with pytest.raises(ShapeError, match="image_height 5000"):
        ranked_list(PERSON, [], image_height=5000)
    with pytest.raises(ShapeError, match=r"'part_1' is 1\.5"):
        ranked_list(PERSON, [RankedItem(PERSON, 0.1, shared={"part_1": 1.5})])
    with pytest.raises(ShapeError, match="image of hit 2"):
        ranked_list(PERSON, [RankedItem(PERSON, 0.1), RankedItem(np.zeros((2, 2)), 0.1)])


def test_a_hit_from_far_down_says_its_rank_and_stands_apart():
    def frames(rank):
        hits = [RankedItem(PERSON, 0.1, correct=False)] * 3 + [RankedItem(PERSON, 0.9, correct=True, rank=rank)]
        picture = ranked_list(PERSON, hits)
        return picture, full_columns(picture, RED).max(), full_columns(picture, GREEN).min()

    beside, red, green = frames(None)
    assert green - red == 9  # the gap
    apart, far_red, far_green = frames(589)
    assert far_red == red
    assert far_green - far_red == 27
    assert apart.width == beside.width + 18
    dots = np.asarray(apart)[:, far_red + 1 : far_green]
    assert (dots < 200).any(), "dots say that hits are left out"
    assert np.asarray(frames(4)[0]).tobytes() != np.asarray(apart).tobytes()


@pytest.mark.parametrize("width", [480, 700, 1500])
def test_hits_from_far_down_keep_the_width(width):
    hits = [RankedItem(PERSON, 0.1, correct=True)] * 10 + [RankedItem(PERSON, 0.1, correct=True, rank=999)] * 2
    picture = ranked_list(PERSON, hits, width=width, image_height=96, query_visibility={"part_1": 0.0})
    assert picture.width <= width
    assert full_frames(np.asarray(picture), 56) == 12


def test_a_note_stands_above_its_row():
    hits = [RankedItem(PERSON, 0.1, correct=True)]
    bare, noted = (np.asarray(ranked_lists([RankedQuery(PERSON, hits, note=note)])) for note in ("", "AP 3 %"))
    more = noted.shape[0] - bare.shape[0]
    assert 13 < more < 30
    assert (noted[16 + more :] == bare[16:]).all()
    assert (noted[16 : 16 + more] < 200).any()
    long = ranked_lists([RankedQuery(PERSON, hits, note="a very long name " * 200)])
    assert long.width == noted.shape[1]
