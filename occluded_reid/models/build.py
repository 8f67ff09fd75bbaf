"""The builder: from a recipe's name to a model, with every misfit said at once."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch

from occluded_reid.arguments import checked, shown
from occluded_reid.backbones import Backbone, FrozenBackbone, create_backbone, is_frozen
from occluded_reid.config import (
    BackboneConfig,
    Component,
    ModelConfig,
    ParserConfig,
    Recipe,
    apply_overrides,
    is_hub,
    is_packaged,
    list_recipes,
    load_recipe,
    recipe_content,
    validate_recipe,
)
from occluded_reid.contracts import BuildInfo, RegionParser
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import BuildError, OccludedReIDError, RecipeError
from occluded_reid.heads.base import Head
from occluded_reid.losses.base import Loss
from occluded_reid.losses.criterion import Criterion
from occluded_reid.matchers.base import Matcher
from occluded_reid.models.model import ReIDModel
from occluded_reid.models.packaged import read_packaged
from occluded_reid.models.preprocess import Preprocess
from occluded_reid.models.provenance import Origin, TrainedOn
from occluded_reid.models.start import fill_necks, has_own_weights, take_over
from occluded_reid.parsing.network import ParsingNetwork
from occluded_reid.parsing.saved import load_parser_weights, parser_folder, read_parser_options
from occluded_reid.registry import BACKBONES, HEADS, LOSSES, MATCHERS, MODELS, PARSERS, Registry, check_options

__all__ = ["build_info", "build_model", "find_recipe", "list_models"]

_LOG = logging.getLogger(__name__)

_MOST_CLASSES = 1 << 31  # a classifier of more has a terabyte of weights

HeadSpec = str | Component | Mapping[str, Any] | type[Head] | Callable[[BuildInfo], Head] | Head | None


def list_models() -> list[str]:
    """Return the sorted names that `build_model` knows: the library's recipes and registered ones."""
    return sorted({*list_recipes(), *MODELS.names()})


@checked(BuildError)
def build_model(
    name_or_recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    num_classes: int | None = None,
    backbone: str | Mapping[str, Any] | None = None,
    heads: Mapping[str, HeadSpec] | None = None,
    pretrained: bool | str | Path | Mapping[str, Any] | None = None,
    **overrides: Any,
) -> ReIDModel:
    """Build a model from a recipe.

    Args:
        name_or_recipe: a system's name ("sorn"), a YAML file, a mapping, or a `Recipe`.
        num_classes: number of training identities; None builds for inference, without classifiers and losses.
        backbone: another backbone: a registered name, any timm name, or a whole part of a recipe such as
            ``{"type": "onnx", "weights": "reid.onnx"}``.
        heads: heads to add or to replace, by name: a registered name, a component, a class, an instance; None removes.
        pretrained: which weights the backbone begins with. None loads what was named for this call: a file that the
            recipe or an override names, and the hub where an override, a recipe file or a mapping names it. The hub of
            a recipe that comes with the library is not fetched unasked: a warning in the log says so. True loads what
            the recipe names, timm's hub if it names nothing; a path loads that file, and so does ``{"file": …,
            "layout": …}``, which says how it is laid out; False starts from random values.
            The parser's weights, where the recipe names some, are loaded in any case: it is not trained with the model.
        **overrides: ``**{"model.heads.local.options.num_parts": 6}``.

    Raises:
        RecipeError: the recipe or an override is not valid.
        UnknownNameError: a part is not registered.
        UnknownOptionError: a part takes no such option.
        BuildError: the parts do not fit each other.
        CheckpointError, WeightsError: weights cannot be read, or do not fit.

    Example:
        >>> model = build_model("sorn_lite", num_classes=5)
        >>> model.slots
        {'global': 768, 'part_1': 320, 'part_2': 320, 'part_3': 320}
    """
    if pretrained is True and is_packaged(name_or_recipe):
        return _build_packaged(str(name_or_recipe), num_classes, backbone, heads, overrides)
    whole = isinstance(num_classes, int) and not isinstance(num_classes, bool)
    if num_classes is not None and not (whole and 1 <= num_classes <= _MOST_CLASSES):
        raise BuildError(
            f"num_classes is {shown(num_classes)}; give a whole number from 1 to {_MOST_CLASSES:,}, or None for "
            "inference."
        )
    content, called = _content(name_or_recipe)
    content = apply_overrides(content, overrides)
    changes = _backbone_changes(content, backbone)
    if isinstance(pretrained, Mapping):
        changes |= {"model.backbone.weights": pretrained, "model.backbone.weights_match": "auto"}
    heads_changed, made = _merge_heads(content, heads)
    recipe = validate_recipe(apply_overrides(content, {**changes, **heads_changed}), called)
    if isinstance(pretrained, Mapping):
        pretrained = str(recipe.model.backbone.weights)
    config = recipe.model
    parser, parser_options = _build_parser(config.parser)
    preprocess = Preprocess(config.input, parser)
    network, network_options = _build_backbone(config, pretrained)
    source = _source(name_or_recipe, config.backbone, overrides, pretrained, network.file)
    if found := {**parser_options, **network_options}:  # what a checkpoint needs to make them again
        recipe = recipe.override(found)
    imported = None
    if source is not None and not network.frozen:
        imported = network.load_pretrained(source, config.backbone.weights_match)
    info = replace(build_info(recipe, network, num_classes), parser=parser)
    built: dict[str, Head] = {}
    for name, component in config.heads.items():
        built[name] = _build_head(replace(info, name=name), component, made.get(name))
        info = replace(info, heads={**info.heads, name: built[name].info})
    _check_slots(built)
    filled = (
        () if imported is None else fill_necks(imported, built, list(network.feature_info)[-1], str(_shown(source)))
    )
    if num_classes is None:  # checked like the others, and let go: their weights would never be used
        built = {name: head for name, head in built.items() if not head.info.training_only}
    criterion = _build_criterion(recipe, info) if num_classes is not None else None
    matcher = _create(MATCHERS, config.matcher, "model.matcher")
    _try_matcher(matcher, config.matcher.type, built)
    model = ReIDModel(recipe, num_classes, network, built, criterion, matcher, preprocess)
    # A frozen network with nothing to be learnt above it is as its maker has trained it.
    whole = network.frozen and not any(parameter.requires_grad for parameter in model.parameters())
    whole = whole or (imported is not None and not has_own_weights(built, filled))  # likewise, from another project
    model.origin = Origin(_shown(source), None if whole else False)
    return model


def _content(name_or_recipe: str | Path | Mapping[str, Any] | Recipe) -> tuple[dict[str, Any], str]:
    """What a recipe says, not validated yet, and what messages call it; plug-ins' recipes are found by name."""
    if isinstance(name_or_recipe, str) and name_or_recipe in MODELS:
        return recipe_content(MODELS.create(name_or_recipe))
    return recipe_content(name_or_recipe)


def _backbone_changes(content: Mapping[str, Any], backbone: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The overrides that another backbone makes; a last_stride goes where that one takes none, and a notice says so."""
    if backbone is None:
        return {}
    if isinstance(backbone, Mapping):
        return {"model.backbone": backbone}
    if not isinstance(backbone, str):
        raise BuildError(f"backbone is of type {type(backbone).__name__}; give its name, or a mapping with 'type'.")
    changes: dict[str, Any] = {"model.backbone.type": backbone}
    options = _part(_part(_part(content, "model"), "backbone"), "options")
    takes = backbone not in BACKBONES or "last_stride" in inspect.signature(BACKBONES.get(backbone)).parameters
    if "last_stride" in options and not takes:
        _LOG.warning("the backbone '%s' has no stride to change: the recipe's last_stride is ignored", backbone)
        changes["model.backbone.options"] = {key: value for key, value in options.items() if key != "last_stride"}
    return changes


def _part(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A mapping within another; empty where it is none, which validation says."""
    part = content.get(key)
    return part if isinstance(part, Mapping) else {}


def _build_packaged(
    name: str,
    num_classes: int | None,
    backbone: str | Mapping[str, Any] | None,
    heads: Mapping[str, HeadSpec] | None,
    overrides: Mapping[str, Any],
) -> ReIDModel:
    """Build a model whose weights come with the library, by the recipe that they were trained with, and load them."""
    content, tensors = read_packaged(name)
    recipe = load_recipe(content["recipe"], overrides)
    model = build_model(recipe, num_classes=num_classes, backbone=backbone, heads=heads, pretrained=False)
    take_over(
        model,
        model.inference_state(),
        tensors,
        f"what was asked for cannot take the weights of '{name}'",
        "Leave out what changes the network; or begin with weights of the backbone alone: pretrained='hub', or a file.",
    )
    model.origin = Origin.from_dict(content.get("origin"))
    model.trained_on = TrainedOn.from_dict(content["trained_on"]) if "trained_on" in content else None
    model.source = name if not (overrides or backbone or heads) else None
    return model


def find_recipe(
    name_or_recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Return the recipe of a system that this library or a plug-in names, of a file, or of a mapping.

    Raises:
        RecipeError: there is none, or it or an override is not valid.
    """
    if isinstance(name_or_recipe, Recipe) and not overrides:
        return name_or_recipe
    content, called = _content(name_or_recipe)
    return validate_recipe(apply_overrides(content, overrides or {}), called)


def _source(
    recipe: object,
    backbone: BackboneConfig,
    overrides: Mapping[str, Any],
    pretrained: bool | str | Path | None,
    file: str,
) -> str | None:
    """What the backbone begins with: "hub", a file, or None for random values."""
    named = backbone.weights
    if isinstance(pretrained, str | Path):
        return str(pretrained)
    if pretrained is not None:
        return (named or "hub") if pretrained else None
    theirs = isinstance(recipe, Mapping) or (isinstance(recipe, str | Path) and str(recipe).endswith((".yaml", ".yml")))
    part = overrides.get("model.backbone")
    now = overrides.get("model.backbone.weights", part.get("weights") if isinstance(part, Mapping) else None)
    now = now.get("file") if isinstance(now, Mapping) else now
    if named == "hub" and not (theirs or now == "hub"):
        if file:
            _LOG.warning(
                "no hub has weights of '%s': the backbone begins with random values. Give a file, %s: "
                "pretrained=FILE; or pretrained=False to say that this is meant",
                backbone.type,
                file,
            )
        else:
            _LOG.warning(
                "the recipe names weights of the hub, which are not fetched unasked: the backbone begins with random "
                "values. Give pretrained=True to fetch them, or pretrained=False to say that this is meant"
            )
        return None
    return named


def _shown(source: str | None) -> str | None:
    """A source as it is recorded: a file by its name alone, for where it lay is private."""
    return source if source in (None, "hub") or is_hub(source) else Path(str(source)).name


def _create(registry: Registry[Any], component: Component, where: str, *args: Any, **extra: Any) -> Any:
    """Create a registered part; options are checked here, so that plug-ins bring their own."""
    factory = registry.get(component.type)
    options = check_options(factory, component.options, f"{where}.options of '{component.type}'", skip=len(args))
    on = inspect.signature(factory).parameters.get("on")
    if component.on is not None:
        if on is None:
            raise RecipeError(f"{where}.on: '{component.type}' takes no 'on'. Remove it.")
        options["on"] = component.on
    elif on is not None and on.default is on.empty and "on" not in options:
        raise RecipeError(f"{where}.on: '{component.type}' needs to know what it works on, such as on: global.")
    return factory(*args, **extra, **options)


def _build_backbone(model: ModelConfig, pretrained: bool | str | Path | None) -> tuple[Backbone, dict[str, Any]]:
    """Make the recipe's backbone; of one that is a network in a file, the overrides too that rebuild it."""
    config, size = model.backbone, (model.input.height, model.input.width)
    if not is_frozen(config.type):
        return create_backbone(config.type, size, config.options), {}
    if "weights" in config.options:
        raise RecipeError("model.backbone.options.weights: a network's file is named by model.backbone.weights.")
    if config.weights_match != "auto":
        raise RecipeError(
            f"model.backbone.weights_match: '{config.type}' is a network in a file, not a file of tensors with a "
            "layout. Leave the layout out."
        )
    file = pretrained if isinstance(pretrained, str | Path) else config.weights
    network = create_backbone(
        config.type, size, config.options if file is None else {**config.options, "weights": file}
    )
    remembered = {**config.options, "given": asdict(cast(FrozenBackbone, network).given)}
    return network, {"model.backbone": {"type": config.type, "options": remembered}}


def _build_parser(config: ParserConfig | None) -> tuple[RegionParser | None, dict[str, Any]]:
    """Make the recipe's parser; where its folder knows options, the overrides too that say all of them."""
    if config is None:
        return None, {}
    options = dict(config.options)
    folder = None if config.weights is None else parser_folder(config.weights)
    if folder is not None:
        kind, trained = read_parser_options(folder)
        if kind != config.type:
            raise BuildError(
                f"model.parser.type is '{config.type}', but '{config.weights}' holds the parser '{kind}'. "
                f"Set model.parser.type={kind}, or give other weights."
            )
        options = {**trained, **options}
    factory = PARSERS.get(config.type)
    if isinstance(factory, type) and not issubclass(factory, RegionParser):
        raise BuildError(_no_network(config.type, factory.__name__))  # before it opens what its options name
    parser = factory(**check_options(factory, options, f"model.parser.options of '{config.type}'"))
    if not isinstance(parser, RegionParser):
        raise BuildError(_no_network(config.type, type(parser).__name__))
    if config.weights is not None:
        if not isinstance(parser, ParsingNetwork):
            raise BuildError(
                f"model.parser.weights is given, but the parser '{config.type}' is no ParsingNetwork and loads none. "
                "Leave the weights out."
            )
        load_parser_weights(parser, config.weights)
    return parser, {} if folder is None else {"model.parser.options": options}


def _no_network(kind: str, made: str) -> str:
    return (
        f"model.parser.type is '{kind}', a {made}, which makes masks but is no network that a model can carry. Train a "
        "network on its masks (occluded-reid train-parser), and name that one."
    )


def _build_head(info: BuildInfo, component: Component, made: Callable[[BuildInfo], Head] | Head | None) -> Head:
    if made is None:
        head: Any = _create(HEADS, component, f"model.heads.{info.name}", info)
    elif isinstance(made, Head):
        head = made
    else:
        head = made(info)
    if not isinstance(head, Head) or not hasattr(head, "info"):
        raise BuildError(f"head '{info.name}' ({type(head).__name__}) must be a Head that sets self.info in __init__.")
    return head


def _merge_heads(
    content: Mapping[str, Any], heads: Mapping[str, HeadSpec] | None
) -> tuple[dict[str, Any], dict[str, Callable[[BuildInfo], Head] | Head]]:
    """The overrides that the caller's heads make; those given as objects are remembered under their name."""
    if heads is not None and not isinstance(heads, Mapping):
        raise BuildError(f"heads is of type {type(heads).__name__}; give a mapping of names to heads.")
    components = dict(_part(_part(content, "model"), "heads"))
    made: dict[str, Callable[[BuildInfo], Head] | Head] = {}
    for name, spec in (heads or {}).items():
        if not isinstance(name, str):
            raise BuildError(f"heads holds {shown(name)} as a name; give a text.")
        if "." in name:
            raise BuildError(f"a head is to be named '{name}'; names have no dot. Call it '{name.replace('.', '_')}'.")
        if spec is None:
            components.pop(name, None)
        elif isinstance(spec, str):
            components[name] = {"type": spec}
        elif isinstance(spec, Component):
            components[name] = spec.model_dump()
        elif isinstance(spec, Mapping):
            components[name] = dict(spec)
        elif not isinstance(spec, Head) and not callable(spec):
            raise BuildError(
                f"heads['{name}'] is {shown(spec)}; give a registered name, a mapping with 'type', a Head or its "
                "class, or None to remove the head."
            )
        else:
            made[name] = spec
            label = type(spec) if isinstance(spec, Head) else spec
            components[name] = {"type": f"object:{getattr(label, '__qualname__', label)}"}
    return {"model.heads": components} if heads else {}, made


def _check_slots(heads: Mapping[str, Head]) -> None:
    """One owner and at most one visibility provider a slot; every provided slot exists."""
    owner: dict[str, str] = {}
    provider: dict[str, str] = {}
    for name, head in heads.items():
        for slot in head.info.slots:
            if slot in owner:
                raise BuildError(
                    f"heads '{owner[slot]}' and '{name}' both give a slot named '{slot}'. Rename one of them."
                )
            owner[slot] = name
        for slot in head.info.visibility_of:
            if slot in provider:
                raise BuildError(
                    f"heads '{provider[slot]}' and '{name}' both give the visibility of slot '{slot}'; "
                    "one provider a slot is allowed. Set visibility_of to null in one of them."
                )
            provider[slot] = name
    if unknown := sorted(set(provider) - set(owner)):
        raise BuildError(
            f"head '{provider[unknown[0]]}' gives the visibility of slot '{unknown[0]}', which no head has. "
            f"Slots: {', '.join(owner)}."
        )
    if not any(head.info.inference_slots for head in heads.values()):
        raise BuildError("no head gives a slot for matching. Add a head such as 'global' or 'local'.")


def _try_matcher(matcher: Matcher, name: str, heads: Mapping[str, Head]) -> None:
    """Compare two empty rows, so that weights of unknown slots and the like are said now and not after training."""
    widths = {slot: head.info.slots[slot] for head in heads.values() for slot in head.info.inference_slots}
    rows = PartEmbeddings(
        tuple(widths), tuple(torch.ones(1, width) for width in widths.values()), torch.ones(1, len(widths))
    )
    try:
        matcher.distance(rows, rows)
    except OccludedReIDError as error:
        raise BuildError(f"matcher '{name}' does not fit this model: {error}") from error


def _build_criterion(recipe: Recipe, info: BuildInfo) -> Criterion:
    losses: dict[str, Loss] = {}
    for name, component in recipe.model.losses.items():
        losses[name] = _create(LOSSES, component, f"model.losses.{name}", replace(info, name=name))
    parts = recipe.model.losses.items()
    weights = {name: component.weight for name, component in parts}
    return Criterion(losses, weights, {name: component.from_epoch for name, component in parts})


def build_info(recipe: Recipe, backbone: Backbone, num_classes: int | None) -> BuildInfo:
    """Return what the first head may know."""
    config = recipe.model.input
    return BuildInfo(
        stages=backbone.feature_info,
        input_size=(config.height, config.width),
        num_classes=num_classes,
        class_token=backbone.class_token,
        vectors=backbone.vectors,
        mean=config.mean,
        std=config.std,
    )
