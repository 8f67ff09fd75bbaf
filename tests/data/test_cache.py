"""Decoded images: the same bytes in memory and from the file, and broken files named."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid.data.cache import DecodedImages
from occluded_reid.data.dataset import Sample
from occluded_reid.errors import DataError, ImageError, MaskError

HEIGHT, WIDTH = 32, 16


def write_samples(root: Path, count: int, *, masks: bool = True, size: tuple[int, int] = (20, 50)) -> list[Sample]:
    random = np.random.default_rng(0)
    samples = []
    for number in range(count):
        path, mask = root / f"{number:03d}.png", root / f"{number:03d}_parts.png"
        Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        Image.fromarray(random.integers(0, 8, (size[1], size[0]), dtype=np.uint8)).save(mask)
        samples.append(Sample(path.name, path, str(number % 5), number % 3, mask=mask if masks else None))
    return samples


@pytest.mark.parametrize("limit", [0, 1 << 30])
@pytest.mark.parametrize("classes", [0, 2, 5, 8])
def test_holds_what_the_files_hold(tmp_path: Path, limit: int, classes: int) -> None:
    samples = write_samples(tmp_path, 5)
    seen: list[tuple[int, int]] = []
    cache = DecodedImages(
        samples, HEIGHT, WIDTH, masks=classes, limit_bytes=limit, progress=lambda *step: seen.append(step)
    )
    assert (len(cache), cache.in_memory, cache.skipped) == (5, limit > 0, ())
    assert seen == ([(n, 5) for n in range(1, 6)] if limit else [])
    merged = {2: [0, 1, 1, 1, 1, 1, 1, 1], 5: [0, 1, 2, 3, 3, 4, 4, 4], 8: list(range(8))}
    for position, sample in enumerate(samples):
        image, parts = cache[position]
        with Image.open(sample.path) as file:
            assert np.array_equal(image, file.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
        assert image.dtype == np.uint8
        if not classes:
            assert parts is None
            continue
        assert parts is not None
        assert sample.mask is not None
        with Image.open(sample.mask) as file:
            nearest = np.asarray(file.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
        assert parts.tolist() == [[merged[classes][c] for c in row] for row in nearest]


def test_memory_is_counted_exactly(tmp_path: Path) -> None:
    samples = write_samples(tmp_path, 3)
    for masks, channels in ((0, 3), (8, 4)):
        size = 3 * HEIGHT * WIDTH * channels
        assert DecodedImages(samples, HEIGHT, WIDTH, masks=masks, limit_bytes=size).in_memory
        assert not DecodedImages(samples, HEIGHT, WIDTH, masks=masks, limit_bytes=size - 1).in_memory


def test_a_copy_in_another_process_holds_the_same(tmp_path: Path) -> None:
    cache = DecodedImages(write_samples(tmp_path, 3, masks=False), HEIGHT, WIDTH)
    copied = pickle.loads(pickle.dumps(cache))  # noqa: S301
    assert np.array_equal(copied[2][0], cache[2][0])
    assert cache._images is not None
    assert cache._images.is_shared()


def test_little_shared_memory_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_frsize = 1, 512

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    cache = DecodedImages(write_samples(tmp_path, 3, masks=False), HEIGHT, WIDTH)
    assert cache._images is not None
    assert not cache._images.is_shared()
    assert cache[0][0].any()


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_broken_files_are_named_or_skipped(tmp_path: Path, limit: int) -> None:
    samples = write_samples(tmp_path, 6)
    content = samples[2].path.read_bytes()
    samples[2].path.write_bytes(content[: len(content) // 2])
    samples[4].path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"002\.png"):
        DecodedImages(samples, HEIGHT, WIDTH, limit_bytes=limit)[2]
    cache = DecodedImages(samples, HEIGHT, WIDTH, masks=8, limit_bytes=limit, skip_unreadable=True)
    assert cache.skipped == ("002.png", "004.png")
    assert [sample.name for sample in cache.samples] == ["000.png", "001.png", "003.png", "005.png"]
    with Image.open(samples[5].path) as file:
        assert np.array_equal(cache[3][0], file.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    for sample in samples:
        sample.path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 6 images can be read"):
        DecodedImages(samples, HEIGHT, WIDTH, limit_bytes=limit, skip_unreadable=True)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    samples = write_samples(tmp_path, 3)
    bare = [Sample(s.name, s.path, s.identity, s.camera) for s in samples]
    with pytest.raises(
        MaskError, match=r"1 of 3 training images have no part mask, the first is '001\.png'. Give masks="
    ):
        DecodedImages([samples[0], bare[1], samples[2]], HEIGHT, WIDTH, masks=8)
    assert samples[1].mask is not None
    Image.new("L", (7, 7)).save(samples[1].mask)
    with pytest.raises(MaskError, match="001_parts"):
        DecodedImages(samples, HEIGHT, WIDTH, masks=8, skip_unreadable=True)
    Image.new("L", (20, 50), 9).save(samples[1].mask)
    with pytest.raises(MaskError, match="001_parts"):
        DecodedImages(samples, HEIGHT, WIDTH, masks=2)


def test_no_samples() -> None:
    with pytest.raises(DataError, match="no images to decode"):
        DecodedImages([], HEIGHT, WIDTH)
