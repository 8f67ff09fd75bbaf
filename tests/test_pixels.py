"""One picture in five forms: whatever an image is given as, the same pixels come out, or the same words."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.config import InputConfig
from occluded_reid.errors import ImageError, ShapeError
from occluded_reid.models import Preprocess
from occluded_reid.pixels import as_list, few_at_a_time, hash_pixels, to_rgb, to_rgba, to_thumbnail


def noise(height: int = 9, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def turned_jpeg(path: Path) -> None:
    Image.fromarray(noise(40, 24)).save(path, "JPEG", exif=exif(6), quality=95)


def turned_png(path: Path) -> None:
    Image.fromarray(noise()).save(path, "PNG", exif=exif(5))


def deep_grey(path: Path) -> None:
    Image.fromarray(np.arange(45, dtype=np.uint16).reshape(9, 5) * 1400).save(path, "PNG")


def float_grey(path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 45, dtype=np.float32).reshape(9, 5)).save(path, "TIFF")


def clear(path: Path) -> None:
    picture = Image.fromarray(noise())
    picture.putalpha(90)
    picture.save(path, "PNG")


def clear_grey(path: Path) -> None:
    Image.merge("LA", [Image.new("L", (5, 9), 60), Image.new("L", (5, 9), 100)]).save(path, "PNG")


def palette(path: Path) -> None:
    Image.fromarray(noise()).convert("P").save(path, "PNG", transparency=3)


def cmyk(path: Path) -> None:
    Image.fromarray(noise(40, 24)).convert("CMYK").save(path, "JPEG", quality=95)


KINDS = [turned_jpeg, turned_png, deep_grey, float_grey, clear, clear_grey, palette, cmyk]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_file_and_the_same_in_memory_are_one_picture(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    path = tmp_path / "picture"
    kind(path)
    whole = to_rgb(path)
    pixels = np.asarray(whole)
    opened, loaded = Image.open(path), Image.open(path)
    loaded.load()
    cached = io.BytesIO(path.read_bytes())
    forms: dict[str, Any] = {
        "text": str(path),
        "bytes": path.read_bytes(),
        "memoryview": memoryview(path.read_bytes()),
        "opened": opened,
        "loaded": loaded,
        "copied": loaded.copy(),
        "from memory": Image.open(cached),
        "again": whole,
        "array": pixels,
        "tensor (H, W, C)": torch.from_numpy(pixels.copy()),
        "tensor (C, H, W)": torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        "floats": torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255,
    }
    different = [name for name, form in forms.items() if not np.array_equal(np.asarray(to_rgb(form)), pixels)]
    assert not different
    assert {hash_pixels(to_rgb(form)) for form in forms.values()} == {hash_pixels(whole)}
    see = Preprocess(InputConfig(height=32, width=16))
    assert len({see.pixels([form]).tobytes() for form in forms.values()}) == 1
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    for form in (bgr, torch.from_numpy(bgr).permute(2, 0, 1), torch.from_numpy(bgr)):
        assert np.array_equal(see.pixels([form], channels="bgr"), see.pixels([path]))
        assert np.array_equal(np.asarray(to_rgb(form, channels="bgr")), pixels)
        assert np.array_equal(np.asarray(to_rgb(as_list(form, "bgr")[0])), pixels)


def test_a_picture_that_is_only_opened_is_not_decoded_where_it_lies(tmp_path: Path) -> None:
    """A list of opened photographs must not grow by being looked at."""
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    for i, path in enumerate(paths):
        Image.new("RGB", (1500, 1000), (i, 0, 0)).save(path)
    opened = [Image.open(path) for path in paths]
    reds = [to_rgb(image).getpixel((0, 0))[0] for image in opened]  # type: ignore[index]
    assert reds == list(range(8))
    assert all(image.tile for image in opened)
    assert opened[3].getpixel((5, 5)) == (3, 0, 0)  # and it can still be read
    for image in opened:
        image.close()


def test_a_picture_is_taken_as_it_stands(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "two.tif") as image:
        image.seek(1)
        assert to_rgb(image).getpixel((0, 0)) == (0, 255, 0)
    assert to_rgb(tmp_path / "two.tif").getpixel((0, 0)) == (255, 0, 0)
    Image.fromarray(noise(64, 64)).save(tmp_path / "a.jpg")
    Image.fromarray(noise(1200, 1200)).save(tmp_path / "large.jpg")
    for name, size in [("a.jpg", (32, 32)), ("large.jpg", (600, 600))]:
        small = Image.open(tmp_path / name)
        small.draft("RGB", size)
        assert to_rgb(small).size == size
    with Image.open(tmp_path / "large.jpg") as large:
        large.draft("RGB", (1201, 1201))  # nothing to be done: as large as it is
        assert to_rgb(large).size == (1200, 1200)
    edited = Image.open(tmp_path / "a.jpg")
    edited.putpixel((0, 0), (1, 2, 3))
    assert to_rgb(edited).getpixel((0, 0)) == (1, 2, 3)


def test_grey_and_transparent_arrays_are_what_their_pictures_are() -> None:
    grey = noise()[..., 0]
    assert np.array_equal(np.asarray(to_rgb(grey)), np.asarray(to_rgb(Image.fromarray(grey))))
    assert np.array_equal(np.asarray(to_rgb(grey[..., None])), np.asarray(to_rgb(grey)))
    assert np.array_equal(np.asarray(to_rgb(torch.from_numpy(grey)[None])), np.asarray(to_rgb(grey)))
    assert np.array_equal(np.asarray(to_rgb(torch.from_numpy(grey))), np.asarray(to_rgb(grey)))
    rgba = np.dstack([noise(), noise(seed=1)[..., :1]])
    assert np.array_equal(np.asarray(to_rgb(rgba)), np.asarray(to_rgb(Image.fromarray(rgba))))
    bgra = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])
    assert np.array_equal(np.asarray(to_rgb(bgra, channels="bgr")), np.asarray(to_rgb(rgba)))


def test_one_image_or_several(tmp_path: Path) -> None:
    array, tensor = noise(), torch.from_numpy(noise())
    assert [len(as_list(one)) for one in ("a.png", tmp_path, b"x", Image.new("L", (1, 1)), array, array[..., 0])] == [
        1
    ] * 6
    assert len(as_list(tensor)) == len(as_list(tensor.permute(2, 0, 1))) == 1
    assert len(as_list(np.stack([array] * 3))) == len(as_list(torch.stack([tensor] * 3))) == 3
    assert as_list(np.array(["a.png", "b.png"])) == ["a.png", "b.png"]  # type: ignore[comparison-overlap]
    assert as_list(f"{i}.png" for i in range(2)) == ["0.png", "1.png"]
    see = Preprocess(InputConfig(height=32, width=16))
    batch = torch.stack([tensor, 255 - tensor]).permute(0, 3, 1, 2)
    assert np.array_equal(see.pixels(batch), see.pixels([array, 255 - array]))
    assert see(tensor).shape == (1, 3, 32, 16)
    assert np.array_equal(see.pixels(batch.flip(1), channels="bgr"), see.pixels(batch))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 40, 3, dtype=torch.uint8), r"\(3, 40, 3\), which may be \(C, H, W\) or \(H, W, C\)"),
        (torch.zeros(1, 40, 1), "which may be"),
        (torch.zeros(40, 20, 5, dtype=torch.uint8), r"wanted \(C, H, W\) or \(H, W, C\)"),
        (torch.zeros(2, 3, 40, 20), r"wanted \(C, H, W\)"),
        (torch.zeros(3, 40, 20, dtype=torch.int64), r"torch\.int64; give uint8, or floats"),
        (torch.full((3, 40, 20), 1.5), r"in 1\.5 … 1\.5; floats must lie in \[0, 1\]\. Undo the normalisation"),
        (torch.full((3, 40, 20), -0.5), "floats must lie"),
        (torch.full((3, 40, 20), float("nan")), "floats must lie"),
        (np.zeros((3, 40, 20), np.uint8), r"uint8 \(3, 40, 20\).*colours come last"),
        (np.zeros((40, 20, 3), np.float32), "float32"),
        (np.zeros((40, 20), np.uint16), "uint16"),
        (7, "is int; an image is given as a path"),
        (None, "is NoneType"),
    ],
)
def test_what_is_no_image_is_refused_in_words(image: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        to_rgb(image)
    with pytest.raises(ShapeError, match=message):
        Preprocess(InputConfig(height=32, width=16))([noise(), image])


def test_the_order_of_colours_is_about_arrays_alone(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")
    see = Preprocess(InputConfig(height=32, width=16))
    for image, kind in [
        (tmp_path / "a.png", "a file"),
        ((tmp_path / "a.png").read_bytes(), "the bytes of a file"),
        (Image.fromarray(noise()), "a PIL image"),
    ]:
        with pytest.raises(ShapeError, match=rf"{kind}, which says the order of its colours itself"):
            to_rgb(image, channels="bgr")
        with pytest.raises(ShapeError, match=rf"images\[1\] is {kind}"):
            see([noise(), image], channels="bgr")
    with pytest.raises(ShapeError, match="channels is 'gbr'; give 'rgb', or 'bgr'"):
        see([noise()], channels="gbr")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 40, 3), np.uint8),
        np.zeros((40, 0, 3), np.uint8),
        torch.zeros(3, 0, 20, dtype=torch.uint8),
        torch.zeros(3, 0, 3),
        Image.fromarray(noise()).crop((3, 1, 3, 5)),
        b"",
        b"no picture",
    ],
    ids=[
        "no rows",
        "no columns",
        "no rows of a tensor",
        "no columns of a tensor",
        "a crop of nothing",
        "no bytes",
        "text",
    ],
)
def test_nothing_is_no_picture_and_is_named(image: Any) -> None:
    with pytest.raises(ImageError, match=r"^the third crop (has no pixels|is empty|is not an image)"):
        to_rgb(image, name="the third crop")
    with pytest.raises(ImageError, match=r"^images\[2\] "):
        Preprocess(InputConfig(height=32, width=16))([noise(), noise(), image])


def test_a_cut_picture_is_our_error(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(noise(200, 300)).save(whole, "JPEG")
    cut = Image.open(io.BytesIO(whole.getvalue()[:9000]))
    with pytest.raises(ImageError, match="the crop is damaged or truncated"):
        to_rgb(cut, name="the crop")
    Image.fromarray(noise(64, 64)).save(tmp_path / "a.png")
    gone = Image.open(tmp_path / "a.png")
    gone.close()
    with pytest.raises(ImageError, match="the crop is damaged or truncated"):
        to_rgb(gone, name="the crop")


def test_too_many_pixels_are_refused_in_every_form() -> None:
    whole = io.BytesIO()
    Image.fromarray(noise(10, 10)).save(whole, "PNG")
    for form in (whole.getvalue(), Image.open(whole), noise(10, 10), torch.from_numpy(noise(10, 10))):
        with pytest.raises(ImageError, match="has 10×10 pixels; at most 99"):
            to_rgb(form, max_pixels=99)


def test_large_pictures_are_held_one_at_a_time(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.new("L", (4200, 4200), 9).save(path)
    counts = [len(pictures) for pictures in few_at_a_time([noise()] * 70 + paths + [noise()] * 3)]
    assert counts == [64, 7, 1, 1, 1, 3]
    first = next(iterator := few_at_a_time([noise()] * 65))
    assert len(first) == 64
    assert len(next(iterator)) == 1
    assert len(first) < 64  # emptied when the next was asked for
    see = Preprocess(InputConfig(height=32, width=16))
    seen = see.see([noise(9, 5), *paths])
    assert seen.sizes == [(5, 9), *[(4200, 4200)] * 4]
    assert np.array_equal(seen.pixels[0], see.pixels([noise(9, 5)])[0])
    assert seen.boxes == [None] * 5


def test_deep_grey_is_scaled_without_a_float_copy_of_it(tmp_path: Path) -> None:
    Image.fromarray(np.full((2000, 2000), 300, np.uint16)).save(tmp_path / "deep.png")
    tracemalloc.start()
    try:
        assert to_rgb(tmp_path / "deep.png").getpixel((7, 7)) == (1, 1, 1)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000  # as float64 it would be 32 MB, three times over
    finally:
        tracemalloc.stop()


def test_transparency_can_be_kept(tmp_path: Path) -> None:
    picture = Image.fromarray(noise())
    picture.putalpha(90)
    picture.save(tmp_path / "clear.png", exif=exif(6))
    kept, is_clear, mode = to_rgba(tmp_path / "clear.png")
    assert (kept.mode, kept.size, is_clear, mode) == ("RGBA", (9, 5), True, "RGBA")
    deep_grey(tmp_path / "deep.png")
    kept, is_clear, mode = to_rgba(tmp_path / "deep.png")
    assert (kept.mode, is_clear, mode[:1]) == ("RGBA", False, "I")
    assert np.array_equal(np.asarray(kept)[..., :3], np.asarray(to_rgb(tmp_path / "deep.png")))


def test_a_thumbnail_is_read_small_and_stands_upright(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 2000), (200, 30, 30)).save(tmp_path / "wide.jpg", exif=exif(6))
    tracemalloc.start()
    try:
        small = to_thumbnail(tmp_path / "wide.jpg", 500)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert small.size == (250, 500)
    red, green, blue = small.getpixel((100, 100))  # type: ignore[misc]
    assert abs(red - 200) + abs(green - 30) + abs(blue - 30) < 12
    assert to_thumbnail(Image.fromarray(noise(3000, 10))).size == (4, 1280)
    assert np.array_equal(np.asarray(to_thumbnail(noise())), noise())
    Image.new("CMYK", (2000, 100), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    assert to_thumbnail(tmp_path / "c.jpg").getpixel((9, 9))[0] > 240  # type: ignore[index]
