"""Images on their way into a gallery: crops of a tracker, pictures from memory, and where their files are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import PartEmbeddings
from occluded_reid.errors import GalleryError, ImageError, ShapeError
from occluded_reid.gallery import AddResult, Gallery
from occluded_reid.models.embedding import embed_images

FRAME = np.random.default_rng(3).integers(0, 200, (60, 90, 3), dtype=np.uint8)
GOOD = FRAME[5:30, 5:20]
OUTSIDE = FRAME[80:100, 5:20]  # the box lies below the frame


def cut_jpeg() -> Image.Image:
    whole = io.BytesIO()
    Image.fromarray(np.tile(FRAME, (4, 4, 1))).save(whole, "JPEG")
    return Image.open(io.BytesIO(whole.getvalue()[:9000]))


EMPTY = Image.fromarray(FRAME).crop((50, 10, 50, 40))


@pytest.fixture
def gallery(tmp_path: Path, model: Any) -> Gallery:
    return Gallery.create(tmp_path / "g", model=model)


@pytest.mark.parametrize("make", [lambda: OUTSIDE, lambda: EMPTY, cut_jpeg, lambda: torch.zeros(3, 0, 9), lambda: b"?"])
def test_a_bad_crop_is_named_or_skipped_and_the_others_go_on(gallery: Gallery, make: Any) -> None:
    with pytest.raises(ImageError, match=r"'t2' \(images\[1\]\)"):
        gallery.add([GOOD, make(), GOOD[:10]], keys=["t1", "t2", "t3"])
    assert len(gallery) == 0
    told = gallery.add([GOOD, make(), GOOD[:10]], keys=["t1", "t2", "t3"], skip_unreadable=True)
    assert told == AddResult(2, 0, 0, ("t2",))
    with pytest.raises(ImageError, match=r"^images\[1\] "):  # without keys it is called by its place
        gallery.add([GOOD[:11], make()])
    assert gallery.add([GOOD[:11], make()], skip_unreadable=True) == AddResult(1, 0, 0, ("images[1]",))
    with pytest.raises(ImageError, match=r"query\[1\]"):
        gallery.search([GOOD, make()])
    with pytest.raises(ImageError, match=r"query\[1\]"):
        gallery.search([GOOD, make()], exclude_self=False)
    assert len(gallery) == 3


def test_an_array_that_is_no_image_is_named_and_never_skipped(gallery: Gallery) -> None:
    """A wrong type is a mistake in the program around it, not a bad crop."""
    for wrong in (GOOD.astype(np.float32), torch.zeros(3, 20, 3, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match=r"'t2' \(images\[1\]\)"):
            gallery.add([GOOD, wrong], keys=["t1", "t2"], skip_unreadable=True)
        with pytest.raises(ShapeError, match=r"query\[1\]"):
            gallery.search([GOOD, wrong])
    with pytest.raises(GalleryError, match="got dict"):
        gallery.add([{}], keys=["a"])  # type: ignore[list-item]


def test_one_picture_in_any_form_is_one_image(gallery: Gallery) -> None:
    assert gallery.add(GOOD).added == 1
    bgr = np.ascontiguousarray(GOOD[..., ::-1])
    tensor = torch.from_numpy(GOOD.copy())
    png = io.BytesIO()
    Image.fromarray(GOOD).save(png, "PNG")
    for form in (Image.fromarray(GOOD), tensor, tensor.permute(2, 0, 1), tensor / 255, png.getvalue(), Image.open(png)):
        assert gallery.add([form]) == AddResult(0, 1, 0)
        assert gallery.search([form]) == [[]]
    for other in (bgr, torch.from_numpy(bgr).permute(2, 0, 1)):
        assert gallery.add([other], channels="bgr") == AddResult(0, 1, 0)
        assert gallery.search([other], channels="bgr") == [[]]
    assert gallery.add(torch.stack([tensor, 255 - tensor]).permute(0, 3, 1, 2)) == AddResult(1, 1, 0)
    assert gallery.add([bgr]) == AddResult(1, 0, 0)
    with pytest.raises(ShapeError, match=r"images\[0\] is a PIL image"):
        gallery.search([Image.fromarray(bgr)], channels="bgr")


def test_a_turned_photograph_is_found_to_be_the_file_it_comes_from(gallery: Gallery, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(FRAME).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(FRAME[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    gallery.add([tmp_path / "turned.jpg", tmp_path / "deep.png", GOOD], keys=["turned", "deep", "other"])
    for name in ("turned", "deep"):
        file = next(tmp_path.glob(f"{name}.*"))
        everything = gallery.search([file, Image.open(file), file.read_bytes()], exclude_self=False)
        assert [hits[0].key for hits in everything] == [name] * 3
        assert all(hits[0].distance < 0.01 for hits in everything)
        for form in (file, Image.open(file), Image.open(file).copy(), file.read_bytes()):
            assert name not in [hit.key for hit in gallery.search(form)[0]]
    (tmp_path / "turned.jpg").write_bytes((tmp_path / "deep.png").read_bytes())
    assert len(gallery.search(GOOD)[0]) == 2


def test_copies_of_one_file_are_left_out_together(gallery: Gallery, tmp_path: Path) -> None:
    """More of them than hits were asked for: the question is asked again until no copy is left."""
    for i in range(6):
        Image.fromarray(GOOD).save(tmp_path / f"{i}.png", compress_level=i)
    Image.fromarray(FRAME).save(tmp_path / "far.png")
    gallery.add(sorted(tmp_path.glob("*.png")), keys=[*"012345", "far"], camera=1)
    assert [hit.key for hit in gallery.search(GOOD, 2)[0]] == ["far"]
    assert [[hit.key for hit in hits] for hits in gallery.search([GOOD, FRAME], 2)] == [["far"], ["0", "1"]]
    assert gallery.search([GOOD, GOOD], 1, query_camera=[1, None])[0] == []
    (tmp_path / "3.png").unlink()
    assert [hit.key for hit in gallery.search(GOOD, 2)[0]] == ["3", "far"]  # where there is no file, nobody can tell


def test_files_are_found_from_another_folder(
    gallery: Gallery, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures[0].parent)
    gallery.add([Path("0.png"), "1.png"])
    gallery.add([Path("2.png")], keys=["two"], path=["camera-7/frame 12"])
    monkeypatch.chdir(tmp_path)
    hits = {hit.key: hit.path for hit in gallery.search(GOOD)[0]}
    assert hits == {"0.png": pictures[0].as_posix(), "1.png": pictures[1].as_posix(), "two": "camera-7/frame 12"}
    monkeypatch.chdir(pictures[0].parent)
    assert gallery.add([Path("0.png"), "1.png"]) == AddResult(0, 2, 0)


@pytest.mark.parametrize("threads", [1, 3])
def test_files_that_threads_read_give_the_same_as_pictures(
    tmp_path: Path, tiny: Any, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(None)
    monkeypatch.setattr("occluded_reid.models.embedding.reading_threads", lambda: threads)
    draw, files = np.random.default_rng(0), []
    for number in range(23):
        files.append(tmp_path / f"{number:02}.jpg")
        Image.fromarray(draw.integers(0, 256, (50 + number, 30, 3), dtype=np.uint8)).save(files[-1])
    files[7].write_bytes(files[7].read_bytes()[:200])
    names = [str(file) for file in files]
    lost: list[int] = []
    parts = list(embed_images(model, files, names, 4, lost))
    assert lost == [7]
    assert [len(part) for part in parts] == [4, 3, 4, 4, 4, 3]
    kept = [file for file in files if file != files[7]]
    pictures = [Image.open(file) for file in kept]
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    rows = PartEmbeddings.cat(parts)
    for images in (pictures, arrays):
        other = PartEmbeddings.cat(list(embed_images(model, images, names[1:], 4)))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(rows.embeddings, other.embeddings, strict=True))
    with pytest.raises(ImageError, match=r"07\.jpg"):
        list(embed_images(model, files, names, 4))


def test_a_folder_is_told_how_it_is_added(tmp_path: Path, model: Any, pictures: list[Path]) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    for given in (pictures[0].parent, [str(pictures[0].parent)]):
        with pytest.raises(ImageError, match=r"is a folder, not an image\. Give its images.*occluded-reid index"):
            gallery.add(given)
    assert len(gallery) == 0
