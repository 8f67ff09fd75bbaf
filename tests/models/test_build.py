"""The builder: names, overrides, heads by name, class and instance, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from occluded_reid import HEADS, MODELS, Head, HeadInfo, HeadOutput, ReIDModel, build_model, list_models
from occluded_reid.config import Recipe, list_recipes, load_recipe
from occluded_reid.errors import BuildError, RecipeError, UnknownNameError, UnknownOptionError
from occluded_reid.models.build import build_info, find_recipe


class Corner(Head):
    def __init__(self, info, *, on: str = "last", scale: float = 1.0):
        super().__init__(info)
        self.stage, self.scale = info.stage_name(on), scale
        self.info = HeadInfo(slots={"corner": info.stages[self.stage].channels}, inference_slots=("corner",))

    def forward(self, features, context, targets=None):
        return HeadOutput(embeddings={"corner": features[self.stage][:, :, 0, 0] * self.scale})


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_builds_saves_loads_and_embeds_equal(name, tmp_path):
    model = build_model(name, num_classes=3)
    images = torch.randn(
        2, 3, model.preprocess.height, model.preprocess.width, generator=torch.Generator().manual_seed(0)
    )
    before = model.embed(images)
    model.save(tmp_path / "model")
    from occluded_reid import load_model

    again = load_model(tmp_path / "model")
    after = again.embed(images)
    assert again.num_classes is None
    assert again.fingerprint == model.fingerprint
    assert before.names == after.names
    for one, two in zip(before.embeddings, after.embeddings, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(before.visibility, after.visibility)


def test_sorn_has_the_shapes_of_the_paper():
    model = build_model("sorn")
    info = build_info(model.recipe, model.backbone, None)
    assert model.slots == {"global": 3072, "part_1": 2048, "part_2": 2048, "part_3": 2048}
    assert [info.map_size(s) for s in ("stage2", "stage3", "stage4")] == [(48, 16), (24, 8), (24, 8)]
    output = model.infer(torch.zeros(1, 3, 384, 128))
    assert output["semantic"].maps["segmentation"].shape == (1, 8, 96, 32)
    assert output["global"].maps["aggregation"].shape == (1, 3, 24, 8)


def test_list_models_names_every_recipe():
    assert {"sorn", "sorn_lite"} <= set(list_models())


def test_inference_build_has_no_classifier_and_no_loss(tiny):
    model = tiny(None)
    assert not [name for name, _ in model.named_parameters() if "classifier" in name]
    with pytest.raises(BuildError, match="built for inference"):
        _ = model.criterion


def test_heads_by_name_class_and_instance(tiny):
    HEADS.register("corner")(Corner)
    try:
        by_name = build_model(tiny(None).recipe, heads={"edge": {"type": "corner", "options": {"scale": 2.0}}})
        by_class = build_model(tiny(None).recipe, heads={"edge": Corner})
        first = tiny(None)
        made = Corner(build_info(first.recipe, first.backbone, None), scale=3.0)
        by_instance = build_model(first.recipe, heads={"edge": made})
    finally:
        HEADS.unregister("corner")
    for model in (by_name, by_class, by_instance):
        assert model.slots["corner"] == 64
    assert by_name.heads["edge"].scale == 2.0
    assert by_instance.heads["edge"] is made


def test_a_head_can_be_removed(tiny):
    model = build_model(tiny(None).recipe, heads={"semantic": None})
    assert list(model.heads) == ["global", "local"]
    assert torch.equal(model.embed(torch.randn(2, 3, 96, 32)).visibility, torch.ones(2, 4))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model.heads.extra": {"type": "locl"}}, UnknownNameError, "Did you mean 'local'"),
        ({"model.heads.local.options.num_part": 3}, UnknownOptionError, "Did you mean 'num_parts'"),
        ({"model.heads.local.options.num_parts": "many"}, UnknownOptionError, "'num_parts' was given 'many'"),
        ({"model.heads.local.options.num_parts": 7}, BuildError, "into 7 stripes.*6×2"),
        ({"model.heads.local.on": "stage9"}, BuildError, "stage 'stage9'.*stage4"),
        ({"model.heads.second": {"type": "local"}}, BuildError, "both give a slot named 'part_1'"),
        ({"model.heads.second": {"type": "semantic"}}, BuildError, "both give the visibility of slot 'part_1'"),
        ({"model.heads.semantic.options.visibility_of": "lokal"}, BuildError, "Did you mean 'local'"),
        ({"model.losses.spc.on": "local"}, BuildError, "needs the map 'aggregation'"),
        ({"model.losses.spc.on": "globel"}, BuildError, "Did you mean 'global'"),
        ({"model.backbone.type": "resnet5O"}, UnknownNameError, "Did you mean 'resnet50'"),
        ({"model.backbone.options": {"last_stride": 2}}, BuildError, "last two stages at one stride"),
        ({"model.matcher.options": {"metric": "cosinus"}}, UnknownOptionError, "'metric' was given 'cosinus'"),
        ({"model.losses.more": {"type": "identity"}}, RecipeError, "needs to know what it works on"),
        ({"model.hed": {}}, RecipeError, "Did you mean 'heads'"),
        ({"model.heads.local.weigth": 1}, RecipeError, "model.heads.local.weigth.*Did you mean 'weight'"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_built(tiny, change, error, message):
    with pytest.raises(error, match=message):
        tiny(**change)


def test_a_head_name_has_no_dot(tiny):
    with pytest.raises(BuildError, match="Call it 'a_b'"):
        build_model(tiny(None).recipe, heads={"a.b": "global"})


def test_a_registered_system_is_found_by_name(tiny):
    content = tiny(None).recipe.model_dump(mode="json")
    MODELS.register("mine")(lambda: content)
    try:
        assert build_model("mine").slots == tiny(None).slots
        assert find_recipe("mine", {"optim.epochs": 3}).optim.epochs == 3
    finally:
        MODELS.unregister("mine")


def test_num_classes_must_be_positive():
    with pytest.raises(BuildError, match="a whole number from 1"):
        build_model("sorn_lite", num_classes=0)


def test_images_of_another_size_are_refused(tiny):
    with pytest.raises(BuildError, match=r"takes images \(N, 3, 96, 32\)"):
        tiny(None).embed(torch.zeros(1, 3, 64, 32))


def test_embedding_does_not_depend_on_the_batch(tiny):
    model: ReIDModel = tiny(None)
    images = torch.randn(64, 3, 96, 32, generator=torch.Generator().manual_seed(2))
    together = model.embed(images)
    alone = [model.embed(images[i : i + 1]) for i in range(64)]
    for slot in model.slots:
        one = torch.cat([row.slot(slot) for row in alone])
        torch.testing.assert_close(one, together.slot(slot), rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat([row.visibility for row in alone]), together.visibility)


def test_embed_restores_the_mode_it_found(tiny):
    model = tiny()
    model.train()
    model.embed(torch.zeros(1, 3, 96, 32))
    assert model.training
    model.eval()
    model.embed(torch.zeros(1, 3, 96, 32))
    assert not model.training


def test_changes_of_a_call_are_validated_together(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("bot_lite").model_dump(mode="json")
    heads, recipe["model"]["heads"] = recipe["model"]["heads"], {}
    validated = []
    real = Recipe.model_validate

    def counted(content: Any) -> Recipe:
        validated.append(content)
        return real(content)

    monkeypatch.setattr(Recipe, "model_validate", counted)
    model = build_model(recipe, num_classes=3, pretrained=False, heads=heads, **{"optim.epochs": 2})
    assert (list(model.heads), model.recipe.optim.epochs, len(validated)) == (list(heads), 2, 1)
