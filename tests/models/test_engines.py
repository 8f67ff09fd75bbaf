"""What is made ready for speed gives what the model gives, follows its changes, and leaves the model alone."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from occluded_reid import Head, HeadInfo, HeadOutput, PartEmbeddings, ReIDModel, build_model, load_model
from occluded_reid.errors import BuildError, DeviceError, EmbeddingError, MissingExtraError
from occluded_reid.models import engines, precision
from occluded_reid.models.engines import Engines
from tests.conftest import SYSTEM

Build = Callable[..., ReIDModel]
LITE = ["bot_lite", "fed_lite", "ocnet_lite", "oreid_lite", "pcb_lite", "sgam_lite", "sorn_lite"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are made for the first image."""
    monkeypatch.setattr(engines, "_WORTH", 1)


def as_if_trained(model: ReIDModel) -> ReIDModel:
    """Statistics of normalisations that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.copy_(0.2 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return model.eval()


def noise(model: ReIDModel, count: int = 3) -> Tensor:
    size = (model.preprocess.height, model.preprocess.width)
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(2))


def itself(model: ReIDModel, images: Tensor) -> PartEmbeddings:
    """What no engine has touched."""
    return model.collect(model.infer(images))


def off(given: PartEmbeddings, wanted: PartEmbeddings) -> float:
    """Largest difference, relative to the largest number of a slot where that is above 1."""
    assert given.names == wanted.names
    pairs = [*zip(given.embeddings, wanted.embeddings, strict=True), (given.visibility, wanted.visibility)]
    return max(float((a - b).abs().max()) / max(1.0, float(b.abs().max())) for a, b in pairs)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("recipe", LITE)
def test_every_recipe_embeds_as_it_is_and_alone_as_in_a_batch(system: Build, recipe: str, engine: Any) -> None:
    model = as_if_trained(system(recipe, None))
    images = noise(model, 64)
    wanted = itself(model, images)
    if recipe == "sgam_lite" and engine == "onnx":  # its parser resizes with anti-aliasing
        with pytest.raises(BuildError, match=r"cannot be brought to ONNX Runtime: .*upsample.*engine='torch'"):
            model.embed_with(engine="onnx").embed(images)
        engine = "auto"
    together = model.embed_with(engine=engine).embed(images)
    assert not torch.equal(together.embeddings[0], wanted.embeddings[0])  # it is another engine indeed
    assert off(together, wanted) <= 1e-5
    alone = PartEmbeddings.cat([model.embed(images[n : n + 1]) for n in (0, 1, 63)])
    assert off(alone, together[[0, 1, 63]]) <= 1e-5


@pytest.mark.parametrize(
    "backbone", ["test_resnet", {"type": "test_vit"}, {"type": "osnet", "options": {"width": "x0_25"}}]
)
def test_other_backbones(backbone: Any) -> None:
    torch.manual_seed(0)
    sizes = {key: value for key, value in SYSTEM.items() if "input" in key}
    model = as_if_trained(build_model("bot_lite", backbone=backbone, pretrained=False, **sizes))
    wanted = itself(model, noise(model))
    for engine in ("torch", "onnx"):
        assert off(model.embed_with(engine=engine).embed(noise(model)), wanted) <= 1e-5


def test_the_model_stays_as_it_was(system: Build) -> None:
    model = as_if_trained(system("sorn_lite")).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers = {name: type(module) for name, module in model.named_modules()}
    model.embed(noise(model))
    assert model.training
    assert {name: type(module) for name, module in model.named_modules()} == layers
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


@pytest.mark.parametrize("engine", ["auto", "torch", "onnx"])
def test_a_step_of_training_is_seen_by_the_next_embedding(system: Build, engine: Any) -> None:
    model = as_if_trained(system("sorn_lite")).embed_with(engine=engine)
    images = noise(model)
    first = model.embed(images)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    model(images)["global"].embeddings["global"].square().sum().backward()
    optimizer.step()
    model.eval()
    second = model.embed(images)
    assert off(first, second) > 1e-3
    assert off(second, itself(model, images)) <= 1e-5


class Scaling(Head):
    """A head with an option that may be set afterwards, as a threshold is when it was tuned."""

    def __init__(self, info: Any, *, scale: float = 1.0) -> None:
        super().__init__(info)
        self.stage, self.scale = info.stage_name("last"), scale
        self.info = HeadInfo(slots={"scaled": info.stages[self.stage].channels}, inference_slots=("scaled",))

    def forward(self, features: Any, context: Any, targets: Any = None) -> HeadOutput:
        return HeadOutput(embeddings={"scaled": features[self.stage].mean((2, 3)) * self.scale})


def changed_option(model: ReIDModel) -> None:
    model.parts["scaling"].scale = 2.0  # type: ignore[assignment]


def changed_statistic(model: ReIDModel) -> None:
    next(m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)).running_mean.add_(1.0)


def replaced_parameter(model: ReIDModel) -> None:
    layer = next(m for m in model.backbone.modules() if isinstance(m, nn.Conv2d))
    layer.weight = nn.Parameter(layer.weight.detach() * 2)


def replaced_data(model: ReIDModel) -> None:
    layer = next(m for m in model.backbone.modules() if isinstance(m, nn.Conv2d))
    layer.weight.data = layer.weight.data * 2


def replaced_layer(model: ReIDModel) -> None:
    name = next(n for n, m in model.backbone.named_modules() if isinstance(m, nn.Conv2d))
    layer = copy.deepcopy(model.backbone.get_submodule(name))
    layer.weight.data.mul_(2)
    model.backbone.set_submodule(name, layer)


def loaded_weights(model: ReIDModel) -> None:
    model.load_state_dict({key: value * 1.1 for key, value in model.state_dict().items()})


def replaced_backbone(model: ReIDModel) -> None:
    other = copy.deepcopy(model.backbone)
    replaced_parameter_of = next(m for m in other.modules() if isinstance(m, nn.Conv2d))
    replaced_parameter_of.weight.data.mul_(2)
    model.backbone = other


CHANGES = [
    changed_option,
    changed_statistic,
    replaced_parameter,
    replaced_data,
    replaced_layer,
    loaded_weights,
    replaced_backbone,
]


def test_a_parser_that_heads_ask_is_watched_too(system: Build) -> None:
    model = as_if_trained(system("sgam_lite", None)).embed_with(engine="torch")
    images = noise(model)
    before = model.embed(images)
    with torch.no_grad():
        for parameter in model.preprocess.parameters():
            parameter.add_(0.1)
    now = model.embed(images)
    assert off(before, now) > 1e-4
    assert off(now, itself(model, images)) <= 1e-5


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_is_changed_is_noticed(system: Build, change: Callable[[ReIDModel], None]) -> None:
    torch.manual_seed(0)
    model = as_if_trained(build_model("pcb_lite", heads={"scaling": Scaling}, **SYSTEM)).embed_with(engine="torch")
    images = noise(model, 8)
    before = model.embed(images)
    with torch.no_grad():
        change(model)
    now = model.embed(images)
    assert off(before, now) > 1e-4
    assert off(now, itself(model, images)) <= 1e-5


def test_it_is_made_once_and_only_when_it_pays(system: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = engines._make
    monkeypatch.setattr(engines, "_make", lambda *given: (made.append(given[1]), real(*given))[1])
    monkeypatch.setattr(engines, "_WORTH", 10)
    model = as_if_trained(system("pcb_lite", None))
    few = noise(model, 4)
    assert torch.equal(model.embed(few).embeddings[0], itself(model, few).embeddings[0])
    model.embed(few)
    assert made == []
    model.embed(few)
    model.embed(few)
    assert made == ["auto"]
    model.embed(few[:0])
    copy.deepcopy(model).embed(few)  # counts for itself
    assert made == ["auto"]
    model.embed_with(engine="torch").embed(few)
    assert made == ["auto"]
    with ThreadPoolExecutor(4) as threads:
        wanted = itself(model, few)
        assert all(off(rows, wanted) <= 1e-5 for rows in threads.map(lambda _: model.embed(few), range(8)))
    assert made == ["auto", "torch"]


def test_auto_is_onnx_runtime_where_it_is_installed(
    system: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = as_if_trained(system("pcb_lite", None))
    with caplog.at_level(logging.INFO, "occluded_reid"):
        model.embed(noise(model))
    assert "'pcb_lite' embeds through ONNX Runtime" in caplog.text
    monkeypatch.setattr(engines, "has_onnxruntime", lambda: False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    caplog.clear()
    with caplog.at_level(logging.INFO, "occluded_reid"):
        model.embed_with(engine="auto").embed(noise(model))
    assert "ONNX Runtime" not in caplog.text
    with pytest.raises(MissingExtraError, match=r"onnxruntime: pip install \"occluded-reid\[onnx\]\""):
        model.embed_with(engine="onnx").embed(noise(model))


class Deciding(Head):
    """Somebody else's head, which decides by what it sees what to compute."""

    def __init__(self, info: Any) -> None:
        super().__init__(info)
        self.stage = info.stage_name("last")
        self.info = HeadInfo(slots={"it": info.stages[self.stage].channels}, inference_slots=("it",))

    def forward(self, features: Any, context: Any, targets: Any = None) -> HeadOutput:
        pooled = features[self.stage].mean((2, 3))
        return HeadOutput(embeddings={"it": pooled if len(pooled) > 2 else -pooled})


def test_parts_of_others_are_not_traced_unasked(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = as_if_trained(
        build_model("bot_lite", heads={"global": None, "it": Deciding}, **{**SYSTEM, "model.losses": {}})
    )
    for count in (1, 4):
        images = noise(model, count)
        assert off(model.embed(images), itself(model, images)) <= 1e-5
    with pytest.raises(BuildError, match="other embeddings through ONNX Runtime"):
        model.embed_with(engine="onnx").embed(noise(model))


class Peeking(nn.Module):
    """A convolution that is looked at beside its normalisation, which must not be folded into it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution, self.normalization = convolution, nn.BatchNorm2d(convolution.out_channels)

    def forward(self, grid: Tensor) -> Tensor:
        seen = self.convolution(grid)
        return self.normalization(seen) + 0.1 * seen


def test_what_may_not_be_folded_is_not(system: Build, caplog: pytest.LogCaptureFixture) -> None:
    model = system("pcb_lite", None)
    name = next(n for n, m in model.backbone.named_modules() if isinstance(m, nn.Conv2d))
    model.backbone.set_submodule(name, Peeking(model.backbone.get_submodule(name)))  # type: ignore[arg-type]
    as_if_trained(model).embed_with(engine="torch")
    with caplog.at_level(logging.INFO, "occluded_reid"):
        rows = model.embed(noise(model))
    assert off(rows, itself(model, noise(model))) <= 1e-5
    assert "are not folded" in caplog.text


def test_a_copy_and_a_pickle_keep_the_settings_and_not_the_engine(system: Build) -> None:
    model = as_if_trained(system("pcb_lite", None)).embed_with(engine="onnx")
    rows = model.embed(noise(model))
    twin = copy.deepcopy(model)
    assert (twin.engine, twin.precision) == ("onnx", "float32")
    assert off(twin.embed(noise(model)), rows) == 0
    there = pickle.loads(pickle.dumps(Engines("torch", "bfloat16")))  # noqa: S301 — our own
    assert (there.engine, there.precision) == ("torch", "bfloat16")


def test_words_that_mean_nothing_are_refused(system: Build, tmp_path: Any) -> None:
    model = system("pcb_lite", None)
    with pytest.raises(BuildError, match=r"engine is 'onxx'\. Did you mean 'onnx'\?"):
        model.embed_with(engine="onxx")  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=r"precision is 'bfloat'\. Did you mean 'bfloat16'\?"):
        model.embed_with(precision="bfloat")  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="precision is 'half'"):
        model.embed(noise(model), precision="half")  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="computes in float32"):
        model.embed_with(engine="onnx", precision="bfloat16")
    assert (model.engine, model.precision) == ("auto", "float32")
    model.save(tmp_path)
    loaded = load_model(tmp_path, engine="torch", precision="float16")
    assert (loaded.engine, loaded.precision) == ("torch", "float16")


def test_a_precision_that_the_processor_lacks_is_refused(system: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = system("pcb_lite", None)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "cpu_name": "A. Processor"})
    for name in ("bfloat16", "float16"):
        with pytest.raises(DeviceError, match=rf"'{name}', and this processor \(A. Processor\) has none of "):
            model.embed(noise(model), precision=name)  # type: ignore[arg-type]
        assert not precision.has_precision(name)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert precision.has_precision("bfloat16")
    assert not precision.has_precision("float16")
    assert precision.require_precision("bfloat16") == torch.bfloat16


@pytest.mark.parametrize("recipe", LITE)
def test_bfloat16_is_near_and_says_so(system: Build, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    monkeypatch.setattr(precision, "_missing", lambda *_: None)  # imitated where the processor has none
    model = as_if_trained(system(recipe, None))
    wanted = itself(model, noise(model))
    rows = model.embed(noise(model), precision="bfloat16")
    assert all(slot.dtype == torch.float32 for slot in rows.embeddings)
    assert 1e-4 < off(rows, wanted) < 0.2
    for given, own in zip(rows.embeddings, wanted.embeddings, strict=True):
        assert torch.cosine_similarity(given, own).min() > 0.98
    assert off(model.embed(noise(model)), wanted) <= 1e-5  # float32 beside it
    assert off(model.embed_with(precision="bfloat16").embed(noise(model)), rows) == 0
    assert model.precision == "bfloat16"


def test_numbers_that_are_none_are_not_lost(system: Build) -> None:
    model = as_if_trained(system("sorn_lite", None)).embed_with(engine="onnx")
    images = noise(model)
    model.embed(images)
    images[1, 0, 3, 3] = float("nan")
    with pytest.raises(EmbeddingError, match="NaN"):
        model.embed(images)
