"""Typed recipes: what a model is made of, what it is trained on, and how, in one YAML file a system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from occluded_reid.arguments import checked
from occluded_reid.errors import RecipeError
from occluded_reid.files import as_path
from occluded_reid.registry import did_you_mean
from occluded_reid.yaml12 import parse_yaml

__all__ = [
    "DEFAULT_MODEL",
    "HUB",
    "PACKAGED",
    "WEIGHTS_LAYOUTS",
    "AloneConfig",
    "BackboneConfig",
    "Component",
    "CropConfig",
    "DataConfig",
    "InputConfig",
    "ModelConfig",
    "OptimConfig",
    "ParserConfig",
    "Recipe",
    "ShortComponent",
    "Strict",
    "TeacherConfig",
    "apply_overrides",
    "is_hub",
    "is_packaged",
    "list_recipes",
    "load_recipe",
    "parse_override",
    "read_recipe",
    "recipe_content",
    "validate_recipe",
]

RECIPES = Path(__file__).parent / "recipes"
PACKAGED = ("oreid_lite",)
"""Names of recipes whose trained weights come with the library."""
DEFAULT_MODEL = "oreid_lite"
"""The model that is taken where none is named."""
HUB = "hf-hub:"
"""What an address of weights on the Hugging Face hub begins with."""
WEIGHTS_LAYOUTS = ("auto", "timm", "order", "torchreid", "fast-reid", "reid-strong-baseline", "transreid", "clip-reid")
"""How a weights file may be laid out: as another project does, in timm's names, in timm's order, or what it tells."""
_DEEPEST = 50
_LONGEST_SHOWN = 200


class Strict(BaseModel):
    """A part of a recipe: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Component(Strict):
    """One registered part: its type, what it works on, its weight in the total loss, and its own options."""

    type: str
    on: str | None = None
    weight: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)


def _component(value: Any) -> Any:
    """A bare name is a component without options."""
    return {"type": value} if isinstance(value, str) else value


class LossComponent(Component):
    """A loss, and the epoch, counted from 1, in which it begins to count; before, it is computed and logged only."""

    from_epoch: int = Field(1, ge=1)


ShortComponent = Annotated[Component, BeforeValidator(_component)]
ShortLoss = Annotated[LossComponent, BeforeValidator(_component)]
Share = Annotated[float, Field(ge=0, le=1)]


class CropConfig(Strict):
    """What is cut off an image before it is resized (SGAM §3.1): rows, or a box, around what the parser finds visible.

    `visibility` and `visible` decide whether a region counts as visible: by `functional.region_visibility`, from that
    value on (one for all, or one a region). The others belong to `models.visible_box`.
    """

    rule: Literal["none", "rows", "box"] = "none"
    visibility: Literal["ref", "area", "relative", "peak"] = "ref"
    visible: Share | dict[str, Share] = 0.2
    threshold: Share = 0.5
    margin: float = Field(0.02, ge=0, le=0.5)
    min_height: Share = 0.3
    when: Literal["hidden", "always"] = "hidden"
    middle: Literal["cut", "keep"] = "cut"


class InputConfig(Strict):
    """Image size in pixels, how images get there, and the normalisation of RGB values in [0, 1]."""

    height: int = Field(384, ge=16, le=4096)
    width: int = Field(128, ge=16, le=4096)
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop: CropConfig = CropConfig()


def _layout(value: Any) -> Any:
    """A layout of weights; "names" is what "timm" was called before."""
    if value == "names":
        return "timm"
    if isinstance(value, str) and value not in WEIGHTS_LAYOUTS:
        raise ValueError(
            f"no layout of weights has that name.{did_you_mean(value, WEIGHTS_LAYOUTS)} There are: "
            f"{', '.join(WEIGHTS_LAYOUTS)}"
        )
    return value


class BackboneConfig(Strict):
    """A registered backbone, or any timm name.

    `weights` is "hub" (timm's), a local file, "hf-hub:owner/name" (a safetensors file there), or None: random values.

    `weights_match` says how the file is laid out, one of `WEIGHTS_LAYOUTS`; ``weights: {file: …, layout: …}`` says
    both.
    """

    type: str
    options: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    weights_match: Annotated[str, BeforeValidator(_layout)] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _file_and_layout(cls, content: Any) -> Any:
        weights = content.get("weights") if isinstance(content, Mapping) else None
        if not isinstance(weights, Mapping):
            return content
        if unknown := [str(key) for key in weights if key not in ("file", "layout")]:
            raise ValueError(
                f"weights.{unknown[0]}: there is no such key.{did_you_mean(unknown[0], ('file', 'layout'))} "
                "Known: file, layout"
            )
        if not isinstance(weights.get("file"), str | Path):
            raise ValueError("weights is a mapping without 'file', the path of the weights")
        layout, also = _layout(weights.get("layout", "auto")), _layout(content.get("weights_match", "auto"))
        if also not in ("auto", layout):
            raise ValueError(f"weights.layout is '{layout}' and weights_match '{also}'; say it once")
        return {**content, "weights": str(weights["file"]), "weights_match": layout}


class ParserConfig(Strict):
    """A model's human parser: a name in `PARSERS`, its options, and its weights.

    `weights` is a folder that `occluded-reid train-parser` has made, whose options fill in those left out here; or a
    file of tensors; or None for random values, which make sense in tests only.
    """

    type: str
    options: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None


class ModelConfig(Strict):
    """The network, its losses and its matcher, and the human parser that crops for it or gives it regions."""

    input: InputConfig = InputConfig()
    parser: Annotated[ParserConfig | None, BeforeValidator(_component)] = None
    backbone: Annotated[BackboneConfig, BeforeValidator(_component)]
    heads: dict[str, ShortComponent]
    losses: dict[str, ShortLoss] = Field(default_factory=dict)
    matcher: ShortComponent = Component(type="visibility_weighted")


class TeacherConfig(Strict):
    """A stronger model, whose embeddings of the clean images the model learns to give (loss `distillation`).

    `model` is a saved model's folder or a network's file (.onnx, .xml), `preset` what such a file wants to be shown.
    `cache` is the folder in which its embeddings are kept; None keeps them beside the run.
    """

    model: str
    preset: str | None = None
    cache: str | None = None


class DataConfig(Strict):
    """How training batches are made: global batch size, sampler, augmentation in order, views of an image, part masks.

    `resample` is how training images are brought to the model's size; None: as all images are, by `model.input`.

    With "clean_and_occluded" views a batch of `batch` images has twice as many rows: all clean ones, then all occluded
    ones in the same order.

    `distinct_views` K is for heads on a frozen backbone (onnx, openvino): each image is augmented in K ways, and epoch
    e shows what epoch e - K has shown, in another order. What the backbone gives for a view is computed once and kept,
    in float16, in the folder `feature_cache`, for later runs too; None keeps it in the run's folder while that lasts.
    """

    batch: int = Field(32, ge=1)
    sampler: Literal["shuffle", "pk"] = "shuffle"
    instances: int = Field(4, ge=2)
    resample: Literal["bilinear", "bicubic"] | None = None
    augment: list[ShortComponent] = Field(default_factory=list)
    views: Literal["single", "clean_and_occluded"] = "single"
    masks: Literal[0, 2, 5, 8] = 0
    teacher: TeacherConfig | None = None
    distinct_views: int | None = Field(None, ge=1)
    feature_cache: str | None = None

    @model_validator(mode="after")
    def _whole_groups(self) -> DataConfig:
        if self.sampler == "pk" and self.batch % self.instances:
            raise ValueError(f"batch {self.batch} is not a multiple of instances {self.instances}")
        return self


class AloneConfig(Strict):
    """Parameters that learn alone in the first `epochs` epochs: those whose names begin with one of `parts`.

    All others keep their values, and the layers around them are as in use: batch normalisation uses and keeps its
    running statistics, nothing is dropped.
    """

    parts: list[str] = Field(min_length=1)
    epochs: int = Field(ge=1)


class OptimConfig(Strict):
    """Optimiser and schedule. Epochs are counted from 1; `steps` {30: 0.1} multiplies the rate from epoch 30 on.

    `warmup_epochs` w: the rate rises linearly from warmup_start · lr in epoch 1 to lr in epoch w.
    `cosine_end`: when given, the rate falls along a half cosine from lr to cosine_end · lr in the last epoch. The curve
    begins where the warm-up ends, or in epoch `cosine_start`, hidden by the warm-up (0: as TransReID and FED do).
    `backbone_scale` multiplies the rate of the backbone's parameters, `bias_scale` that of all biases.
    `average` d: what is evaluated and saved is the moving average θ̄ ← d·θ̄ + (1 - d)·θ over the steps.
    `alone`: what learns alone at first. `continues` names the recipe whose trained model this training goes on from,
    classifiers and people included: a second stage.
    """

    type: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    backbone_scale: float = Field(1.0, ge=0)
    bias_scale: float = Field(1.0, gt=0)
    epochs: int = Field(80, ge=1)
    warmup_epochs: int = Field(0, ge=0)
    warmup_start: float = Field(0.1, ge=0, le=1)
    steps: dict[int, float] = Field(default_factory=dict)
    cosine_end: float | None = Field(None, ge=0, le=1)
    cosine_start: int | None = Field(None, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    precision: Literal["no", "fp16", "bf16"] = "no"
    average: float | None = Field(None, gt=0, lt=1)
    alone: AloneConfig | None = None
    continues: str | None = None

    @model_validator(mode="after")
    def _one_schedule(self) -> OptimConfig:
        if self.steps and self.cosine_end is not None:
            raise ValueError("give either steps or cosine_end, not both")
        if self.cosine_start is not None and (
            self.cosine_end is None or self.cosine_start > max(self.warmup_epochs, 1)
        ):
            raise ValueError("cosine_start needs cosine_end, and lies at the end of the warm-up or before it")
        if self.alone is not None and self.alone.epochs > self.epochs:
            raise ValueError(f"alone.epochs is {self.alone.epochs}, and there are {self.epochs} epochs")
        return self


class Recipe(Strict):
    """A published system, or one's own: model, data, optimisation."""

    name: str
    paper: str = ""
    notes: str = ""
    model: ModelConfig
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()

    def override(self, overrides: Mapping[str, Any]) -> Recipe:
        """Return a copy with ``{"key.path": value}`` replaced; a key may name a new option or a new part.

        Raises:
            RecipeError: no such key (with the closest one), or a value that does not fit.

        Example:
            >>> load_recipe("sorn").override({"optim.epochs": 2}).optim.epochs
            2
        """
        return validate_recipe(apply_overrides(self.model_dump(mode="json"), overrides), self.name)


@checked(RecipeError)
def load_recipe(name_or_path: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe by the name of a system, from a YAML file, or from a mapping.

    Args:
        name_or_path: ``"sorn"``, a path ending in .yaml or .yml, or the content as a mapping.
        overrides: ``{"optim.epochs": 20, "model.heads.parts.options.num_parts": 6}``.

    Raises:
        RecipeError: no such recipe, a misspelt key, or a value that does not fit; the key's path is named.
    """
    content, source = recipe_content(name_or_path)
    return validate_recipe(apply_overrides(content, overrides or {}), source)


def recipe_content(name_or_path: str | Path | Mapping[str, Any] | Recipe) -> tuple[dict[str, Any], str]:
    """Return what a recipe says before it is validated, and what messages call it.

    Raises:
        RecipeError: there is no such recipe.
    """
    if isinstance(name_or_path, Recipe):
        return name_or_path.model_dump(mode="json"), name_or_path.name
    if isinstance(name_or_path, Mapping):
        return dict(name_or_path), str(name_or_path.get("name", "recipe"))
    return read_recipe(name_or_path, RECIPES), str(name_or_path)


def read_recipe(name_or_path: str | Path, folder: Path, kind: str = "recipe") -> dict[str, Any]:
    """Read the YAML of a recipe by its name in a folder, or by its path; without a name it is called after the file.

    Args:
        name_or_path: a name, or a path ending in .yaml or .yml.
        folder: where the library's own lie.
        kind: what the message calls it.

    Raises:
        RecipeError: there is none of that name (with the closest one), or the file is no YAML mapping.
    """
    path = as_path(name_or_path, RecipeError)
    if path.suffix not in (".yaml", ".yml"):
        known = sorted(each.stem for each in folder.glob("*.yaml"))
        path = folder / f"{name_or_path}.yaml"
        if str(name_or_path) not in known:
            raise RecipeError(
                f"no {kind} is named '{name_or_path}'.{did_you_mean(str(name_or_path), known)} There are: "
                f"{', '.join(known)}. A recipe of your own is given as a path that ends in .yaml."
            )
    try:
        loaded = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"the {kind} '{path}' cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError) as error:  # bytes that are no text, a path that no file can have
        raise RecipeError(f"the {kind} '{path}' is not valid YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise RecipeError(f"the {kind} '{path}' holds {type(loaded).__name__}; wanted a mapping with 'model'.")
    return {"name": path.stem, **loaded}


def list_recipes() -> list[str]:
    """Return the sorted names of the recipes that come with the library."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def is_hub(name: object) -> bool:
    """Return whether a text is an address on the Hugging Face hub."""
    return isinstance(name, str) and name.startswith(HUB)


def is_packaged(name: object) -> bool:
    """Return whether a text is the name of a model that comes with the library.

    A `Path` never is: a folder of one's own that is called so is given as a path, or as "./oreid_lite".
    """
    return isinstance(name, str) and name in PACKAGED


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``key.path=value`` of the command line; the value is read as YAML.

    Raises:
        RecipeError: there is no '=' or the value is not YAML.

    Example:
        >>> parse_override("optim.steps={20: 0.1}")
        ('optim.steps', {20: 0.1})
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise RecipeError(f"the override '{text}' is not of the form key.path=value, such as optim.epochs=20.")
    try:
        return key.strip(), parse_yaml(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"the value in '{text}' is not valid YAML: {error}") from error


def apply_overrides(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of nested mappings with dotted keys replaced; missing mappings are made.

    None removes a head or a loss: ``{"model.losses.spc": None}``. A new head comes last; with a key ``before`` it comes
    right before another one, and so sees less and is seen by more: ``{"model.heads.middle": {"type": "converter",
    "before": "bottom"}}``.

    Raises:
        RecipeError: there is nothing to remove, or no head of the name that another is to stand before.
    """
    result: dict[str, Any] = _copy(content)
    for path, value in overrides.items():
        *parents, last = path.split(".")
        place = result
        for parent in parents:
            following = place.get(parent)
            if isinstance(following, str):  # a component written as a bare name
                following = {"type": following}
            place[parent] = following if isinstance(following, dict) else {}
            place = place[parent]
        if value is None and parents in (["model", "heads"], ["model", "losses"]):
            if last not in place:
                raise RecipeError(f"{path}: there is nothing to remove.{did_you_mean(last, list(place))}")
            del place[last]
        else:
            place[last] = _copy(value)
    model = result.get("model")
    if isinstance(model, dict) and isinstance(model.get("heads"), dict):
        model["heads"] = _in_order(model["heads"])
    return result


def _in_order(heads: dict[str, Any]) -> dict[str, Any]:
    """The heads, each that says so right before another one."""
    for name in [*heads]:
        spec = heads[name]
        if not isinstance(spec, dict) or "before" not in spec:
            continue
        spec = {key: value for key, value in spec.items() if key != "before"}
        other = heads[name]["before"]
        rest = [each for each in heads if each != name]
        if other not in rest:
            hint = did_you_mean(other, rest) if isinstance(other, str) else ""
            raise RecipeError(
                f"model.heads.{name}.before: there is no other head {_shown(other)} to stand before.{hint} "
                f"Heads: {', '.join(rest) or 'none'}. Name one of them, or leave before out to come last."
            )
        place = rest.index(other)
        heads = {each: spec if each == name else heads[each] for each in (*rest[:place], name, *rest[place:])}
    return heads


def _copy(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise RecipeError(f"the values of a recipe are nested more than {_DEEPEST} deep. Write them flatter.")
    if isinstance(value, Mapping):
        return {key: _copy(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_copy(item, depth + 1) for item in value]
    return value


def validate_recipe(content: Mapping[str, Any], source: str) -> Recipe:
    """Return the recipe that some content is.

    Args:
        content: nested mappings, as a recipe file holds them.
        source: what messages call it.

    Raises:
        RecipeError: a key is misspelt or missing, or a value does not fit; each is named by its path.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            where = [str(part) for part in item["loc"] if not str(part).startswith("function-")]
            if item["type"] == "extra_forbidden":
                known = _keys_at(where[:-1])
                hint = did_you_mean(where[-1], known)
                lines.append(f"{'.'.join(where)}: there is no such key.{hint} Known: {', '.join(known)}.")
            elif item["type"] == "missing":
                lines.append(f"{'.'.join(where)}: this key is required.")
            else:
                lines.append(f"{'.'.join(where)}: was given {_shown(item['input'])}; {item['msg']}.")
        raise RecipeError(f"recipe '{source}' is not valid:\n  " + "\n  ".join(lines)) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _keys_at(path: Sequence[str]) -> list[str]:
    """The keys a recipe knows at a path; a name chosen by the user (a head, a loss) stands for any component."""
    model: type[BaseModel] = Recipe
    steps: dict[str, type[BaseModel]] = {
        "model": ModelConfig,
        "data": DataConfig,
        "optim": OptimConfig,
        "input": InputConfig,
        "backbone": BackboneConfig,
        "crop": CropConfig,
        "parser": ParserConfig,
        "teacher": TeacherConfig,
        "alone": AloneConfig,
    }
    for part in path:
        model = steps.get(part, Component)
    return list(model.model_fields)
