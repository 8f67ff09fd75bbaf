"""Training a parser: it learns, is scored on what was held out, goes on where it stopped, and swaps left and right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.data.transforms import View
from occluded_reid.errors import BuildError, CheckpointError, DataError, MaskError, RecipeError
from occluded_reid.parsing.labelled import FlipLabels, load_images
from occluded_reid.parsing.recipe import ParserRecipe, list_parser_recipes, load_parser_recipe
from occluded_reid.parsing.saved import load_parser
from occluded_reid.training.parser import evaluate_parser, region_areas, train_parser
from occluded_reid.yaml12 import parse_yaml

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "type": "small",
        "options": {"backbone": "test_efficientnet", "height": 64, "width": 32, "widths": [16, 16]},
    },
    "data": {"batch": 4, "augment": ["flip"]},
    "optim": {"type": "adam", "lr": 1e-2, "weight_decay": 0.0, "epochs": 30},
}
COLOURS = np.random.default_rng(5).integers(0, 256, (8, 3))


def make_data(root: Path, count: int = 8, label_set: int = 8, held: int = 0) -> ReIDData:
    """Stripes of classes, each in a colour of its own."""
    random = np.random.default_rng(0)
    samples = []
    for number in range(count + held):
        rows = np.sort(np.concatenate([[0], random.choice(np.arange(4, 60), label_set - 1, replace=False)]))
        mask = (np.arange(64)[:, None] >= rows).sum(1).astype(np.uint8)[:, None].repeat(32, 1) - 1
        image = np.clip(COLOURS[mask] + random.integers(-20, 20, (64, 32, 3)), 0, 255).astype(np.uint8)
        for folder, array in (("images", image), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / f"{number}.png")
        samples.append(
            Sample(f"{number}.png", root / "images" / f"{number}.png", str(number), 0, root / "masks" / f"{number}.png")
        )
    return ReIDData("stripes", root, train=tuple(samples[:count]), gallery=tuple(samples[count:]))


def test_it_learns_what_the_masks_say(tmp_path: Path) -> None:
    data = make_data(tmp_path, held=3)
    result = train_parser(RECIPE, data, tmp_path / "run", show=False)
    losses = [record.losses["total"] for record in result.training.history]
    assert losses[-1] < 0.4 * losses[0]
    assert result.scores is not None
    untrained = load_parser_recipe(RECIPE, {"optim.lr": 1e-12, "optim.epochs": 1})
    before = train_parser(untrained, data, tmp_path / "none", show=False).scores
    assert before is not None
    assert result.scores.pixel_accuracy > before.pixel_accuracy + 0.3
    assert json.loads((tmp_path / "run" / "scores.json").read_text()) == result.scores.to_dict()
    assert "pixel accuracy" in result.summary()

    parser = load_parser(result.parser)
    assert evaluate_parser(parser, data.gallery) == result.scores
    pixels = [np.asarray(Image.open(sample.path)) for sample in data.train]
    found = torch.stack([parser(torch.tensor(p).permute(2, 0, 1)[None] / 255)[0] for p in pixels])
    for region, name in enumerate(parser.names):
        areas = sorted(float(m.double().mean()) for m in found[:, region] if float(m.max()) > 0.5)
        assert result.areas[name] == pytest.approx(areas[(len(areas) - 1) // 2], abs=1e-5)


def test_a_region_that_is_never_seen_keeps_its_usual_area(network: Any) -> None:
    parser = network(label_set="sgam5")
    with torch.no_grad():
        parser.classify.weight.zero_()
        parser.classify.bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0]))
    before = parser.reference.clone()
    areas = region_areas(parser, [np.zeros((64, 32, 3), np.uint8)] * 3)
    assert torch.equal(areas[[0, 2, 3]], before[[0, 2, 3]])
    assert float(areas[1]) == pytest.approx(np.exp(9) / (np.exp(9) + 4), abs=1e-5)


@pytest.fixture
def network() -> Any:
    from occluded_reid import PARSERS

    return lambda **options: PARSERS.create("small", **{**RECIPE["model"]["options"], **options})


def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    recipe = load_parser_recipe(RECIPE, {"optim.epochs": 3, "data.augment": ["flip", "erase"]})
    whole = train_parser(recipe, data, tmp_path / "whole", seed=3, show=False)

    def stop(record: Any) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_parser(recipe, data, tmp_path / "stopped", seed=3, show=False, on_epoch=stop)
    resumed = train_parser(recipe, data, tmp_path / "stopped", seed=3, show=False, resume=True)
    assert len(resumed.training.history) == 3
    assert load_parser(resumed.parser).fingerprint == load_parser(whole.parser).fingerprint
    with pytest.raises(CheckpointError, match="seed: 3 then, 4 now"):
        train_parser(recipe, data, tmp_path / "stopped", seed=4, show=False, resume=True)


@pytest.mark.parametrize("at", ["input", "map"])
def test_the_literal_softmax_learns_from_people_only(tmp_path: Path, at: str) -> None:
    changes = {"model.options.label_set": "sgam5", "model.options.background": False, "data.labels": "sorn8"}
    recipe = load_parser_recipe(RECIPE, {**changes, "model.loss.at": at, "optim.epochs": 8})
    result = train_parser(recipe, make_data(tmp_path, held=2), tmp_path / "run", show=False, evaluate_every=4)
    losses = [record.losses["total"] for record in result.training.history]
    assert losses[-1] < losses[0]
    assert result.scores is not None
    assert result.scores.iou["background"] is None
    assert [set(record.scores) for record in result.training.history][3] == {"mIoU", "pixel_accuracy"}


def test_a_flip_swaps_left_and_right() -> None:
    view = View(np.arange(12, dtype=np.uint8).reshape(1, 4, 3), np.array([[14, 0, 17, 19]], np.uint8))
    mirrored = FlipLabels(p=1.0, label_set="lip20")(view, np.random.default_rng(0))
    assert mirrored.parsing is not None
    assert mirrored.parsing.tolist() == [[18, 16, 0, 15]]
    assert mirrored.image[0, :, 0].tolist() == [9, 6, 3, 0]
    assert FlipLabels(p=0.0)(view, np.random.default_rng(0)) is view


def test_flips_of_unmerged_classes_are_swapped_by_the_training(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    recipe = load_parser_recipe(
        RECIPE, {"model.options.label_set": "lip20", "optim.epochs": 1, "data.augment": [{"type": "flip"}]}
    )
    seen: list[str] = []
    original = FlipLabels.__init__

    def spy(self: FlipLabels, **options: Any) -> None:
        seen.append(options["label_set"])
        original(self, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlipLabels, "__init__", spy)
        train_parser(recipe, data, tmp_path / "run", show=False)
    assert seen == ["lip20"]


def test_a_plain_folder_of_images_will_do(tmp_path: Path) -> None:
    make_data(tmp_path)
    data = load_images(tmp_path / "images").with_masks(tmp_path / "masks")
    assert (len(data.train), data.cameras_known, data.train[0].identity) == (8, False, "0.png")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no image"):
        load_images(tmp_path / "empty")


def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path: Path, network: Any) -> None:
    data = make_data(tmp_path)

    def attempt(**changes: Any) -> None:
        train_parser(load_parser_recipe(RECIPE, changes), data, tmp_path / "run", show=False)

    with pytest.raises(MaskError, match="cannot become 'pascal7'"):
        attempt(**{"model.options.label_set": "pascal7", "data.labels": "sorn8"})
    with pytest.raises(MaskError, match="holds class 7"):
        attempt(**{"model.options.label_set": "sgam5", "data.labels": "sgam5"})
    masks = {"type": "masks", "options": {"folder": str(tmp_path / "masks"), "label_set": "sorn8"}}
    with pytest.raises(BuildError, match="no network that can be trained"):
        attempt(model=masks)
    with pytest.raises(DataError, match="do not fill one batch of 9"):
        attempt(**{"data.batch": 9})
    with pytest.raises(DataError, match="nothing to compare"):
        evaluate_parser(network(), [])
    with pytest.raises(RecipeError, match=r"model\.loss\.at: was given 'cell'"):
        load_parser_recipe(RECIPE, {"model.loss.at": "cell"})
    with pytest.raises(RecipeError, match="Did you mean 'small_parser'"):
        load_parser_recipe("smal_parser")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", list_parser_recipes())
def test_the_recipes_of_the_library_resolve(name: str) -> None:
    from occluded_reid import PARSERS
    from occluded_reid.data.transforms import make_transform

    recipe = load_parser_recipe(name)
    assert recipe == load_parser_recipe(recipe) == ParserRecipe.model_validate(recipe.model_dump())
    assert recipe.name == name
    parser = PARSERS.create(recipe.model.type, **recipe.model.options)
    assert parser.options == {**parser.options, **recipe.model.options}
    assert all(make_transform(component, people=None) for component in recipe.data.augment)


def test_the_table_in_the_docs_is_what_the_recipe_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sgam-parser.md").read_text(encoding="utf-8")
    recipe: Any = load_parser_recipe("sgam_parser").model_dump(mode="json")
    table = page.split("<!-- parser recipe: sgam_parser -->")[1].split("\n###")[0]
    rows = re.findall(r"^\| .+ \| `(.+)` \| (.+) \|$", table, re.MULTILINE)
    assert len(rows) == 19
    for key, value in rows:
        place = recipe
        for part in key.split("."):
            number = int(part) if part.isdigit() else -1
            place = place[number] if isinstance(place, list) else place.get(part, place.get(number))
        assert place == parse_yaml(value), key
