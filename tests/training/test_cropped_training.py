"""Training with automatic cropping: the loader's pixels are those of the model, and masks are cut with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import PARSERS, ReIDData, build_model, load_model
from occluded_reid.contracts import RegionParser
from occluded_reid.data.cache import DecodedImages
from occluded_reid.errors import MaskError
from occluded_reid.evaluation.embed import embed_with_truth, true_visibility
from occluded_reid.models import ReIDModel
from occluded_reid.training import train
from occluded_reid.training.batches import make_loader

Make = Callable[..., ReIDModel]


class Colours(RegionParser):
    """Red is the upper body, green the lower body."""

    names = ("upper_body", "lower_body")

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reference", torch.tensor([0.3, 0.3]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :2]


@pytest.fixture
def data(tiny: ModuleType, tmp_path: Path) -> ReIDData:
    """Noise in blue, and people in red and green of whom some are half hidden."""
    made: ReIDData = tiny.make_data(tmp_path)
    random = np.random.default_rng(1)
    for number, sample in enumerate(made.train):
        image = random.integers(0, 256, (64, 32, 3), dtype=np.uint8)
        image[..., :2] = 0
        image[4 : 24 + number % 7, :, 0] = 255
        if number % 3:
            image[36:60, :, 1] = 255
        Image.fromarray(image).save(sample.path)
    return made


@pytest.fixture
def make(tiny: ModuleType) -> Iterator[Make]:
    PARSERS.register("colours")(Colours)

    def build(num_classes: int | None = 4, **overrides: Any) -> ReIDModel:
        recipe = tiny.tiny_recipe(
            **{"model.parser": "colours", "model.input.crop.rule": "rows", "optim.epochs": 1, **overrides}
        )
        torch.manual_seed(0)
        return build_model(recipe, num_classes=num_classes)

    yield build
    PARSERS.unregister("colours")


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_the_loader_holds_what_the_model_sees_and_masks_are_cut_alike(make: Make, data: ReIDData, limit: int) -> None:
    preprocess = make().preprocess
    paths = [sample.path for sample in data.train]
    boxes = preprocess.boxes(paths)
    assert {box is None for box in boxes} == {True, False}
    images = DecodedImages(data.train, 64, 32, masks=8, crop=preprocess.boxes, limit_bytes=limit)
    assert images.in_memory == (limit > 0)
    assert np.array_equal(np.stack([images[i][0] for i in range(len(images))]), preprocess.pixels(paths))
    for position, box in enumerate(boxes):
        with Image.open(data.train[position].mask) as file:  # type: ignore[arg-type]
            kept = file if box is None else file.crop(box)
            wanted = np.asarray(kept.resize((32, 64), Image.Resampling.NEAREST))
        assert np.array_equal(images[position][1], wanted)  # type: ignore[arg-type]


def test_an_unreadable_image_is_skipped_without_a_shift_of_the_crops(make: Make, data: ReIDData) -> None:
    preprocess = make().preprocess
    data.train[3].path.write_bytes(b"")
    for limit in (0, 1 << 30):
        images = DecodedImages(data.train, 64, 32, crop=preprocess.boxes, limit_bytes=limit, skip_unreadable=True)
        kept = [sample.path for n, sample in enumerate(data.train) if n != 3]
        assert images.skipped == (data.train[3].name,)
        assert np.array_equal(np.stack([images[i][0] for i in range(len(images))]), preprocess.pixels(kept))


def test_a_batch_is_what_preprocessing_gives(make: Make, data: ReIDData) -> None:
    model = make(**{"data.augment": []})
    loader = make_loader(data, model.recipe, model.preprocess)
    batch = next(loader.batches(1))
    found = {sample.name: sample.path for sample in data.train}
    wanted = model.preprocess([found[name] for name in batch.targets.path])
    torch.testing.assert_close(batch.images, wanted, rtol=0, atol=1e-5)


def test_a_recipe_that_crops_trains_goes_on_and_embeds_alike(make: Make, data: ReIDData, tmp_path: Path) -> None:
    recipe = make().recipe
    whole = train(recipe.override({"optim.epochs": 2}), data, tmp_path / "whole", show=False)

    def stop(record: Any) -> None:
        raise KeyboardInterrupt

    two = recipe.override({"optim.epochs": 2})
    with pytest.raises(KeyboardInterrupt):
        train(two, data, tmp_path / "run", show=False, on_epoch=stop)
    again = train(two, data, tmp_path / "run", show=False, resume=True)
    model, unbroken = load_model(again.model), load_model(whole.model)
    assert model.fingerprint == unbroken.fingerprint
    paths = [sample.path for sample in data.train[:3]]
    rows, wanted = model.embed(model.preprocess(paths)), unbroken.embed(unbroken.preprocess(paths))
    assert torch.equal(rows.slot("global"), wanted.slot("global"))


def test_a_model_that_is_built_already_crops_too(make: Make, data: ReIDData, tmp_path: Path) -> None:
    seen: list[int] = []
    model = make()
    assert model.preprocess.parser is not None
    model.preprocess.parser.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    train(model, data, tmp_path / "run", show=False)
    assert sum(seen) == len(data.train)  # each image once, and none in the epochs


def test_the_data_are_checked_before_a_model_is_made(make: Make, data: ReIDData, tmp_path: Path) -> None:
    bare = ReIDData("bare", tmp_path, train=tuple(type(s)(s.name, s.path, s.identity, s.camera) for s in data.train))
    missing = make().recipe.override({"model.parser": {"type": "small", "weights": str(tmp_path / "nowhere")}})
    with pytest.raises(MaskError, match="have no part mask"):
        train(missing, bare, tmp_path / "run", show=False)


def test_true_visibility_is_that_of_the_crop(make: Make, data: ReIDData) -> None:
    model = make(None)
    result = embed_with_truth(model, data, data.train[:6])
    boxes = model.preprocess.boxes([sample.path for sample in data.train[:6]])
    assert any(boxes)
    masks = []
    for sample, box in zip(data.train[:6], boxes, strict=True):
        with Image.open(sample.mask) as file:  # type: ignore[arg-type]
            masks.append(np.asarray(file if box is None else file.crop(box)))
    assert result.truth is not None
    assert torch.equal(result.truth, true_visibility(model, masks))
