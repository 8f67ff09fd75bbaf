"""Label tables against the lists of the SPEC, typed here once more, and mirrors against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occluded_reid.errors import MaskError, UnknownNameError
from occluded_reid.parsing import (
    LABEL_SETS,
    flip_labels,
    flip_order,
    label_table,
    map_labels,
    mapping_notes,
    missing_classes,
    region_classes,
)

# Class of sorn8 -> classes of the source.
BODY = {
    "lip20": {
        0: [0],
        1: [1, 2, 4, 13],
        2: [5, 6, 7, 10, 11],
        3: [14, 15],
        4: [3],
        5: [9, 12],
        6: [16, 17],
        7: [8, 18, 19],
    },
    "atr18": {0: [0, 16], 1: [1, 2, 3, 11], 2: [4, 7, 8, 17], 3: [14, 15], 4: [], 5: [5, 6], 6: [12, 13], 7: [9, 10]},
    "pascal7": {0: [0], 1: [1], 2: [2], 3: [3], 4: [4], 5: [5], 6: [6], 7: []},
    "densepose14": {0: [0], 1: [14], 2: [1], 3: [10, 11], 4: [12, 13, 2, 3], 5: [6, 7], 6: [8, 9], 7: [4, 5]},
    "densepose24": {
        **{0: [0], 1: [23, 24], 2: [1, 2], 3: [15, 16, 17, 18], 4: [19, 20, 21, 22, 3, 4]},
        **{5: [7, 8, 9, 10], 6: [11, 12, 13, 14], 7: [5, 6]},
    },
    "bodypix24": {
        **{0: [0], 1: [1, 2], 2: [13, 14], 3: [3, 4, 5, 6], 4: [7, 8, 9, 10, 11, 12]},
        **{5: [15, 16, 17, 18], 6: [19, 20, 21, 22], 7: [23, 24]},
    },
    "sorn8": {k: [k] for k in range(8)},
}
# Region of SGAM -> classes of the source.
REGIONS = {
    "lip20": {1: [1, 2, 4, 13], 2: [3, 5, 6, 7, 10, 11, 14, 15], 3: [9, 12, 16, 17], 4: [8, 18, 19]},
    "atr18": {1: [1, 2, 3, 11], 2: [4, 7, 8, 14, 15, 17], 3: [5, 6, 12, 13], 4: [9, 10]},
    "pascal7": {1: [1], 2: [2, 3, 4], 3: [5, 6], 4: []},
    "densepose14": {1: [14], 2: [1, 2, 3, 10, 11, 12, 13], 3: [6, 7, 8, 9], 4: [4, 5]},
    "sorn8": {1: [1], 2: [2, 3, 4], 3: [5, 6], 4: [7]},
}
FIVE = {0: [0], 1: [1], 2: [2], 3: [3, 4], 4: [5, 6, 7]}


def naive(labels, lists):
    out = np.full(labels.shape, -1)
    for place in np.ndindex(labels.shape):
        for target, members in lists.items():
            if int(labels[place]) in members:
                assert out[place] == -1, "a class goes to one place only"
                out[place] = target
    return out


def every_class(source):
    return np.arange(LABEL_SETS[source].classes, dtype=np.uint8)


@pytest.mark.parametrize("source", BODY)
def test_tables_to_the_body_parts(source):
    ids = every_class(source)
    eight = naive(ids, BODY[source])
    assert (eight >= 0).all(), "every class goes somewhere"
    np.testing.assert_array_equal(map_labels(ids, source, "sorn8"), eight)
    np.testing.assert_array_equal(map_labels(ids, source, "sorn5"), naive(eight, FIVE))
    np.testing.assert_array_equal(map_labels(ids, source, "sorn2"), eight > 0)


@pytest.mark.parametrize("source", REGIONS)
def test_tables_to_the_regions_of_sgam(source):
    ids = every_class(source)
    used = [k for members in REGIONS[source].values() for k in members]
    rest = {0: [int(k) for k in ids if k not in used]}
    np.testing.assert_array_equal(map_labels(ids, source, "sgam5"), naive(ids, {**REGIONS[source], **rest}))
    names = ("head", "upper_body", "lower_body", "shoes")
    expected = {names[k - 1]: tuple(sorted(members)) for k, members in REGIONS[source].items()}
    assert region_classes(source) == expected


@pytest.mark.parametrize("source", LABEL_SETS)
@pytest.mark.parametrize("target", ["sorn8", "sorn5", "sorn2", "sgam5", "lip20"])
def test_every_class_goes_to_exactly_one_class_of_the_target(source, target):
    merged = {"sorn5": {"sorn2", "sgam5"}, "sorn2": set(), "sgam5": {"sorn2"}}
    reached = merged.get(source, {"sorn8", "sorn5", "sorn2", "sgam5"}) | {source}
    if target not in reached:
        with pytest.raises(MaskError, match="merged classes cannot be split"):
            label_table(source, target)
        return
    table = label_table(source, target)
    known = LABEL_SETS[source].classes
    assert table.shape == (256,)
    assert table.dtype == np.uint8
    assert (table[:known] < LABEL_SETS[target].classes).all()
    assert (table[known:] == 255).all()
    assert table[0] == 0


def test_a_table_to_itself_changes_nothing():
    for name, known in LABEL_SETS.items():
        np.testing.assert_array_equal(label_table(name, name)[: known.classes], np.arange(known.classes))


def test_options_move_clothes():
    assert map_labels(np.array(16), "atr18", "sorn8") == 0
    assert map_labels(np.array(16), "atr18", "sorn8", bag="torso") == 2
    assert map_labels(np.array(16), "atr18", "sorn2", bag="torso") == 1
    assert map_labels(np.array(8), "lip20", "sgam5") == 4
    assert map_labels(np.array(8), "lip20", "sgam5", socks="lower_leg") == 3
    assert map_labels(np.array([11]), "lip20", "sorn8", scarf="head") == 1
    assert map_labels(np.array([17]), "atr18", "sgam5", scarf="head") == 1
    assert region_classes("lip20", socks="lower_leg", scarf="head")["lower_body"] == (8, 9, 12, 16, 17)
    assert map_labels(np.array([11]), "lip20", "sorn8", bag="background") == 2, "a default says nothing"


def test_options_that_cannot_be():
    with pytest.raises(MaskError, match="'lip20' has no class 'bag' to move"):
        label_table("lip20", "sorn8", bag="torso")
    with pytest.raises(MaskError, match=r"'bag' was given 'hat'; wanted one of 'background', 'torso'"):
        label_table("atr18", "sorn8", bag="hat")
    with pytest.raises(MaskError, match=r"no option 'sock'.*Did you mean 'socks'"):
        label_table("lip20", "sorn8", sock="foot")


def test_a_class_outside_of_the_source_is_named():
    with pytest.raises(MaskError, match=r"holds class 7, 9, which 'pascal7' does not have \(0 … 6\)"):
        map_labels(np.array([[0, 7], [9, 1]]), "pascal7", "sorn8")
    with pytest.raises(MaskError, match="holds class -1"):
        map_labels(np.array([-1]), "pascal7", "sorn8")
    with pytest.raises(MaskError, match="holds float64"):
        map_labels(np.zeros((2, 2)), "pascal7", "sorn8")
    with pytest.raises(UnknownNameError, match="Did you mean 'lip20'"):
        map_labels(np.zeros((2, 2), int), "lip", "sorn8")


def test_what_a_source_cannot_give():
    assert missing_classes("pascal7", "sorn8") == ("foot",)
    assert missing_classes("pascal7", "sorn5") == ()
    assert missing_classes("atr18", "sorn8") == ("lower arm",)
    assert any("does not split arms" in note for note in mapping_notes("lip20", "sorn8"))
    assert mapping_notes("densepose24", "sorn8") == ()
    assert "upper_body down to the hem" in mapping_notes("lip20", "sgam5")[-1]
    assert mapping_notes("sorn5", "sgam5")[0] == "sorn5 gives no 'shoes': that class stays empty"


def side(name):
    return "left" if name.startswith("left ") else "right" if name.startswith("right ") else None


@pytest.mark.parametrize("name", LABEL_SETS)
def test_the_mirror_swaps_left_and_right_names(name):
    """Found from the names alone: whatever is left becomes what is called the same on the right."""
    names = LABEL_SETS[name].names
    other = {"left": "right", "right": "left"}
    for k, partner in enumerate(flip_order(name)):
        expected = names[k]
        if side(names[k]):
            expected = names[k].replace(side(names[k]), other[side(names[k])], 1)
        assert names[partner] == expected


@given(st.sampled_from(sorted(LABEL_SETS)), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_flipping_twice_changes_nothing(name, height, width, seed):
    labels = np.random.default_rng(seed).integers(0, LABEL_SETS[name].classes, (2, height, width), dtype=np.uint8)
    flipped = flip_labels(labels, name)
    assert flipped.dtype == np.uint8
    np.testing.assert_array_equal(flip_labels(flipped, name), labels)
    order = flip_order(name)
    for i, r, c in np.ndindex(labels.shape):
        assert flipped[i, r, width - 1 - c] == order[labels[i, r, c]]


def test_a_mirror_refuses_other_classes():
    with pytest.raises(MaskError, match="holds class 20"):
        flip_labels(np.array([[20]]), "lip20")


PAGE = Path(__file__).parents[2] / "docs" / "parsing.md"


@pytest.mark.parametrize("target", ["sorn8", "sgam5"])
def test_the_page_shows_the_tables(target):
    lines = PAGE.read_text(encoding="utf-8").split(f"<!-- label tables: {target} -->")[1].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rows = rows[: LABEL_SETS[target].classes + 2]
    assert rows[0][0] == target
    for number, row in enumerate(rows[2:]):
        assert row[0] == f"{number} {LABEL_SETS[target].names[number]}"
        for source, cell in zip(rows[0][1:], row[1:], strict=True):
            given = [] if cell == "–" else [int(text) for text in cell.split(",")]
            assert given == np.flatnonzero(label_table(source, target) == number).tolist(), (source, number)
