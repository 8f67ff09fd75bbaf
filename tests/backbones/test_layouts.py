"""Weights files as other projects write them: each is computed by hand from its authors' names, and must agree."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from occluded_reid.backbones import Backbone, create_backbone
from occluded_reid.backbones.layouts import LAYOUTS, Imported, recognise
from occluded_reid.config import WEIGHTS_LAYOUTS, load_recipe
from occluded_reid.errors import BuildError, RecipeError, UnknownNameError, WeightsError

State = dict[str, Tensor]
SIZE = (66, 34)  # odd maps, so that a pool without padding differs from one with it
CLIP = ("vit_base_patch16_clip_quickgelu_224", {"options": {"depth": 3, "embed_dim": 48, "num_heads": 4}})


def shuffled(state: State) -> State:
    """As if trained: no weight is 0 or 1, no mean 0, no variance 1."""
    random = torch.Generator().manual_seed(3)
    made = {}
    for key, value in state.items():
        if not value.is_floating_point():
            continue
        drawn = torch.randn(value.shape, generator=random)
        if key.endswith("running_var") or (key.endswith("weight") and value.ndim == 1):
            made[key] = drawn.abs() * 0.2 + 0.8
        else:
            made[key] = drawn * (0.5 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1)
    return made


def fresh(name: str, size: tuple[int, int] = SIZE, **options: Any) -> Backbone:
    torch.manual_seed(0)
    return create_backbone(name, size, options).eval()


def names_of(backbone: Backbone) -> State:
    """The network's own names of its tensors, without what wraps it."""
    return {key.removeprefix("network.").removeprefix("model."): value for key, value in backbone.state_dict().items()}


def neck(width: int, prefix: str) -> State:
    parts = {"weight": torch.ones(width), "bias": torch.zeros(width), "running_mean": torch.zeros(width)}
    parts = shuffled({**parts, "running_var": torch.ones(width)})
    return {f"{prefix}{key}": value for key, value in parts.items()}


def images(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5))


# Networks by hand, from the authors' names.


def norm(x: Tensor, state: State, name: str) -> Tensor:
    if f"{name}.IN.weight" in state:
        half = state[f"{name}.IN.weight"].shape[0]
        first = F.instance_norm(x[:, :half], weight=state[f"{name}.IN.weight"], bias=state[f"{name}.IN.bias"])
        return torch.cat([first, norm(x[:, half:], state, f"{name}.BN")], 1)
    keys = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))


def resnet(x: Tensor, state: State, prefix: str, *, relu: bool = True, unpadded: bool = False) -> Tensor:
    x = norm(F.conv2d(x, state[f"{prefix}conv1.weight"], stride=2, padding=3), state, f"{prefix}bn1")
    x = x.clamp(min=0) if relu else x
    x = F.max_pool2d(x, 3, 2, ceil_mode=True) if unpadded else F.max_pool2d(x, 3, 2, padding=1)
    for layer in range(1, 5):
        block = 0
        while f"{prefix}layer{layer}.{block}.conv1.weight" in state:
            name, stride = f"{prefix}layer{layer}.{block}.", 2 if layer > 1 and block == 0 else 1
            last = 3 if f"{name}conv3.weight" in state else 2
            out = x
            for conv in range(1, last + 1):
                kernel = state[f"{name}conv{conv}.weight"]
                at = stride if conv == last - 1 else 1  # the first of two, the middle one of three
                out = norm(F.conv2d(out, kernel, stride=at, padding=kernel.shape[-1] // 2), state, f"{name}bn{conv}")
                out = out.clamp(min=0) if conv < last else out
            if f"{name}downsample.0.weight" in state:
                x = norm(F.conv2d(x, state[f"{name}downsample.0.weight"], stride=stride), state, f"{name}downsample.1")
            x, block = (out + x).clamp(min=0), block + 1
    return x


def layer_norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def attend(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in F.linear(x, weight, bias).chunk(3, 2))
    return ((q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3) @ v).transpose(1, 2).flatten(2)


def transreid(x: Tensor, state: State, heads: int) -> Tensor:
    """The global feature; where the branches part before the last block, b1's block and norm."""

    def block(x: Tensor, name: str) -> Tensor:
        y = layer_norm(x, state, f"{name}.norm1", 1e-6)
        y = attend(y, state[f"{name}.attn.qkv.weight"], state[f"{name}.attn.qkv.bias"], heads)
        x = x + F.linear(y, state[f"{name}.attn.proj.weight"], state[f"{name}.attn.proj.bias"])
        y = layer_norm(x, state, f"{name}.norm2", 1e-6)
        y = F.gelu(F.linear(y, state[f"{name}.mlp.fc1.weight"], state[f"{name}.mlp.fc1.bias"]))
        return x + F.linear(y, state[f"{name}.mlp.fc2.weight"], state[f"{name}.mlp.fc2.bias"])

    x = F.conv2d(x, state["base.patch_embed.proj.weight"], state["base.patch_embed.proj.bias"], stride=16)
    x = torch.cat([state["base.cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + state["base.pos_embed"]
    depth = len({key.split(".")[2] for key in state if key.startswith("base.blocks.")})
    apart = "b1.1.weight" in state
    for number in range(depth - apart):
        x = block(x, f"base.blocks.{number}")
    if apart:
        x = block(x, "b1.0")
    return layer_norm(x, state, "b1.1" if apart else "base.norm", 1e-6)[:, 0]


def clip(x: Tensor, state: State, heads: int) -> Tensor:
    state = {key.removeprefix("image_encoder."): value for key, value in state.items()}
    x = F.conv2d(x, state["conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    x = torch.cat([state["class_embedding"].expand(len(x), 1, -1), x], 1) + state["positional_embedding"]
    x = layer_norm(x, state, "ln_pre", 1e-5)
    for number in range(len({key.split(".")[2] for key in state if key.startswith("transformer.")})):
        name = f"transformer.resblocks.{number}"
        y = layer_norm(x, state, f"{name}.ln_1", 1e-5).transpose(0, 1)
        given = (state[f"{name}.attn.{key}"] for key in ("in_proj_weight", "in_proj_bias"))
        out = (state[f"{name}.attn.out_proj.{key}"] for key in ("weight", "bias"))
        y, _ = F.multi_head_attention_forward(
            y, y, y, y.shape[2], heads, *given, None, None, False, 0.0, *out, training=False, need_weights=False
        )
        x = x + y.transpose(0, 1)
        y = F.linear(layer_norm(x, state, f"{name}.ln_2", 1e-5), *(state[f"{name}.mlp.c_fc.{k}"] for k in PAIR))
        x = x + F.linear(y * torch.sigmoid(1.702 * y), *(state[f"{name}.mlp.c_proj.{k}"] for k in PAIR))
    return layer_norm(x, state, "ln_post", 1e-5)[:, 0]


PAIR = ("weight", "bias")
TO_CLIP = (
    ("cls_token", "class_embedding"),
    ("pos_embed", "positional_embedding"),
    ("patch_embed.proj", "conv1"),
    ("norm_pre", "ln_pre"),
    (r"^norm\.", "ln_post."),
    (r"blocks\.(\d+)\.norm(\d)", r"transformer.resblocks.\1.ln_\2"),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"transformer.resblocks.\1.attn.in_proj_"),
    (r"blocks\.(\d+)\.attn\.proj", r"transformer.resblocks.\1.attn.out_proj"),
    (r"blocks\.(\d+)\.mlp\.fc1", r"transformer.resblocks.\1.mlp.c_fc"),
    (r"blocks\.(\d+)\.mlp\.fc2", r"transformer.resblocks.\1.mlp.c_proj"),
)


def to_clip(state: State) -> State:
    renamed = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in TO_CLIP:
            name = re.sub(pattern, replacement, name)
        renamed[f"image_encoder.{name}"] = value[0, 0] if key == "cls_token" else value
    renamed["image_encoder.positional_embedding"] = state["pos_embed"][0]
    return renamed


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def torchreid_file(state: State) -> State:
    return {**state, "classifier.weight": torch.zeros(7, 512), "classifier.bias": torch.zeros(7)}


def fastreid_file(state: State) -> State:
    width = state["layer4.0.downsample.1.weight"].shape[0]
    beside = {"heads.weight": torch.zeros(7, width), "pixel_mean": torch.zeros(1, 3, 1, 1)}
    return {**prefixed(state, "backbone."), **neck(width, "heads.bottleneck.0."), **beside}


def baseline_file(state: State) -> State:
    width = state["layer4.0.downsample.1.weight"].shape[0]
    beside = {"classifier.weight": torch.zeros(7, width), "base.fc.weight": torch.zeros(1000, width)}
    return {**prefixed(state, "base."), **neck(width, "bottleneck."), **beside}


def transreid_file(state: State) -> State:
    width = state["norm.weight"].shape[0]
    beside = {"classifier.weight": torch.zeros(7, width), "base.fc.weight": torch.zeros(1000, width)}
    return {**prefixed(state, "base."), **neck(width, "bottleneck."), **beside}


def branched_file(state: State) -> State:
    """TransReID with its branch of shuffled patches; the base's own last block and norm are of no use there."""
    made, last = transreid_file(state), max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    for key in [each for each in made if each.startswith((f"base.blocks.{last}.", "base.norm."))]:
        inside = key.removeprefix(f"base.blocks.{last}.")
        place = f"b1.0.{inside}" if inside != key else key.replace("base.norm.", "b1.1.")
        made[place], made[key] = made[key], torch.full_like(made[key], 9)
        made[place.replace("b1", "b2")] = torch.full_like(made[key], 8)
    return {**made, **neck(state["norm.weight"].shape[0], "bottleneck_1."), "classifier_4.weight": torch.zeros(7, 3)}


def clip_file(state: State) -> State:
    beside = {"image_encoder.proj": torch.zeros(48, 32), "classifier_proj.weight": torch.zeros(7, 32)}
    others = {**neck(32, "bottleneck_proj."), "prompt_learner.cls_ctx": torch.zeros(7, 4, 32)}
    return {**to_clip(state), **neck(48, "bottleneck."), **beside, **others}


def case(
    layout: str, name: str, options: dict[str, Any], write: Callable[[State], State], compute: Callable[..., Tensor]
) -> Any:
    return pytest.param(layout, name, options, write, compute, id=f"{layout}-{name}-{write.__name__}")


def of_resnet(prefix: str, **how: bool) -> Callable[[Tensor, State], Tensor]:
    return lambda x, state: resnet(x, state, prefix, **how)


LINEAR, UNPADDED = {"stem": "linear"}, {"stem": "unpadded"}
CASES = [
    *(case("torchreid", name, {}, torchreid_file, of_resnet("")) for name in ("resnet18", "resnet50")),
    *(
        case("fast-reid", name, UNPADDED, fastreid_file, of_resnet("backbone.", unpadded=True))
        for name in ("resnet18", "resnet50_ibn_a")
    ),
    case("reid-strong-baseline", "resnet18", LINEAR, baseline_file, of_resnet("base.", relu=False)),
    case("reid-strong-baseline", "resnet50_ibn_a", {}, baseline_file, of_resnet("base.")),
    *(
        case("transreid", "test_vit", {}, write, lambda x, state: transreid(x, state, 2))
        for write in (transreid_file, branched_file)
    ),
    case("clip-reid", *CLIP, clip_file, lambda x, state: clip(x, state, 4)),
]


@pytest.mark.parametrize(("layout", "name", "options", "write", "compute"), CASES)
def test_a_projects_file_gives_its_numbers(
    layout: str,
    name: str,
    options: dict[str, Any],
    write: Callable[[State], State],
    compute: Callable[..., Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    size = (64, 32) if name in ("test_vit", CLIP[0]) else SIZE
    network = fresh(name, size, **options)
    file = write(shuffled(names_of(network)))
    torch.save({"model": {f"module.{key}": value for key, value in file.items()}, "epoch": 120}, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, "occluded_reid"):
        imported = network.load_pretrained(str(tmp_path / "x.pth"))
    assert f"are laid out as {layout}'s" in caplog.text
    assert "classifier (" in caplog.text
    x = images(size)
    with torch.no_grad():
        maps, wanted = network(x), compute(x, file)
    got = maps.class_token if maps.class_token is not None else maps[list(network.feature_info)[-1]]
    assert wanted.abs().max() > 0.01
    assert (got - wanted).abs().max() <= 1e-6 * max(1, float(wanted.abs().max()))
    assert imported is not None
    assert imported.layout == layout
    assert (imported.neck is not None) == (layout != "torchreid")
    again = fresh(name, size, **options)
    again.load_pretrained(str(tmp_path / "x.pth"), layout)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("variant", ["plain", "ain"])
def test_osnet_is_torchreids(variant: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = fresh("osnet", width="x0_25", variant=variant)
    source.load_state_dict(shuffled(source.state_dict()), strict=False)
    torch.save({"state_dict": torchreid_file(source.state_dict())}, tmp_path / "osnet.pth.tar")
    target = fresh("osnet", width="x0_25", variant=variant)
    with caplog.at_level(logging.INFO, "occluded_reid"):
        assert target.load_pretrained(str(tmp_path / "osnet.pth.tar")) == Imported("torchreid", None, "map")
    assert "laid out as torchreid's" in caplog.text
    with torch.no_grad():
        assert torch.equal(source(images()).vectors["embedding"], target(images()).vectors["embedding"])


# What does not fit.


def write_resnet(path: Path, write: Callable[[State], State], **more: Tensor) -> Path:
    torch.save({**write(shuffled(names_of(fresh("resnet18")))), **more}, path)
    return path


@pytest.mark.parametrize(
    ("write", "name", "options"),
    [
        (fastreid_file, "test_resnet", {}),
        (baseline_file, "test_efficientnet", {}),
        (torchreid_file, "osnet", {}),
        (fastreid_file, "resnet34", UNPADDED),
        (torchreid_file, "resnet50", {}),
    ],
)
def test_another_architecture_is_refused_with_both_layouts(
    write: Callable[[State], State], name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path, network = write_resnet(tmp_path / "x.pth", write), fresh(name, **options)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"(?s)the file has \d+ tensors:.*the network wants \d+ tensors:"):
        network.load_pretrained(str(path))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_first_layers_that_differ_are_refused_with_what_to_set(tmp_path: Path) -> None:
    for write, stem in ((fastreid_file, "unpadded"), (baseline_file, "linear")):
        path = write_resnet(tmp_path / f"{stem}.pth", write)
        with pytest.raises(WeightsError, match=rf"model\.backbone\.options\.stem={stem}"):
            fresh("resnet18").load_pretrained(str(path))
        fresh("resnet18").load_pretrained(str(write_resnet(path, lambda state: prefixed(state, "base."))), "timm")


def test_what_a_layout_does_not_know_is_refused(tmp_path: Path) -> None:
    path = write_resnet(tmp_path / "x.pth", fastreid_file, **{"backbone.NL_2.0.g.weight": torch.zeros(3)})
    with pytest.raises(WeightsError, match=r"hold 1 tensors that it does not know, such as 'backbone\.NL_2\.0\.g"):
        fresh("resnet18", **UNPADDED).load_pretrained(str(path))


def test_pooling_that_is_not_the_mean_keeps_its_normalisation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_resnet(tmp_path / "x.pth", fastreid_file, **{"heads.pool_layer.p": torch.ones(1)})
    imported = fresh("resnet18", **UNPADDED).load_pretrained(str(path))
    assert imported == Imported("fast-reid", None, "map")
    assert "embeddings differ from the authors': generalised mean pooling" in caplog.text


def test_an_embedding_of_cameras_is_left_out_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = fresh("test_vit", (64, 32))
    file = {**transreid_file(shuffled(names_of(network))), "base.sie_embed": torch.zeros(6, 1, 64)}
    torch.save(file, tmp_path / "x.pth")
    network.load_pretrained(str(tmp_path / "x.pth"))
    assert "without 1 tensors, so that embeddings differ from the authors': the embedding of cameras" in caplog.text


def test_clips_weights_want_its_activation(tmp_path: Path) -> None:
    torch.save(clip_file(shuffled(names_of(fresh(CLIP[0], (64, 32), **CLIP[1])))), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"computes QuickGELU.*of CLIP's form that computes GELU"):
        fresh("vit_base_patch16_clip_224", (64, 32), **CLIP[1]).load_pretrained(str(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("base.semantic_embed_w.0.weight", "SOLIDER"),
        ("backbone.stages.0.blocks.0.attn.w_msa.qkv.weight", "SOLIDER"),
        ("image_encoder.attnpool.k_proj.weight", "CLIP-ReID's ResNet-50"),
        ("base.blocks.0.attn.qkv.weight", "TransReID's vit_small"),
    ],
)
def test_layouts_that_are_known_and_not_loaded_say_why(key: str, name: str, tmp_path: Path) -> None:
    torch.save({"teacher": {key: torch.zeros(2)}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=rf"are {name}'s, a layout that is not loaded"):
        fresh("resnet18").load_pretrained(str(tmp_path / "x.pth"))


def test_a_layout_that_the_file_is_not_of_is_refused(tmp_path: Path) -> None:
    path = write_resnet(tmp_path / "x.pth", torchreid_file)
    with pytest.raises(WeightsError, match=r"(?s)laid out as fast-reid's.*does not know, such as .*wants"):
        fresh("resnet18", **UNPADDED).load_pretrained(str(path), "fast-reid")


def test_a_misspelt_layout_is_refused_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match=r"named 'fastreid'\. Did you mean 'fast-reid'\?"):
        fresh("resnet18").load_pretrained("nowhere.pth", "fastreid")
    change = {"model.backbone.weights": {"file": "x.pth", "layout": "torchried"}}
    with pytest.raises(RecipeError, match=r"Did you mean 'torchreid'\?"):
        load_recipe("bot", change)
    with pytest.raises(RecipeError, match=r"weights_match: .*Did you mean 'transreid'\?"):
        load_recipe("bot", {"model.backbone.weights_match": "trans-reid"})


def test_a_recipe_says_file_and_layout_in_one() -> None:
    backbone = load_recipe("bot", {"model.backbone.weights": {"file": "x.pth", "layout": "fast-reid"}}).model.backbone
    assert (backbone.weights, backbone.weights_match) == ("x.pth", "fast-reid")
    assert load_recipe("bot", {"model.backbone.weights": {"file": "x.pth"}}).model.backbone.weights_match == "auto"
    assert load_recipe("bot", {"model.backbone.weights_match": "names"}).model.backbone.weights_match == "timm"
    for wrong, message in (
        ({"file": "x.pth", "layuot": "timm"}, r"Did you mean 'layout'\?"),
        ({"layout": "timm"}, "without 'file'"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe("bot", {"model.backbone.weights": wrong})
    both = {"model.backbone.weights": {"file": "x.pth", "layout": "timm"}, "model.backbone.weights_match": "order"}
    with pytest.raises(RecipeError, match="say it once"):
        load_recipe("bot", both)


def test_the_recipes_words_are_the_tables() -> None:
    assert ("auto", "timm", "order", *(layout.name for layout in LAYOUTS)) == WEIGHTS_LAYOUTS


def test_a_networks_own_names_are_no_projects() -> None:
    for name in ("resnet50", "test_vit", "test_efficientnet"):
        state = names_of(fresh(name, (64, 32)))
        assert recognise(state) is None
        assert recognise({**state, "fc.weight": None, "head.weight": None, "classifier.bias": None}) is None


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_only_resnets_have_other_first_layers(name: str) -> None:
    with pytest.raises(BuildError, match="stem is 'linear'"):
        fresh(name, (64, 32), stem="linear")


class Trap:
    """An object whose unpickling would run something."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return pytest.fail, ("it was run",)


def test_a_layout_opens_one_file_and_runs_nothing(tmp_path: Path, opened: list[Path]) -> None:
    other = tmp_path / "pretrained.pth"
    torch.save({}, other)
    state = fastreid_file(shuffled(names_of(fresh("resnet18"))))
    torch.save({"model": state, "config": str(other), "path": {"checkpoint": str(other)}}, tmp_path / "x.pth")
    torch.save({"model": state, "cfg": Trap()}, tmp_path / "trap.pth")
    network = fresh("resnet18", **UNPADDED)
    opened.clear()
    network.load_pretrained(str(tmp_path / "x.pth"))
    assert set(opened) == {tmp_path / "x.pth"}
    with pytest.raises(WeightsError, match="holds other objects than tensors"):
        network.load_pretrained(str(tmp_path / "trap.pth"), "fast-reid")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that torch opens."""
    found: list[Path] = []
    load = torch.load

    def watch(path: Any, *args: Any, **options: Any) -> Any:
        assert options["weights_only"] is True
        found.append(Path(path))
        return load(path, *args, **options)

    monkeypatch.setattr(torch, "load", watch)
    return found
