"""Recipes: strict keys with a hint, overrides, YAML, and every recipe that ships."""

import pytest
import yaml

from occluded_reid.config import Recipe, apply_overrides, list_recipes, load_recipe, parse_override
from occluded_reid.errors import RecipeError
from occluded_reid.yaml12 import parse_yaml


def minimal(**changes):
    content = {"name": "mine", "model": {"backbone": "resnet18", "heads": {"global": "global"}}}
    return apply_overrides(content, changes)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_loads_and_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.paper
    assert load_recipe(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_sorn_is_the_papers():
    recipe = load_recipe("sorn")
    assert (recipe.model.input.height, recipe.model.input.width) == (384, 128)
    assert recipe.model.backbone.type == "resnet50.tv_in1k"
    assert recipe.model.backbone.options == {"last_stride": 1}
    weights = {name: loss.weight for name, loss in recipe.model.losses.items()}
    assert weights == {"local": 1.0, "global": 0.75, "spc": 0.5, "segmentation": 1.5}
    assert recipe.model.heads["local"].options["num_parts"] == 3
    assert recipe.model.heads["semantic"].options["threshold"] == 0.15
    assert (recipe.data.batch, recipe.data.sampler) == (32, "shuffle")
    optim = recipe.optim
    assert (optim.type, optim.lr, optim.epochs, optim.warmup_epochs) == ("adam", 3e-4, 80, 10)
    assert optim.lr * optim.warmup_start == pytest.approx(3e-5)
    assert optim.steps == {30: 0.1, 60: 0.1}


def test_sorn_lite_is_small():
    recipe = load_recipe("sorn_lite")
    assert (recipe.model.input.height, recipe.model.input.width) == (192, 64)
    assert recipe.model.backbone.type == "tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("modle", r"modle: there is no such key\. Did you mean 'model'\? Known: name, paper"),
        ("model.head", r"model\.head: there is no such key\. Did you mean 'heads'\?"),
        ("model.input.hight", r"model\.input\.hight: there is no such key\. Did you mean 'height'\? Known: height"),
        ("model.backbone.option", r"model\.backbone\.option: there is no such key\. Did you mean 'options'\?"),
        ("model.heads.global.typ", r"model\.heads\.global\.typ: there is no such key\. Did you mean 'type'\?"),
        ("optim.lrate", r"optim\.lrate: there is no such key\."),
        ("optim.warmup_epoch", r"optim\.warmup_epoch: there is no such key\. Did you mean 'warmup_epochs'\?"),
        ("data.augmnt", r"data\.augmnt: there is no such key\. Did you mean 'augment'\?"),
    ],
)
def test_a_misspelt_key_is_named_with_the_closest_one(key, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(minimal(**{key: 1}))
    assert "recipe 'mine' is not valid" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optim.epochs", 0, r"optim\.epochs: was given 0; .*greater than or equal to 1"),
        ("optim.epochs", "many", r"optim\.epochs: was given 'many'; .*valid integer"),
        ("optim.lr", -1, r"optim\.lr: was given -1"),
        ("optim.type", "adamm", r"optim\.type: was given 'adamm'; .*'adam'"),
        ("optim.steps", [3], r"optim\.steps: was given \[3\]"),
        ("data.masks", 3, r"data\.masks: was given 3; .*0, 2, 5 or 8"),
        ("data.sampler", "random", r"data\.sampler: was given 'random'; .*'shuffle' or 'pk'"),
        ("model.input.height", 1e9, r"model\.input\.height"),
        ("model.input.mean", [0.5, 0.5], r"model\.input\.mean"),
        ("model.heads", ["local"], r"model\.heads: was given"),
        ("model.heads.local", 3, r"model\.heads\.local: was given 3"),
        ("model.losses.id.weight", "heavy", r"model\.losses\.id\.weight: was given 'heavy'"),
    ],
)
def test_wrong_values_are_named(key, value, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(minimal(**{key: value}))


def test_several_mistakes_are_told_at_once():
    with pytest.raises(RecipeError) as caught:
        load_recipe({"optim": {"epochs": 0, "lrr": 1}})
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["name", "model", "optim.epochs", "optim.lrr"]


def test_keys_that_exclude_each_other():
    with pytest.raises(RecipeError, match="either steps or cosine_end"):
        load_recipe(minimal(**{"optim.steps": {3: 0.1}, "optim.cosine_end": 0.1}))
    with pytest.raises(RecipeError, match="batch 30 is not a multiple of instances 4"):
        load_recipe(minimal(**{"data.batch": 30, "data.sampler": "pk"}))


def test_a_bare_name_is_a_component():
    recipe = load_recipe(minimal(**{"data.augment": ["flip", {"type": "erase", "options": {"p": 0.5}}]}))
    assert recipe.model.backbone.type == "resnet18"
    assert recipe.model.heads["global"].type == "global"
    assert [a.type for a in recipe.data.augment] == ["flip", "erase"]
    assert load_recipe(minimal(**{"model.matcher": "plain"})).model.matcher.type == "plain"


def test_overrides_reach_every_depth_and_leave_the_recipe_alone():
    base = load_recipe("sorn")
    recipe = load_recipe(
        "sorn",
        {
            "optim.epochs": 20,
            "optim.steps.30": 0.5,
            "model.heads.local.options.num_parts": 6,
            "model.heads.extra": "global",
            "model.losses.spc": None,
            "model.heads.extra.options.num_sets": 2,
        },
    )
    assert (recipe.optim.epochs, recipe.optim.steps) == (20, {30: 0.5, 60: 0.1})
    assert recipe.model.heads["local"].options["num_parts"] == 6
    assert recipe.model.heads["local"].options["neck"] == "bn"
    assert recipe.model.heads["extra"].options == {"num_sets": 2}
    assert "spc" not in recipe.model.losses
    assert load_recipe("sorn") == base
    assert base.override({"optim.epochs": 2}).optim.epochs == 2
    assert base.optim.epochs == 80


def test_override_of_what_is_not_there():
    with pytest.raises(RecipeError, match=r"model\.losses\.scp: there is nothing to remove\. Did you mean 'spc'\?"):
        load_recipe("sorn", {"model.losses.scp": None})
    with pytest.raises(RecipeError, match=r"optim\.epoch: .*Did you mean 'epochs'"):
        load_recipe("sorn").override({"optim.epoch": 3})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.epochs=20", ("optim.epochs", 20)),
        ("optim.lr=1e-4", ("optim.lr", 1e-4)),
        ("optim.steps={20: 0.1}", ("optim.steps", {20: 0.1})),
        ("model.losses.spc=null", ("model.losses.spc", None)),
        ("model.heads.local.on=no", ("model.heads.local.on", "no")),
        ("data.augment=[flip, crop]", ("data.augment", ["flip", "crop"])),
        ("notes=a=b", ("notes", "a=b")),
    ],
)
def test_command_line_overrides(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["optim.epochs", "=3", ""])
def test_overrides_without_a_key_or_value(text):
    with pytest.raises(RecipeError, match=r"not of the form key\.path=value"):
        parse_override(text)
    with pytest.raises(RecipeError, match="is not valid YAML"):
        parse_override("optim.steps={20: 0.1")


def test_an_unknown_recipe_suggests_the_closest():
    with pytest.raises(RecipeError, match=r"no recipe is named 'sron'\. Did you mean 'sorn'\? There are: .*\.yaml"):
        load_recipe("sron")


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: {backbone: resnet18, heads: {g: {type: global, on: last}}}\noptim: {lr: 1e-3}\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.optim.lr, recipe.model.heads["g"].on) == ("mine", 1e-3, "last")
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: {backbone: [", "is not valid YAML"),
        (b"\xff\xfe\x00\x01\xd8", "is not valid YAML"),
        (b"", "holds NoneType; wanted a mapping"),
        (b"- model", "holds list; wanted a mapping"),
        (b"!!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"name: x", "model: this key is required"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"absent\.yaml' cannot be read: No such file"):
        load_recipe(tmp_path / "absent.yaml")


def test_yaml_reads_words_as_words():
    assert parse_yaml("{on: off, yes: no, a: true, b: 1e-4, c: 5.0e-4, d: 012, e: null, f: 3}") == {
        "on": "off",
        "yes": "no",
        "a": True,
        "b": 1e-4,
        "c": 5e-4,
        "d": 12,
        "e": None,
        "f": 3,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+3", 3),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-02", "2024-01-02"),
        ("=", "="),
        ("~", None),
        ("TRUE", True),
        ("yes", "yes"),
    ],
)
def test_yaml_is_that_of_its_version_1_2(text, value):
    found = parse_yaml(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


HEADS = "  backbone: resnet18\n  heads: {g: global}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"model:\n{HEADS}  heads: {{h: local}}\n", r"the key 'heads' is given twice, first in line 3\n.*line 4"),
        ("optim: {steps: {10: 0.1, 010: 0.2}}", r"the key '010' is given twice, first in line 1"),
        ("{'a': 1, a: 2}", "the key 'a' is given twice"),
        ("a: &x [*x]", r"'\*x' refers to itself"),
        ("a: &x {b: {c: *x}}", r"'\*x' refers to itself"),
        ("[" * 20_000, "nested more than 50 deep"),
        ("{a: " * 20_000, "nested more than 50 deep"),
        ("a: " + "9" * 5_000, r"'9{40}…' cannot be read: it is too large a number"),
        ("a: 9223372036854775808", "it is too large a number"),
        ("a: !!int abc", "'abc' cannot be read as int"),
        ("a: !!int 1_000", "'1_000' cannot be read as int"),
        ("a: !!bool abc", "'abc' cannot be read as bool"),
        ("a: !!float abc", "'abc' cannot be read as float"),
        ("a: !!timestamp abc", "tag:yaml.org,2002:timestamp"),
        ("a: !!python/object/apply:os.system [true]", "python/object/apply:os.system"),
        ("{[a]: 1}", "cannot be a key"),
    ],
)
def test_a_recipe_that_tells_two_things_or_no_end_of_them_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert f"{path}" in str(caught.value)
    assert ", line " in str(caught.value)


def test_references_unfold_as_far_as_a_recipe_may_need_and_no_further():
    few = parse_yaml("a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 3}\nc: *a\n")
    assert few == {"a": {"x": 1, "y": [1, 2]}, "b": {"x": 3, "y": [1, 2]}, "c": {"x": 1, "y": [1, 2]}}

    def laughs(levels):
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
        return "\n".join(lines)

    assert len(parse_yaml(laughs(3))["a2"]) == 10
    with pytest.raises(yaml.YAMLError, match="more than 100000 values, references unfolded"):
        parse_yaml(laughs(9))


@pytest.mark.parametrize("value", ["2024-13-45", "!!int abc", "{a: 1, a: 2}", "[" * 1_000, "9" * 5_000])
def test_a_value_of_the_command_line_is_read_or_refused_like_that_of_a_file(value):
    with pytest.raises(RecipeError):
        load_recipe(minimal(), dict([parse_override(f"optim.epochs={value}")]))


def test_a_mapping_that_is_nested_without_end_is_refused():
    content = minimal()
    content["notes"] = content
    with pytest.raises(RecipeError, match="nested more than 50 deep"):
        load_recipe(content)


def test_a_path_that_no_file_can_have_is_refused():
    with pytest.raises(RecipeError, match="NUL"):
        load_recipe("a\0b.yaml")


def test_a_message_shows_no_more_of_a_value_than_can_be_read():
    with pytest.raises(RecipeError) as caught:
        load_recipe(minimal(**{"optim.epochs": "x" * 100_000}))
    assert len(str(caught.value)) < 500


def test_a_head_of_an_override_may_come_before_another_one():
    first = {"type": "converter", "before": "semantic"}
    recipe = load_recipe("sorn", {"model.heads.one": first, "model.heads.two": dict(first)})
    assert list(recipe.model.heads) == ["global", "local", "one", "two", "semantic"]
    moved = recipe.override({"model.heads.semantic.before": "global", "model.heads.last": "local"})
    assert list(moved.model.heads) == ["semantic", "global", "local", "one", "two", "last"]
    assert load_recipe(moved.model_dump(mode="json")) == moved
    assert first == {"type": "converter", "before": "semantic"}, "what was given is left as it is"
    for wrong in ("semantik", "one", 3, None):
        with pytest.raises(RecipeError, match=r"model\.heads\.one\.before: there is no other head"):
            load_recipe("sorn", {"model.heads.one": {"type": "converter", "before": wrong}})
