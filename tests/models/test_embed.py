"""`model.embed` takes images in every form, in batches of any size, and prepared ones as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import PartEmbeddings, ReIDModel, build_model
from occluded_reid.errors import EmbeddingError, ImageError, ShapeError


@pytest.fixture(scope="module")
def model() -> ReIDModel:
    torch.manual_seed(0)
    return build_model("sorn_lite", backbone="test_efficientnet", pretrained=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, draw = tmp_path_factory.mktemp("crops"), np.random.default_rng(0)
    made = [folder / f"{number}.png" for number in range(5)]
    for file in made:
        Image.fromarray(draw.integers(0, 256, (60, 30, 3), dtype=np.uint8)).save(file)
    return made


def near(given: PartEmbeddings, wanted: PartEmbeddings) -> bool:
    pairs = zip(given.embeddings, wanted.embeddings, strict=True)
    same = all(torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max())) for a, b in pairs)
    return same and torch.allclose(given.visibility, wanted.visibility, atol=1e-5)


FORMS: dict[str, Callable[[list[Path]], Any]] = {
    "paths": lambda files: files,
    "texts": lambda files: [str(file) for file in files],
    "bytes": lambda files: [file.read_bytes() for file in files],
    "pictures": lambda files: [Image.open(file) for file in files],
    "arrays": lambda files: [np.asarray(Image.open(file)) for file in files],
    "one array": lambda files: np.stack([np.asarray(Image.open(file)) for file in files]),
    "tensors": lambda files: [torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) for file in files],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_every_form_gives_what_prepared_images_give(
    model: ReIDModel, files: list[Path], form: str, batch_size: int | None
) -> None:
    wanted = model.embed(model.preprocess(files))
    assert near(model.embed(FORMS[form](files), batch_size=batch_size), wanted)


def test_one_image_alone_and_prepared_ones_in_parts(model: ReIDModel, files: list[Path]) -> None:
    prepared = model.preprocess(files)
    wanted = model.embed(prepared)
    assert near(model.embed(files[1]), wanted[[1]])
    assert near(model.embed(prepared, batch_size=2), wanted)
    assert len(model.embed(prepared[:0])) == 0


def test_bgr_arrays_are_told_apart(model: ReIDModel, files: list[Path]) -> None:
    swapped = [np.asarray(Image.open(file))[..., ::-1] for file in files]
    assert near(model.embed(swapped, channels="bgr"), model.embed(files))
    assert not near(model.embed(swapped), model.embed(files))


def test_prepared_images_of_other_floats_are_float32_and_their_colours_are_in_order(
    model: ReIDModel, files: list[Path]
) -> None:
    prepared = model.preprocess(files)
    assert near(model.embed(prepared.double()), model.embed(prepared))
    assert near(model.embed(prepared.half()), model.embed(prepared.half().float()))
    with pytest.raises(ShapeError, match="prepared"):
        model.embed(prepared, channels="bgr")


def test_an_open_file_is_no_list_of_images(model: ReIDModel, files: list[Path]) -> None:
    with files[0].open("rb") as file, pytest.raises(ShapeError, match="an image is given as"):
        model.embed(file)  # type: ignore[arg-type]


def test_progress_is_told_after_every_pass(model: ReIDModel, files: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    model.embed(files, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_bad_images_are_named(model: ReIDModel, files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        model.embed([*files, broken])
    with pytest.raises(ImageError, match=r"missing\.png"):
        model.embed("missing.png")
    with pytest.raises(ShapeError, match=r"'images\[1\]'"):
        model.embed([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3))])
    with pytest.raises(ShapeError, match="at least one"):
        model.embed([])
    with pytest.raises(ShapeError, match="batch_size is 0"):
        model.embed(files, batch_size=0)
    with pytest.raises(EmbeddingError, match="NaN"):
        model.embed(torch.full((1, 3, model.preprocess.height, model.preprocess.width), torch.nan))
