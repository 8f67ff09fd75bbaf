"""Automatic cropping: the rule against a plain loop, the same in any batch and any form, and part of the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from occluded_reid import PARSERS, ReIDModel, build_model, load_model
from occluded_reid.config import CropConfig, InputConfig
from occluded_reid.contracts import RegionParser
from occluded_reid.errors import BuildError, DataError, RecipeError, UnknownOptionError
from occluded_reid.models import Preprocess, visible_box
from occluded_reid.parsing.saved import save_parser

Build = Callable[..., ReIDModel]
SMALL = {"backbone": "test_efficientnet", "height": 64, "width": 32, "widths": [8, 8]}


class Colours(RegionParser):
    """Red is the head, green the body: what a test paints is what is seen."""

    names = ("head", "body")

    def __init__(self, reference: Sequence[float] | None = (0.1, 0.4)) -> None:
        super().__init__()
        self.asked = 0
        if reference is not None:
            self.register_buffer("reference", torch.tensor(reference))

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return images[:, :2]


def painted(height: int, width: int, head: Sequence[int] = (), body: Sequence[int] = ()) -> np.ndarray:
    """An image whose head and body are rows (top, bottom), or boxes (top, bottom, left, right)."""
    image = np.zeros((height, width, 3), np.uint8)
    for channel, place in enumerate((head, body)):
        if place:
            top, bottom, left, right = (*place, 0, width) if len(place) == 2 else place
            image[top:bottom, left:right, channel] = 255
    return image


def crop(image: np.ndarray, height: int = 100, width: int = 50, **rule: Any) -> tuple[int, ...] | None:
    config = InputConfig(height=height, width=width, crop=CropConfig(**{"rule": "rows", "margin": 0.0, **rule}))
    (box,) = Preprocess(config, Colours()).boxes([image])
    return box


def naive_box(
    maps: np.ndarray, visible: list[bool], size: tuple[int, int], rule: str, threshold: float, margin: float
) -> tuple[int, int, int, int]:
    """SPEC's rule pixel by pixel: bounding rows of {pixels: Σ visible P > threshold}, and the margin."""
    (regions, rows, columns), (height, width) = maps.shape, size
    inside = []
    for r in range(rows):
        for c in range(columns):
            total = np.float32(0)
            for k in range(regions):
                if visible[k]:
                    total = np.float32(total + maps[k, r, c])
            if total > np.float32(threshold):
                inside.append((r, c))
    if all(visible) or not inside:
        return 0, 0, width, height
    ends = []
    for axis, (cells, length) in enumerate(((rows, height), (columns, width))):
        first = min(place[axis] for place in inside) * length / cells - margin * length
        last = (max(place[axis] for place in inside) + 1) * length / cells + margin * length
        ends.append((max(0, math.floor(round(first, 6))), min(length, math.ceil(round(last, 6)))))
    (top, bottom), (left, right) = ends
    return (0, top, width, bottom) if rule == "rows" else (left, top, right, bottom)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["rows", "box"]),
    st.sampled_from([0.3, 0.5, 0.9]),
    st.sampled_from([0.0, 0.02, 0.1]),
    st.tuples(st.integers(1, 12), st.integers(1, 6)),
    st.tuples(st.integers(1, 150), st.integers(1, 70)),
)
def test_the_rule_is_that_of_a_plain_loop(seed, rule, threshold, margin, cells, size):
    random = np.random.default_rng(seed)
    maps = (random.random((4, *cells)) ** 4 / 2).astype(np.float32)
    visible = (random.random(4) < 0.6).tolist()
    found = visible_box(
        torch.from_numpy(maps),
        visible,
        size,
        rule=rule,
        threshold=threshold,
        margin=margin,
        min_height=0.0,
        middle="keep",
    )
    wanted = naive_box(maps, visible, size, rule, threshold, margin)
    assert (found or (0, 0, size[1], size[0])) == wanted
    assert found != (0, 0, size[1], size[0])


def naive_pieces(
    maps: np.ndarray, visible: list[bool], size: tuple[int, int], threshold: float, margin: float
) -> tuple[int, int, int, int]:
    """Rows, with hidden regions between visible ones: pieces of the body, and the one of the most cells."""
    (regions, rows, columns), height = maps.shape, size[0]

    def seen(which: list[int], r: int, c: int) -> bool:
        return bool(np.float32(sum(np.float64(maps[k, r, c]) for k in which)) > np.float32(threshold))

    runs: list[list[int]] = []
    for k in range(regions):
        if visible[k]:
            if k and visible[k - 1]:
                runs[-1].append(k)
            else:
                runs.append([k])
    spans = []
    for run in runs:
        its = [r for r in range(rows) for c in range(columns) if seen(run, r, c)]
        if its:
            spans.append([min(its), max(its) + 1])
    spans.sort()
    joined = True
    while joined:  # until no two meet
        joined = False
        for one, other in itertools.combinations(spans, 2):
            if other[0] - one[1] <= 2 * margin * rows + 1e-9 and one[0] - other[1] <= 2 * margin * rows + 1e-9:
                others = [span for span in spans if span not in (one, other)]
                spans = sorted([*others, [min(one[0], other[0]), max(one[1], other[1])]])
                joined = True
                break
    every = [k for k in range(regions) if visible[k]]
    whole = [(r, c) for r in range(rows) for c in range(columns) if seen(every, r, c)]
    if all(visible) or not whole:
        return 0, 0, size[1], height
    if len(spans) > 1:
        best, most = spans[0], -1
        for start, stop in spans:
            cells = sum(start <= r < stop for r, _ in whole)
            if cells > most:
                best, most = [start, stop], cells
        whole = [(r, c) for r, c in whole if best[0] <= r < best[1]]
    first, last = min(r for r, _ in whole), max(r for r, _ in whole) + 1
    top = max(0, math.floor(round(first * height / rows - margin * height, 6)))
    return 0, top, size[1], min(height, math.ceil(round(last * height / rows + margin * height, 6)))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.3, 0.5]),
    st.sampled_from([0.0, 0.02, 0.1]),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.integers(8, 24),
)
def test_a_hidden_middle_is_cut_as_a_plain_loop_does(seed, threshold, margin, visible, rows):
    random = np.random.default_rng(seed)
    maps = np.zeros((4, rows, 3), np.float32)
    for k in range(4):  # one below the other, each somewhere in its quarter or a little beyond
        start = int(k * rows / 4 + random.integers(-1, 2))
        maps[k, max(0, start) : start + int(random.integers(1, rows // 3)), : random.integers(1, 4)] = 0.9
    found = visible_box(torch.from_numpy(maps), visible, (90, 30), threshold=threshold, margin=margin, min_height=0.0)
    wanted = naive_pieces(maps, list(visible), (90, 30), threshold, margin)
    assert (found or (0, 0, 30, 90)) == wanted


def test_what_hides_the_middle_is_cut_away():
    """Head, lower body and shoes are seen, the upper body is behind a table."""
    maps = torch.zeros(4, 24, 8)
    maps[0, 0:3], maps[2, 12:22], maps[3, 22:24] = 0.9, 0.9, 0.9
    visible = [True, False, True, True]
    assert visible_box(maps, visible, (240, 80), margin=0.0) == (0, 120, 80, 240), "the legs, which are most of it"
    assert visible_box(maps, visible, (240, 80), margin=0.0, middle="keep") is None, "from the head to the shoes"
    assert visible_box(maps, [True, False, False, True], (240, 80), margin=0.0, min_height=0.0) == (0, 0, 80, 30)
    maps[0, 3:12] = 0.9  # a head that reaches down to the legs: nothing parts them
    assert visible_box(maps, visible, (240, 80), margin=0.0) is None
    # A gap between two visible regions is nobody's hidden part.
    maps[0], maps[1] = 0.0, 0.0
    maps[0, 0:3], maps[1, 6:12] = 0.9, 0.9
    assert visible_box(maps, [True, True, True, False], (240, 80), margin=0.0) == (0, 0, 80, 220)


def test_a_pillar_at_the_side_is_cut_away_where_that_is_asked_for():
    half = painted(100, 50, head=(0, 20, 20, 50), body=(20, 100, 20, 50))
    assert crop(half, rule="box") is None
    assert crop(half, rule="box", when="always") == (20, 0, 50, 100)
    assert crop(half, rule="rows", when="always") is None, "rows keep the full width"
    assert crop(painted(100, 50), rule="box", when="always") is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 19), st.integers(1, 20), st.floats(0, 1), st.integers(5, 130))
def test_the_least_height_grows_about_the_middle_within_the_image(first, count, least, height):
    count = min(count, 20 - first)
    maps = torch.zeros(2, 20, 3)
    maps[0, first : first + count] = 1.0
    rule: dict[str, Any] = {"rule": "rows", "margin": 0.0}
    tight = visible_box(maps, [True, False], (height, 9), min_height=0.0, **rule) or (0, 0, 9, height)
    box = visible_box(maps, [True, False], (height, 9), min_height=least, **rule) or (0, 0, 9, height)
    wanted = max(tight[3] - tight[1], min(height, math.ceil(round(least * height, 6))))
    assert box[3] - box[1] == wanted
    assert 0 <= box[1] <= tight[1] <= tight[3] <= box[3] <= height
    above, below = tight[1] - box[1], box[3] - tight[3]
    assert abs(above - below) <= 1 or box[1] == 0 or box[3] == height


def test_what_is_seen_decides_what_is_kept():
    # The head covers 10 of 100 rows: its usual area; of the body 5 rows are 1/8 of what is usual, below 0.2.
    occluded = painted(100, 50, head=(10, 20), body=(20, 25))
    assert crop(occluded, min_height=0.0) == (0, 10, 50, 20)
    assert crop(occluded, min_height=0.3) == (0, 0, 50, 30)
    assert crop(occluded, min_height=0.0, margin=0.02) == (0, 8, 50, 22)
    assert crop(occluded, visible=0.1) is None  # now the body counts as visible too
    assert crop(occluded, visible={"head": 0.2, "body": 0.1}) is None
    assert crop(occluded, visibility="area", visible={"head": 0.2, "body": 0.04}, min_height=0.0) == (0, 20, 50, 25)
    assert crop(painted(100, 50, head=(10, 20), body=(20, 60))) is None
    assert crop(painted(100, 50)) is None  # nobody is seen: nothing is cut off
    half = painted(100, 50, body=(50, 100, 10, 30))
    assert crop(half, rule="box", min_height=0.1) == (10, 50, 30, 100)
    assert crop(half, rule="none") is None


def test_the_crop_is_the_same_in_any_batch_and_any_form(tmp_path: Path):
    random = np.random.default_rng(0)
    images = []
    for number in range(70):
        top = int(random.integers(0, 60))
        images.append(painted(100 + number % 3, 40, head=(top, top + 12)))
    config = InputConfig(height=50, width=20, crop=CropConfig(rule="rows"))
    preprocess = Preprocess(config, Colours())
    boxes = preprocess.boxes(images)
    assert boxes == [preprocess.boxes([image])[0] for image in images]
    assert None not in boxes
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    together = preprocess.pixels(images)
    assert np.array_equal(together, preprocess.pixels(paths))
    assert np.array_equal(together, preprocess.pixels([Image.fromarray(image) for image in images]))
    assert np.array_equal(together, preprocess.pixels(paths, boxes))
    assert torch.equal(preprocess(paths), preprocess.normalize(together))
    plain = Preprocess(InputConfig(height=50, width=20))
    by_hand = [image[box[1] : box[3], box[0] : box[2]] for image, box in zip(images, boxes, strict=True) if box]
    assert np.array_equal(together, plain.pixels(by_hand))
    assert plain.boxes(images) == [None] * len(images)
    assert plain.pixels([]).shape == (0, 50, 20, 3)


def test_what_does_not_fit_is_said_when_the_model_is_built():
    rows = CropConfig(rule="rows")

    def make(parser: RegionParser | None, **crop: Any) -> None:
        Preprocess(InputConfig(crop=rows.model_copy(update=crop)), parser)

    with pytest.raises(BuildError, match="this model has none"):
        make(None)
    with pytest.raises(BuildError, match="knows no usual area"):
        make(Colours(None))
    make(Colours(None), visibility="area")
    with pytest.raises(BuildError, match=r"'haed'.*Did you mean 'head'\?"):
        make(Colours(), visible={"haed": 0.2, "body": 0.1})
    with pytest.raises(BuildError, match="no threshold for body"):
        make(Colours(), visible={"head": 0.2})
    with pytest.raises(RecipeError, match=r"crop\.rules: there is no such key. Did you mean 'rule'"):
        build_model("sorn_lite", **{"model.input.crop.rules": "rows"})


@pytest.fixture
def cropping(tiny: Build) -> Iterator[Build]:
    """A small SORN whose parser sees colours, and which crops rows."""
    PARSERS.register("colours")(Colours)

    def build(num_classes: int | None = None, **overrides: Any) -> ReIDModel:
        return tiny(num_classes, **{"model.parser": "colours", "model.input.crop.rule": "rows", **overrides})

    yield build
    PARSERS.unregister("colours")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for number, (head, body) in enumerate([((), (50, 90)), ((10, 20), (20, 80)), ((30, 45), ()), ((), (5, 50))]):
        paths.append(tmp_path / f"{number}.png")
        image = painted(90 + number, 40, head, body)
        image[..., 2] = np.random.default_rng(number).integers(0, 256, image.shape[:2])
        Image.fromarray(image).save(paths[-1])
    return paths


def test_a_model_embeds_a_file_as_it_embeds_what_is_left_of_it(cropping: Build, files: list[Path]) -> None:
    model = cropping()
    boxes = model.preprocess.boxes(files)
    assert {box is None for box in boxes} == {True, False}, "the images of this test should be of both kinds"
    whole = (0, 0, 0, 1000)
    kept = [np.asarray(Image.open(f))[(b or whole)[1] : (b or whole)[3]] for f, b in zip(files, boxes, strict=True)]
    plain = cropping(**{"model.input.crop.rule": "none"})
    rows, wanted = model.embed(model.preprocess(files)), plain.embed(plain.preprocess(kept))
    for slot in model.slots:
        assert torch.equal(rows.slot(slot), wanted.slot(slot))
    uncropped = plain.embed(plain.preprocess(files))
    assert not torch.equal(rows.slot("global"), uncropped.slot("global"))


def test_it_is_rebuilt_from_the_checkpoint_alone(cropping: Build, files: list[Path], tmp_path: Path) -> None:
    trained = PARSERS.create("small", **SMALL)
    trained.reference.fill_(0.9)
    save_parser(trained, tmp_path / "parser")
    weights = {"type": "small", "weights": str(tmp_path / "parser")}
    model = build_model(cropping().recipe, **{"model.parser": weights})
    assert model.recipe.model.parser is not None
    assert model.recipe.model.parser.options == trained.options  # the folder has filled them in
    assert model.preprocess.parser.fingerprint == trained.fingerprint  # type: ignore[union-attr]
    model.save(tmp_path / "model")
    for file in (tmp_path / "parser").iterdir():
        file.unlink()
    again = load_model(tmp_path / "model")
    assert again.fingerprint == model.fingerprint
    assert again.preprocess.boxes(files) == model.preprocess.boxes(files)
    assert again.preprocess.parser.fingerprint == trained.fingerprint  # type: ignore[union-attr]
    assert torch.equal(again.preprocess(files), model.preprocess(files))
    assert not any(parameter.requires_grad for parameter in again.preprocess.parameters())


def test_the_fingerprint_knows_the_weights_and_not_where_they_lay(cropping: Build, tmp_path: Path) -> None:
    parser = PARSERS.create("small", **SMALL)
    prints = []
    for name in ("here", "there"):
        save_parser(parser, tmp_path / name)
        prints.append(cropping(**{"model.parser": {"type": "small", "weights": str(tmp_path / name)}}).fingerprint)
    assert prints[0] == prints[1]
    model = cropping()
    before = model.fingerprint
    assert model.preprocess.parser is not None
    model.preprocess.parser.reference[0] += 0.1  # type: ignore[operator]
    assert model.fingerprint != before
    assert cropping(**{"model.input.crop.margin": 0.1}).fingerprint != before


def test_a_model_that_does_without_keeps_its_fingerprint(tiny: Build) -> None:
    assert tiny(None, **{"model.input.crop.margin": 0.1}).fingerprint == tiny(None).fingerprint


def test_the_parser_stays_frozen_while_the_model_trains(cropping: Build) -> None:
    model = cropping(4, **{"model.parser": {"type": "small", "options": SMALL}}).train()
    assert model.backbone.training
    parser = model.preprocess.parser
    assert parser is not None
    assert not any(module.training for module in parser.modules())
    trained = {id(p) for group in model.parameter_groups(model.recipe.optim) for p in group["params"]}
    assert not trained & {id(p) for p in parser.parameters()}


def test_only_a_network_can_be_a_models_parser(tiny: Build, tmp_path: Path) -> None:
    save_parser(PARSERS.create("small", **SMALL), tmp_path / "parser")
    with pytest.raises(BuildError, match=r"holds the parser 'small'. Set model\.parser\.type=small"):
        tiny(None, **{"model.parser": {"type": "deeplabv3", "weights": str(tmp_path / "parser")}})
    (tmp_path / "masks").mkdir()
    masks = {"type": "masks", "options": {"folder": str(tmp_path / "masks"), "label_set": "sorn8"}}
    with pytest.raises(BuildError, match="is no network that a model can carry"):
        tiny(None, **{"model.parser": masks})
    with pytest.raises(UnknownOptionError, match="Did you mean 'label_set'"):
        tiny(None, **{"model.parser": {"type": "small", "options": {"label_sets": "sorn8"}}})


def test_crops_are_remembered_under_image_parser_and_rule(tmp_path: Path) -> None:
    config = InputConfig(height=50, width=20, crop=CropConfig(rule="rows"))
    images = [painted(100, 40, head=(top, top + 12)) for top in (5, 30, 50)]
    images.append(images[0].copy())
    images.append(painted(100, 40, head=(0, 10), body=(10, 60)))
    parser = Colours()
    preprocess = Preprocess(config, parser)
    wanted = preprocess.boxes(images)
    assert wanted[4] is None
    parser.asked = 0
    preprocess.cache_crops(tmp_path / "crops")
    assert preprocess.boxes(images) == preprocess.boxes(images) == wanted
    assert parser.asked == 4  # one image is there twice, and nothing is parsed again
    again = Colours()
    later = Preprocess(config, again)
    later.cache_crops(tmp_path / "crops")
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    assert (later.boxes(files), again.asked) == (wanted, 0)  # files with the same pixels are the same images
    for changed in (
        Preprocess(config, Colours((0.1, 0.3))),
        Preprocess(InputConfig(height=50, width=20, crop=CropConfig(rule="box")), Colours()),
    ):
        changed.cache_crops(tmp_path / "crops")
        changed.boxes(images)
        assert changed.parser is not None
        assert changed.parser.asked == 4
    assert [path.name for path in (tmp_path / "crops").iterdir()] == ["crops.sqlite"]
    (tmp_path / "crops" / "crops.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match=r"crops\.sqlite' cannot be used"):
        later.boxes(images)
    with pytest.raises(DataError, match="cannot be used"):
        Preprocess(config, Colours()).cache_crops(tmp_path / "crops")
