"""What holds for every system alike: it trains, saves, loads, embeds, and goes with every matcher."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from occluded_reid import (
    MATCHERS,
    Batch,
    ReIDModel,
    Targets,
    build_model,
    list_models,
    load_dataset,
    load_model,
    load_recipe,
    train,
)
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.errors import BuildError, RecipeError
from occluded_reid.search import InMemoryRows, exact_topk

TWELVE = SyntheticOptions(
    train_identities=12, test_identities=2, cameras=2, images_per_camera=2, distractors=0, occluded_queries=0.0
)
LITE = [name for name in list_models() if name.endswith("_lite")]
SYSTEMS = [name for name in LITE if name != "oreid_lite" and load_recipe(name).optim.continues is None]
"""Those that are compared with each other: of published systems, taught by labels alone, in one stage."""


def numbers(values: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in values.items()}


def test_every_system_has_a_lite_recipe():
    assert {"bot_lite", "fed_lite", "ocnet_lite", "pcb_lite", "sgam_lite", "sorn_lite"} <= set(LITE)


@pytest.mark.parametrize("recipe", SYSTEMS)
def test_lite_recipes_differ_only_where_the_systems_do(recipe):
    given, reference = load_recipe(recipe), load_recipe("bot_lite")
    assert given.optim == reference.optim
    assert given.data.batch == reference.data.batch
    assert given.model.backbone == reference.model.backbone
    assert (given.model.input.height, given.model.input.width) == (192, 64)


class OneBatch:
    """A loader that has one batch to show before training."""

    def __init__(self, images: torch.Tensor, targets: Targets) -> None:
        self.batch = Batch(images, targets)

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        yield self.batch


def prepared(model: ReIDModel, images: torch.Tensor, targets: Targets) -> ReIDModel:
    """The model as training finds it in epoch 1: a memory, where it has one, holds something."""
    for head in model.parts.values():
        if hasattr(head, "prepare_training"):
            head.prepare_training(model, OneBatch(images, targets))
    return model.train()


@pytest.mark.parametrize("recipe", LITE)
def test_gradients_reach_every_parameter_and_the_parts_add_up(system, views, recipe):
    images, targets = views()
    model = prepared(system(recipe), images, targets)
    values = model.criterion(model(images, targets), targets)
    values.total.backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().any())]
    labelled = recipe in SYSTEMS  # where no label is learnt, the classifiers of heads stand idle
    assert [name for name in silent if labelled or ".classifier" not in name] == []
    weights = {name: component.weight for name, component in model.recipe.model.losses.items()}
    assert set(values.named) == set(weights)
    expected = sum(weights[name] * value for name, value in numbers(values.named).items())
    assert float(values.total.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("recipe", SYSTEMS)
def test_identity_terms_start_at_the_logarithm_of_the_classes(system, views, recipe):
    model = system(recipe, 50).train()
    images, targets = views()
    output = model(images, targets)
    named = numbers(model.criterion(output, targets).named)
    terms = {name: c for name, c in model.recipe.model.losses.items() if c.type == "identity"}
    assert terms
    for name, component in terms.items():
        slots = len(output[component.on].logits) if component.options.get("aggregate") == "sum" else 1
        assert named[name] / slots == pytest.approx(math.log(50), abs=0.05), name


@pytest.mark.parametrize("recipe", LITE)
def test_named_losses_fall_on_a_fixed_batch(system, views, recipe):
    images, targets = views()
    model = prepared(system(recipe), images, targets)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    first = last = {}
    for _ in range(60):
        values = model.criterion(model(images, targets), targets)
        optimizer.zero_grad()
        values.total.backward()
        optimizer.step()
        last = numbers(values.named)
        first = first or last
    # With label smoothing ε a perfect prediction still costs; separation cannot go below the number of its parts.
    floor = {"separation": 2.0}
    for name, value in last.items():
        if first[name] > floor.get(name, 0.0) + 0.02:
            assert value < first[name], name


@pytest.mark.parametrize("recipe", LITE)
def test_saved_and_loaded_it_gives_the_same_embeddings(system, views, recipe, tmp_path: Path):
    model = system(recipe).train()
    images, targets = views()
    model(images, targets)  # statistics of batch normalisation that are not those of a fresh network
    model.save(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.fingerprint == model.fingerprint
    assert loaded.num_classes is None
    here, there = model.embed(images), loaded.embed(images)
    assert here.names == there.names == tuple(loaded.slots)
    for a, b in zip(here.embeddings, there.embeddings, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(here.visibility, there.visibility)
    training_only = [name for name, head in model.parts.items() if head.info.training_only]
    assert not any(key.startswith(tuple(f"heads.{n}." for n in training_only)) for key in loaded.state_dict())
    with pytest.raises(BuildError, match="built for inference and computes no loss"):
        _ = loaded.criterion


@pytest.mark.parametrize("recipe", LITE)
def test_an_image_alone_is_embedded_as_in_a_batch(system, views, recipe):
    model = system(recipe, None)
    images, _ = views()
    together = model.embed(images)
    for i in (0, len(images) - 1):
        alone = model.embed(images[i : i + 1])
        for a, b in zip(alone.embeddings, together.embeddings, strict=True):
            torch.testing.assert_close(a[0], b[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.visibility[0], together.visibility[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("matcher", MATCHERS.names())
@pytest.mark.parametrize("recipe", LITE)
def test_every_model_goes_with_every_matcher(system, views, recipe, matcher):
    model = system(recipe, None)
    rows = model.embed(views()[0])
    options = {} if matcher != "public_distance" or "global" in model.slots else {"always": next(iter(model.slots))}
    chosen = MATCHERS.create(matcher, **options)
    distances = chosen.distance(rows, rows)
    assert distances.shape == (len(rows), len(rows))
    assert distances.isfinite().all()
    torch.testing.assert_close(distances, distances.T, atol=2e-4, rtol=1e-4)
    found = exact_topk(rows, InMemoryRows(rows), chosen, 3)
    for i, (positions, shown) in enumerate(zip(found.positions, found.distances, strict=True)):
        torch.testing.assert_close(distances[i, positions].double(), torch.as_tensor(shown), atol=2e-4, rtol=1e-4)
        assert shown[-1] <= float(distances[i].sort().values[2]) + 2e-4


def test_a_matcher_that_does_not_fit_is_refused_when_the_model_is_built(system):
    with pytest.raises(BuildError, match=r"matcher 'public_distance'.*'global'"):
        system("pcb_lite", None, **{"model.matcher": {"type": "public_distance"}})
    with pytest.raises(BuildError, match=r"matcher 'plain'.*'part_9'"):
        system("pcb_lite", None, **{"model.matcher": {"type": "plain", "options": {"weights": {"part_9": 2.0}}}})


def test_training_with_a_random_parser_is_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"model.parser.weights names no weights.*train-parser"):
        train("sgam_lite", load_dataset("synthetic", generate(tmp_path / "set", TWELVE)), tmp_path / "run", show=False)


# At 96×32 these backbones end in a map of 3×1 (the ViT: 6×2): too small for four parts, six stripes, two columns in the
# middle; and none but the ViT, which has one scale, is the pyramid that SORN's deconvolutions need.
TOO_SMALL = frozenset({"test_resnet", "test_convnext", "test_byobnet"})
REFUSED = dict.fromkeys(("fed_lite", "ocnet_lite", "oreid_lite", "pcb_lite", "pcb_rpp_lite", "sorn_lite"), TOO_SMALL)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit", "test_byobnet"])
@pytest.mark.parametrize("recipe", LITE)
def test_another_backbone_fits_or_says_why_when_it_is_built(system, views, recipe, backbone):
    overrides = {"model.backbone": {"type": backbone, "options": {}}}
    if backbone in REFUSED.get(recipe, ()):
        with pytest.raises(BuildError, match=r"3×1|last two stages at one stride"):
            system(recipe, None, **overrides)
        return
    images, _ = views()
    assert len(system(recipe, None, **overrides).embed(images)) == len(images)


@pytest.mark.parametrize("recipe", sorted(set(list_models()) - set(LITE)))
def test_published_recipes_build_for_use(recipe):
    model = build_model(recipe)
    assert model.slots
    assert recipe in model.describe()
