"""Proposed occluders: pieces of pictures that hold nobody, by a mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from occluded_reid.config import Component
from occluded_reid.data.occlusion import propose_occluders
from occluded_reid.data.occlusion.propose import _free, _grown, propose_box
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.data.transforms import make_transform
from occluded_reid.errors import DataError, MaskError

SIZE = SyntheticOptions(train_identities=6, test_identities=2, cameras=2, distractors=0, width=32, height=96)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("drawn") / "people", SIZE)


def write(folder: Path, name: str, body: np.ndarray, seed: int = 0) -> None:
    """A picture of noise, with 255 in all channels on the body alone; and its mask."""
    pixels = np.random.default_rng(seed).integers(0, 200, (*body.shape, 3), dtype=np.uint8)
    pixels[body > 0] = 255
    for kind, array in (("images", pixels), ("masks", body.astype(np.uint8))):
        path = folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def standing(height: int = 64, width: int = 32, left: int = 10, right: int = 20) -> np.ndarray:
    body = np.zeros((height, width), np.uint8)
    body[8:60, left:right] = 3
    return body


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_free_places_and_the_grown_body_are_loops(rows, columns, high, wide, radius, seed):
    body = np.random.default_rng(seed).random((rows, columns)) < 0.1
    grown = _grown(body, radius)
    for r in range(rows):
        for c in range(columns):
            near = body[max(r - radius, 0) : r + radius + 1, max(c - radius, 0) : c + radius + 1]
            assert grown[r, c] == near.any()
    if high <= rows and wide <= columns:
        taken = np.zeros((rows + 1, columns + 1), int)
        taken[1:, 1:] = body.cumsum(0).cumsum(1)
        free = _free(taken, high, wide)
        assert free.shape == (rows - high + 1, columns - wide + 1)
        for r in range(rows - high + 1):
            for c in range(columns - wide + 1):
                assert free[r, c] == (not body[r : r + high, c : c + wide].any())


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.05, 0.5), st.floats(0.5, 1.0), st.floats(0, 0.1))
def test_a_box_keeps_clear_of_the_body_and_within_its_sizes(seed, least, most, margin):
    source = np.random.default_rng(seed)
    left = int(source.integers(0, 24))
    body = standing(left=left, right=left + int(source.integers(1, 12)))
    box = propose_box(body, np.random.default_rng(seed), size=(least, most), margin=margin)
    assert box == propose_box(body, np.random.default_rng(seed), size=(least, most), margin=margin)
    if box is None:
        return
    x, y, width, height = box
    assert 0 <= x <= x + width <= 32
    assert 0 <= y <= y + height <= 64
    assert max(least * 32, 8) - 0.5 <= width <= max(most * 32, 8) + 0.5
    assert max(least * 64, 8) - 0.5 <= height <= max(most * 64, 8) + 0.5
    clear = round(margin * 64)
    assert not body[max(y - clear, 0) : y + height + clear, max(x - clear, 0) : x + width + clear].any()


def test_a_picture_that_is_all_body_has_no_room():
    assert propose_box(np.ones((64, 32), bool), np.random.default_rng(0)) is None


def test_crops_hold_no_pixel_of_a_person(tmp_path):
    for n in range(12):
        write(tmp_path, f"a/{n:02d}.png", standing(left=2 * n, right=2 * n + 6), seed=n)
    found = propose_occluders(tmp_path / "images", tmp_path / "masks", tmp_path / "out", least_contrast=5)
    assert len(found.proposals) >= 6
    listed = json.loads((tmp_path / "out/look/proposals.json").read_text())
    assert [each["file"] for each in listed["proposals"]] == [each.file for each in found.proposals]
    assert len({each.source for each in found.proposals}) == len(found.proposals)
    for each in found.proposals:
        crop = np.asarray(Image.open(tmp_path / "out" / each.file))
        assert crop.shape == (each.height, each.width, 3)
        assert crop.max() < 255
        whole = np.asarray(Image.open(tmp_path / "images" / each.source))
        np.testing.assert_array_equal(
            crop, whole[each.top : each.top + each.height, each.left : each.left + each.width]
        )
    assert found.seen == 12
    assert sum(found.passed.values()) + len(found.proposals) == 12


def test_the_folder_is_one_of_occluders_at_once(tmp_path, people):
    found = propose_occluders(people, people / "masks", tmp_path / "out", count=5, least_contrast=0)
    assert found.images == people / "bounding_box_train", "test pictures must not teach"
    assert len(found.proposals) == 5
    options = {"kinds": ["folder"], "folders": [str(tmp_path / "out")]}
    occluders = make_transform(Component(type="npo", options=options)).occluders
    assert len(occluders) == 5, "the contact sheet's folder is not looked into"


def test_the_same_seed_writes_the_same_files(tmp_path, people):
    def files(out: str, **options: int) -> dict[str, bytes]:
        propose_occluders(people, people / "masks", tmp_path / out, count=8, least_contrast=0, **options)
        return {str(p.relative_to(tmp_path / out)): p.read_bytes() for p in sorted((tmp_path / out).rglob("*.*"))}

    first = files("a")
    assert first == files("b")
    assert first.keys() != files("c", seed=1).keys()


def test_what_is_passed_over_is_counted(tmp_path):
    write(tmp_path, "good.png", standing())
    write(tmp_path, "full.png", np.ones((64, 32), np.uint8))
    write(tmp_path, "nobody.png", np.zeros((64, 32), np.uint8))
    write(tmp_path, "maskless.png", standing())
    (tmp_path / "masks/maskless.png").unlink()
    write(tmp_path, "bare.png", standing())
    Image.new("RGB", (32, 64), (90, 90, 90)).save(tmp_path / "images/bare.png")
    found = propose_occluders(tmp_path / "images", tmp_path / "masks", tmp_path / "out", size=(0.1, 0.5))
    assert [each.source for each in found.proposals] == ["good.png"]
    assert set(found.passed.values()) == {1}
    for reason in ("1 without a mask", "1 show too little of a body", "1 have no room", "1 are bare there"):
        assert reason in found.summary()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"images": "nowhere"}, DataError, "folder of pictures"),
        ({"masks": "nowhere"}, DataError, "folder of masks"),
        ({"masks": "images/a"}, MaskError, "must mirror its tree"),
        ({"output": "images/a"}, DataError, "not an empty folder"),
        ({"output": "images/new"}, DataError, "below the pictures"),
        ({"count": 0}, DataError, "count 0"),
        ({"size": (0.6, 0.5)}, DataError, "smaller one first"),
        ({"size": (0.9, 1.0)}, DataError, "no occluder was found"),
    ],
)
def test_bad_input(tmp_path, change, error, words):
    write(tmp_path, "a/1.png", standing())
    wanted = {"images": "images", "masks": "masks", "output": "out"} | {
        key: value for key, value in change.items() if isinstance(value, str)
    }
    others = {key: value for key, value in change.items() if not isinstance(value, str)}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=words):
        propose_occluders(*(tmp_path / wanted[key] for key in ("images", "masks", "output")), **others)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"
