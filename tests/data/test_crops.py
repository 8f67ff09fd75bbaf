"""Boxes of a detector cut out of a frame, whatever form both come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from occluded_reid import crops
from occluded_reid.errors import ImageError, ShapeError


def frame(height: int = 12, width: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


edges = st.floats(-30, 50, allow_nan=False) | st.integers(-30, 50)


@given(st.lists(st.tuples(edges, edges, edges, edges), max_size=6))
def test_every_pixel_that_a_box_touches_and_no_other(boxes: list[tuple[float, float, float, float]]) -> None:
    pixels, left_out = frame(), list[int]()
    found = iter(crops(pixels, boxes, left_out=left_out))
    for number, (left, top, right, bottom) in enumerate(boxes):
        # A pixel x covers [x, x + 1): it is touched where the open intervals meet.
        columns = [x for x in range(20) if left < right and left < x + 1 and x < right]
        rows = [y for y in range(12) if top < bottom and top < y + 1 and y < bottom]
        if columns and rows:
            assert number not in left_out
            assert np.array_equal(next(found), pixels[np.ix_(rows, columns)])
        else:
            assert number in left_out
    assert next(found, None) is None


def test_any_form_gives_the_same(tmp_path: Path) -> None:
    pixels, boxes = frame(), [[1, 2, 9, 11], [4.2, 0.0, 30.0, 5.5]]
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    wanted = [pixels[2:11, 1:9], pixels[0:6, 4:20]]
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms: list[tuple[Any, Any, Any]] = [
        (pixels, boxes, "rgb"),
        (bgr, np.array(boxes), "bgr"),
        (tensor, torch.tensor(boxes), "rgb"),
        (tensor.float() / 255, tuple(map(tuple, boxes)), "rgb"),
        (Image.fromarray(pixels), boxes, "rgb"),
        (tmp_path / "frame.png", boxes, "rgb"),
        ((tmp_path / "frame.png").read_bytes(), boxes, "rgb"),
    ]
    for image, given_boxes, channels in forms:
        found = crops(image, given_boxes, channels=channels)
        assert [f.dtype for f in found] == [np.uint8, np.uint8]
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    found[0][:] = 0
    assert pixels.any(axis=2).all()
    assert crops(pixels, []) == crops(pixels, np.empty((0, 4))) == crops(pixels, torch.empty(0, 4)) == []


@pytest.mark.parametrize("box", [(20, 0, 30, 5), (-9, 0, 0, 5), (3, 3, 3, 9), (9, 3, 4, 9), (5, 12, 9, 40)])
def test_a_box_without_area_is_refused_or_told(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ImageError, match=r"box 1 \(.*\) has no area within the frame of 20×12 pixels.*left_out=\[\]"):
        crops(frame(), [(0, 0, 5, 5), box])
    told: list[int] = []
    assert [crop.shape for crop in crops(frame(), [box, (0, 0, 5, 5)], left_out=told)] == [(5, 5, 3)]
    assert told == [0]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], r"shape \(4,\); give \(N, 4\)"),
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        ([[1, 2, 3, 4], [1, 2]], "no numbers"),
        ([["a", 2, 3, 4]], "no numbers"),
        ([[0, 0, 1, 1], [0, 0, float("nan"), 4]], r"box 1 is \[0\.0, 0\.0, nan, 4\.0\]; give finite"),
        (None, "no numbers|shape"),
    ],
)
def test_what_is_no_box(boxes: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        crops(frame(), boxes)
    with pytest.raises(ShapeError):
        crops("frame.png", [[0, 0, 1, 1]], channels="bgr")
