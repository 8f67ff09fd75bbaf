"""What a stranger's recipe may tell timm: what shapes a network, and nothing that opens a file or an address."""

import ast
import configparser
import os
from pathlib import Path

import pytest
import timm
import torch

import occluded_reid
from occluded_reid import PARSERS, build_model, load_model
from occluded_reid.backbones import ResNet50IBNa, TimmBackbone
from occluded_reid.backbones.timm_options import FEATURE_OPTIONS, SHAPING_OPTIONS, require_timm_options
from occluded_reid.errors import BuildError, CheckpointError, OccludedReIDError, UnknownNameError, UnknownOptionError
from occluded_reid.files import write_json
from occluded_reid.parsing.saved import load_parser
from occluded_reid.sealed import write_sealed

SIZE = (96, 32)


class Harm:
    """Unpickling it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def harm(tmp_path):
    torch.save(Harm(tmp_path / "mark"), tmp_path / "weights.pth")
    yield tmp_path / "weights.pth"
    assert not (tmp_path / "mark").exists(), "a stranger's code ran"


@pytest.mark.parametrize(
    "key",
    [
        *("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only"),
        *(
            "pretrained_strict",
            "pretrained_filter_fn",
            "pretrained_custom_load",
            "model_cfg",
            "scriptable",
            "exportable",
        ),
        *("block_fn", "norm_layer", "act_layer", "embed_layer", "device", "dtype", "num_classes", "in_chans"),
    ],
)
def test_a_keyword_that_shapes_nothing_is_refused(key, harm):
    with pytest.raises(UnknownOptionError, match=f"timm's '{key}' may not be given by a recipe"):
        TimmBackbone(SIZE, "test_resnet", options={key: str(harm)})
    with pytest.raises(UnknownOptionError, match=f"timm's '{key}' may not be given by a recipe"):
        ResNet50IBNa(SIZE, options={key: str(harm)})


@pytest.mark.parametrize("value", ["/etc/passwd", "hf-hub:a/b", "../x", "os.system", {"url": "x"}, [[1]], print, ["a"]])
def test_a_value_is_a_number_a_word_or_a_list_of_numbers(value):
    with pytest.raises(UnknownOptionError, match=r"timm's 'stem_type' was given"):
        require_timm_options({"stem_type": value})


def test_a_misspelt_option_suggests_the_closest_one():
    with pytest.raises(UnknownOptionError, match=r"'drop_path' .*Did you mean 'drop_path_rate'\?"):
        TimmBackbone(SIZE, "test_resnet", options={"drop_path": 0.1})


def test_what_shapes_a_network_reaches_it():
    blocks = TimmBackbone(
        SIZE, "vit_tiny_patch16_224", options={"depth": 3, "drop_path_rate": 0.1}
    ).network.model.blocks
    assert len(blocks) == 3
    assert blocks[2].drop_path1.drop_prob == pytest.approx(0.1)
    assert not {*SHAPING_OPTIONS, *FEATURE_OPTIONS} & {"checkpoint_path", "pretrained", "pretrained_cfg", "cache_dir"}
    assert len(set(SHAPING_OPTIONS)) == len(SHAPING_OPTIONS)


def test_a_word_that_this_network_does_not_take_is_a_build_error():
    with pytest.raises(BuildError, match="timm cannot give feature maps"):
        TimmBackbone(SIZE, "test_resnet", options={"window_size": 7})


@pytest.mark.parametrize(
    "name", ["local-dir:{}", "hf-hub:{}", "hf_hub:timm/resnet18", "{}/resnet18", "resnet18?x", "resnet18.{}", "no_such"]
)
def test_a_name_is_no_folder_and_no_hub(name, tmp_path, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    write_json(tmp_path / "config.json", {"architecture": "resnet18"})
    with pytest.raises(UnknownNameError, match="timm has no model named"):
        TimmBackbone(SIZE, name.format(tmp_path))


def test_a_strangers_model_opens_nothing_although_its_checksums_are_right(tiny, tmp_path, harm, monkeypatch):
    model = tiny(None)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    recipe = model.recipe.model_dump(mode="json")
    for options, error in (
        ({"options": {"checkpoint_path": str(harm)}}, UnknownOptionError),
        ({"options": {"pretrained_cfg": {"file": str(harm)}, "pretrained": True}}, UnknownOptionError),
        ({"name": f"local-dir:{tmp_path}"}, OccludedReIDError),
    ):
        recipe["model"]["backbone"]["options"] = options
        content = {"fingerprint": model.fingerprint, "num_classes": None, "recipe": recipe}
        write_sealed(tmp_path / "model", "model", content, model.state_dict(), CheckpointError)
        with pytest.raises(error):
            load_model(tmp_path / "model")


def test_weights_that_a_strangers_model_names_are_not_opened(tiny, tmp_path, harm, monkeypatch):
    model = tiny(None)
    recipe = model.recipe.model_dump(mode="json")
    recipe["model"]["backbone"]["weights"] = str(harm)
    content = {"fingerprint": model.fingerprint, "num_classes": None, "recipe": recipe}
    write_sealed(tmp_path / "model", "model", content, model.state_dict(), CheckpointError)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    assert load_model(tmp_path / "model").slots == model.slots


@pytest.mark.parametrize("kind", ["onnx", "masks"])
def test_a_parser_that_would_open_files_is_refused_before_it_does(tmp_path, kind, monkeypatch):
    options = {"model": str(tmp_path / "x.onnx")} if kind == "onnx" else {"folder": str(tmp_path)}
    monkeypatch.setattr(PARSERS.get(kind), "__init__", lambda *_, **__: pytest.fail("it opened what was named"))
    with pytest.raises(BuildError, match="makes masks but is no network"):
        build_model("sorn_lite", **{"model.parser": {"type": kind, "options": options}})
    content = {"fingerprint": "x", "type": kind, "options": options}
    write_sealed(tmp_path, "parser", content, {}, CheckpointError)
    with pytest.raises(CheckpointError, match="is no ParsingNetwork"):
        load_parser(tmp_path)


def test_a_parser_cannot_name_a_folder_as_its_backbone(tmp_path):
    content = {"fingerprint": "x", "type": "small", "options": {"backbone": f"local-dir:{tmp_path}"}}
    write_sealed(tmp_path, "parser", content, {}, CheckpointError)
    with pytest.raises(UnknownNameError, match="folders and hubs are not read"):
        load_parser(tmp_path)


def test_nothing_in_the_library_unpickles():
    for path in sorted(Path(occluded_reid.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert called not in ("pickle.load", "pickle.loads", "torch.hub.load_state_dict_from_url"), path
            assert keywords.get("allow_pickle", "False") == "False", path
            if called in ("torch.load", "weights.get_state_dict"):
                assert keywords.get("weights_only") == "True", path


def test_the_least_versions_are_those_whose_reading_is_safe():
    settings = configparser.ConfigParser()
    settings.read(Path(occluded_reid.__file__).parents[1] / "setup.cfg", encoding="utf-8")
    least = dict(
        line.split(">=")
        for line in settings["options"]["install_requires"].split("\n")
        if ">=" in line and ";" not in line
    )
    safe = {"torch": (2, 10), "timm": (1, 0, 26), "torchvision": (0, 25), "pillow": (12, 1, 1), "pyarrow": (23, 0, 1)}
    for name, version in safe.items():
        assert tuple(map(int, least[name].split("."))) >= version, name
