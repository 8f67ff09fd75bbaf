"""Every kind of image that Pillow reads arrives as upright 8-bit RGB; every broken one is named."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid.data.images import MAX_PIXELS, image_files, merge_classes, open_image, open_mask
from occluded_reid.errors import DataError, ImageError, MaskError


def pixels(path: Path) -> np.ndarray:
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def colours(height: int = 6, width: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG of any size in 70 bytes: what a decompression bomb looks like before it goes off."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_rgb_comes_unchanged(tmp_path: Path) -> None:
    Image.fromarray(colours()).save(tmp_path / "a b.PNG")
    assert np.array_equal(pixels(tmp_path / "a b.PNG"), colours())


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "one.png")
    assert pixels(tmp_path / "one.png").tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 100, 257], [32768, 51400, 65535]], dtype=np.uint16)
    path = tmp_path / f"deep.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 3 2 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    expected = [[round(int(v) * 255 / 65535) for v in row] for row in values]
    got = pixels(path)
    assert got[..., 0].tolist() == expected
    assert np.array_equal(got[..., 0], got[..., 2])


@pytest.mark.parametrize(("top", "white"), [(1.0, 1.0), (200.0, 255.0), (40000.0, 65535.0)])
def test_float_grey_is_scaled_by_the_smallest_white(tmp_path: Path, top: float, white: float) -> None:
    Image.fromarray(np.array([[0.0, top / 2, top]], dtype=np.float32)).save(tmp_path / "f.tif")
    assert pixels(tmp_path / "f.tif")[0, :, 0].tolist() == [0, round(top / 2 / white * 255), round(top / white * 255)]


def test_float_grey_with_nan_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match=r"f\.tif' holds pixels that are NaN"):
        open_image(tmp_path / "f.tif")


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red, green, blue = pixels(tmp_path / "c.jpg")[4, 4].tolist()
    assert red > 240
    assert green < 15
    assert blue < 15


def test_grey_and_one_bit(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 77).save(tmp_path / "l.png")
    Image.new("1", (2, 2), 1).save(tmp_path / "b.png")
    assert set(pixels(tmp_path / "l.png").ravel().tolist()) == {77}
    assert set(pixels(tmp_path / "b.png").ravel().tolist()) == {255}


def test_palette_and_transparency_are_laid_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(tmp_path / "p.png")
    assert pixels(tmp_path / "p.png").tolist() == [[[10, 20, 30], [40, 50, 60]]]
    palette.save(tmp_path / "t.png", transparency=1)
    assert pixels(tmp_path / "t.png").tolist() == [[[10, 20, 30], [255, 255, 255]]]
    Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 51], [9, 8, 7, 255]]], np.uint8)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[255] * 3, [204] * 3, [9, 8, 7]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(tmp_path: Path, orientation: int) -> None:
    # Tag 0x0112: where row 0 and column 0 of the stored picture lie when it stands upright.
    stored = colours()
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "e.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "e.png"), upright)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (10_000, 10_000), (8_001, 8_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_large_is_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"bomb\.png.*Scale it down"):
            open_image(tmp_path / "bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_warning_about_size_that_was_made_an_error_is_ours_too(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(10_000, 10_000))
    with pytest.raises(ImageError, match=r"bomb\.png' is too large"):
        open_image(tmp_path / "bomb.png")


def test_the_limit_can_be_chosen(tmp_path: Path) -> None:
    Image.fromarray(colours(6, 4)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png", max_pixels=24).size == (4, 6)
    with pytest.raises(ImageError, match="has 4×6 pixels; at most 23"):
        open_image(tmp_path / "a.png", max_pixels=23)
    assert MAX_PIXELS >= 20_000_000


def test_broken_files_are_named(tmp_path: Path) -> None:
    Image.fromarray(colours(64, 32)).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in [
        ("half.jpg", "is damaged or truncated"),
        ("empty.jpg", "is empty"),
        ("text.jpg", "is not an image"),
        ("none.jpg", "does not exist"),
        ("folder.jpg", "is a folder, and an image is wanted"),
    ]:
        with pytest.raises(ImageError, match=rf"{name}' {reason}"):
            open_image(tmp_path / name)


def test_any_damage_is_an_image_error(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours(16, 8)).save(tmp_path / "whole.png", exif=exif)
    whole = (tmp_path / "whole.png").read_bytes()
    random = np.random.default_rng(1)
    broken = 0
    for _ in range(150):
        content = bytearray(whole)
        for position in random.integers(0, len(content), 3):
            content[position] = int(random.integers(0, 256))
        (tmp_path / "d.png").write_bytes(content)
        try:
            open_image(tmp_path / "d.png")
        except ImageError:
            broken += 1
    assert broken > 50


def test_mask_round_trip_and_palette_indices(tmp_path: Path) -> None:
    classes = np.arange(8, dtype=np.uint8).reshape(4, 2)
    Image.fromarray(classes).save(tmp_path / "m.png")
    got = open_mask(tmp_path / "m.png", (2, 4))
    assert got.dtype == np.uint8
    assert np.array_equal(got, classes)
    coloured = Image.fromarray(classes).convert("P")
    coloured.putpalette(list(range(100, 124)))
    coloured.putdata(classes.ravel().tolist())
    coloured.save(tmp_path / "p.png")
    assert np.array_equal(open_mask(tmp_path / "p.png"), classes)


def test_wrong_masks_are_named(tmp_path: Path) -> None:
    Image.new("L", (2, 4), 9).save(tmp_path / "nine.png")
    Image.new("L", (2, 4), 1).save(tmp_path / "good.png")
    Image.new("RGB", (2, 4)).save(tmp_path / "rgb.png")
    Image.new("L", (2, 4)).save(tmp_path / "lossy.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:45])
    for name, size, reason in [
        ("nine.png", None, r"holds class 9; wanted 0 … 7"),
        ("good.png", (4, 2), r"is 2×4, its image 4×2"),
        ("rgb.png", None, r"is PNG of mode RGB; wanted a single-channel"),
        ("lossy.jpg", None, r"is JPEG of mode L"),
        ("cut.png", None, r"is damaged or truncated"),
        ("none.png", None, r"does not exist\. Make one single-channel PNG for each image"),
    ]:
        with pytest.raises(MaskError, match=rf"{name}' {reason}"):
            open_mask(tmp_path / name, size)
    with pytest.raises(MaskError, match="holds class 9; wanted 0 … 1"):
        open_mask(tmp_path / "nine.png", classes=2)


def test_classes_are_merged_as_in_sorn() -> None:
    named = ["background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg", "foot"]
    five = {"background": 0, "head": 1, "torso": 2, "upper arm": 3, "lower arm": 3}
    mask = np.arange(8, dtype=np.uint8)
    assert merge_classes(mask, 8).tolist() == list(range(8))
    assert merge_classes(mask, 5).tolist() == [five.get(name, 4) for name in named]
    assert merge_classes(mask.reshape(2, 4), 2).tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert merge_classes(mask, 2).dtype == np.uint8
    with pytest.raises(MaskError, match="8, 5 or 2; 4 was asked for"):
        merge_classes(mask, 4)
    with pytest.raises(MaskError, match="holds 0 … 8"):
        merge_classes(np.arange(9), 2)


def test_image_files_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ["b.JPG", "a.png", "sub/c.tif", ".d.png", ".thumbs/e.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.JPG"]
    assert [path.name for path in image_files(tmp_path, recursive=True)] == ["a.png", "b.JPG", "c.tif"]
    with pytest.raises(DataError, match="cannot be read"):
        image_files(tmp_path / "none")
