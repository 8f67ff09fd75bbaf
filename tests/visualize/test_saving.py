"""The suffix of a picture decides what is written, and a wrong one is refused before anything is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import EvaluationError, MaskError
from occluded_reid.visualize import PICTURE_FORMATS, RankedItem, ranked_list, require_picture_path, save_picture

BEGINS = {
    "PNG": b"\x89PNG",
    "JPEG": b"\xff\xd8\xff",
    "WEBP": b"RIFF",
    "TIFF": b"II*\0",
    "PDF": b"%PDF",
}


@pytest.mark.parametrize("suffix", [*PICTURE_FORMATS, ".PNG", ".Jpg"])
def test_the_suffix_decides_the_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "deep" / f"hits{suffix}"
    kind = require_picture_path(path)
    assert save_picture(Image.new("RGB", (40, 30), (250, 20, 20)), path) == path
    assert path.read_bytes().startswith(BEGINS[kind])
    if kind != "PDF":
        with Image.open(path) as written:
            assert written.size == (40, 30)
            red, green, _ = written.convert("RGB").getpixel((20, 15))  # type: ignore[misc]
            assert abs(red - 250) < 8
            assert abs(green - 20) < 8


@pytest.mark.parametrize("name", ["hits", "hits.html", "hits.svg", ".png", "a.png.gz", "hits."])
def test_another_suffix_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    for check in (require_picture_path, lambda path: save_picture(Image.new("RGB", (2, 2)), path)):
        with pytest.raises(EvaluationError, match=r"its suffix decides how it is written. Choose one of \.png"):
            check(tmp_path / name)
    with pytest.raises(MaskError, match="suffix"):
        require_picture_path(tmp_path / name, MaskError)
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_is_too_small_says_so(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"1×16384 pixels, and WEBP holds 16383.*Write it as PNG: .*tall\.png"):
        save_picture(Image.new("RGB", (1, 16_384)), tmp_path / "tall.webp")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_stands_in_the_place_of_its_picture() -> None:
    grey = np.full((64, 32, 3), 128, np.uint8)

    def drawn(text: str) -> np.ndarray:
        return np.asarray(ranked_list(grey, [RankedItem(None, 0.5, missing=text)], width=480))

    one, other = drawn("file not found: /data/mall/anna/0001.png"), drawn("file not found: /data/mall/bert/0001.png")
    nothing = drawn("")
    assert one.shape == other.shape == nothing.shape
    assert (one != other).any()
    assert (one != nothing).any()
    assert 0 < (one != other).any(2).mean() < 0.05
    long = drawn("file not found: /" + "very/" * 200 + "deep.png")  # the end of the path is what tells files apart
    assert (long != drawn("file not found: /" + "very/" * 200 + "flat.png")).any()
