"""How other projects name the tensors of their weights files: a table, and what brings a file to a network's names.

A layout is offered only where the numbers come out as its authors' do. Names do not say everything of a network: what
they leave unsaid (an activation, how the first map is pooled) is asked of the network, and refused where it differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

__all__ = ["LAYOUTS", "UNSUPPORTED", "Imported", "Unsupported", "WeightsLayout", "kind_of", "recognise", "translate"]

KINDS = {
    "resnet": "a plain ResNet (resnet50)",
    "resnet_ibn": "ResNet-50 with IBN-a (resnet50_ibn_a)",
    "osnet": "OSNet (osnet)",
    "vit": "a ViT with a class token (vit_base_patch16_224, deit_small_patch16_224)",
    "clip": "CLIP's ViT, which computes QuickGELU (vit_base_patch16_clip_quickgelu_224)",
    "clip_gelu": "a ViT of CLIP's form that computes GELU",
}
"""Forms of networks that the table tells apart, in words."""


@dataclass(frozen=True)
class WeightsLayout:
    """How one project names its tensors.

    Attributes:
        name: what a recipe calls it.
        known_by: sets of patterns; a file is of this layout if every pattern of one set is found in its names.
        without: patterns of which none may be found in them.
        stems: forms of networks that it loads into (`KINDS`) -> what their first layers have to be
            (`TimmBackbone`'s option `stem`).
        renames: (pattern of a whole name, name in the network), the first that matches.
        neck: what the names of the batch normalisation after the pool begin with.
        left_out: (pattern, what it is) of tensors that are not read.
        changes: (pattern, what differs without it) of tensors that are not read though the authors' numbers need them.
        other_neck: pattern of tensors with which the normalisation does not follow the mean of the last map.
        branch: where the last block and norm of the global branch lie, instead of among the others.
    """

    name: str
    known_by: tuple[tuple[str, ...], ...]
    stems: Mapping[str, str]
    renames: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()
    neck: str | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    changes: tuple[tuple[str, str], ...] = ()
    other_neck: str | None = None
    branch: str | None = None


@dataclass(frozen=True)
class Unsupported:
    """A layout that is known, and why it is not loaded."""

    name: str
    known_by: tuple[tuple[str, ...], ...]
    reason: str
    without: tuple[str, ...] = ()


_CLIP = r"image_encoder\."
_CLASSIFIER = r"classifier(_proj|_\d)?\."

LAYOUTS = (
    WeightsLayout(
        "torchreid",
        known_by=(
            (r"^conv2\.0\.conv2a\.conv1\.weight$",),
            (r"^conv2\.0\.conv2\.0\.layers\.0\.conv1\.weight$",),
            (r"^layer4\.0\.conv1\.weight$", r"^classifier\.weight$"),
        ),
        without=(r"^fc\.weight$",),
        stems={"osnet": "usual", "resnet": "usual", "resnet_ibn": "usual"},
        left_out=((_CLASSIFIER, "classifier"),),
        changes=((r"fc\.\d+\.", "the layers after the pool, whose output the authors match"),),
    ),
    WeightsLayout(
        "fast-reid",
        known_by=((r"^backbone\.", r"^heads\.(bottleneck|weight$|classifier|cls_layer|pool_layer)"),),
        stems={"resnet": "unpadded", "resnet_ibn": "unpadded"},  # its first pool has no padding and rounds up
        renames=((r"backbone\.(.+)", r"\1"),),
        neck="heads.bottleneck.0.",
        left_out=(
            (r"heads\.(weight$|classifier\.|cls_layer\.)", "classifier"),
            (r"pixel_(mean|std)$", "normalisation of pixels, which is ImageNet's here"),
        ),
        changes=(
            (r"heads\.pool_layer\.", "generalised mean pooling, where the heads here take the mean"),
            (r"heads\.bottleneck\.[1-9]", "a reduced embedding"),
        ),
        other_neck=r"heads\.(pool_layer\.|bottleneck\.[1-9])",
    ),
    WeightsLayout(
        "reid-strong-baseline",
        known_by=((r"^base\.conv1\.weight$", r"^base\.layer1\.0\.conv1\.weight$"),),
        stems={"resnet": "linear", "resnet_ibn": "usual"},  # its plain ResNet has no ReLU before the first pool
        renames=((r"base\.(.+)", r"\1"),),
        neck="bottleneck.",
        left_out=((_CLASSIFIER, "classifier"), (r"base\.fc\.", "ImageNet's classifier")),
    ),
    WeightsLayout(
        "transreid",
        known_by=((r"^base\.pos_embed$", r"^base\.blocks\.0\.attn\.qkv\.weight$"),),
        stems={"vit": "usual"},
        renames=((r"base\.(.+)", r"\1"),),
        neck="bottleneck.",
        left_out=(
            (_CLASSIFIER, "classifier"),
            (r"base\.(fc|head)\.", "ImageNet's classifier"),
            (r"b2\.|bottleneck_\d\.", "the branch of shuffled patches"),
        ),
        changes=((r"base\.sie_embed$", "the embedding of cameras and viewpoints"),),
        branch="b1",
    ),
    WeightsLayout(
        "clip-reid",
        known_by=((rf"^{_CLIP}class_embedding$", rf"^{_CLIP}transformer\.resblocks\."),),
        stems={"clip": "usual"},
        renames=(
            (rf"{_CLIP}class_embedding", "cls_token"),
            (rf"{_CLIP}positional_embedding", "pos_embed"),
            (rf"{_CLIP}conv1\.weight", "patch_embed.proj.weight"),
            (rf"{_CLIP}ln_pre\.(\w+)", r"norm_pre.\1"),
            (rf"{_CLIP}ln_post\.(\w+)", r"norm.\1"),
            (rf"{_CLIP}transformer\.resblocks\.(\d+)\.ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
            (rf"{_CLIP}transformer\.resblocks\.(\d+)\.attn\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
            (rf"{_CLIP}transformer\.resblocks\.(\d+)\.attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
            (rf"{_CLIP}transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
            (rf"{_CLIP}transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
        ),
        neck="bottleneck.",
        left_out=((_CLASSIFIER, "classifier"), (r"(prompt_learner|text_encoder)\.", "the text's side")),
        changes=(
            (
                rf"{_CLIP}proj$|bottleneck_proj\.",
                "the projection that the authors match beside the token",
            ),
            (r"cv_embed$", "the embedding of cameras and viewpoints"),
        ),
    ),
)
"""The layouts that are loaded, each in the order in which it is looked for."""

UNSUPPORTED = (
    Unsupported(
        "SOLIDER",
        known_by=((r"semantic_embed_[wb]\.",), (r"(^|\.)stages\.\d+\.blocks\.\d+\.attn\.w_msa\.",)),
        reason=(
            "Between its stages SOLIDER scales and shifts the maps by a semantic weight, and its windows are padded: "
            "no network here computes that, and without it the numbers would be others. Export it as ONNX, and give "
            "the file to the backbone 'onnx'."
        ),
    ),
    Unsupported(
        "CLIP-ReID's ResNet-50",
        known_by=((rf"^{_CLIP}attnpool\.",),),
        reason=(
            "That network pools by attention; only CLIP-ReID's ViT-B/16 is loaded. Export it as ONNX, and give the "
            "file to the backbone 'onnx'."
        ),
    ),
    Unsupported(
        "TransReID's vit_small",
        known_by=((r"^base\.blocks\.0\.attn\.qkv\.weight$",),),
        without=(r"^base\.blocks\.0\.attn\.qkv\.bias$",),
        reason="It scales attention otherwise than timm's networks do, which no name of a tensor says.",
    ),
)
"""Layouts that are known, and not loaded."""


@dataclass(frozen=True)
class Imported:
    """What a file held besides the backbone.

    Attributes:
        layout: its layout.
        neck: weight, bias, running_mean and running_var (D,) of the batch normalisation after the pool; None where
            there is none, or where it follows something else than a head here would give it.
        of: what the normalisation is of: the mean of the last map, or the class token.
    """

    layout: str
    neck: Mapping[str, Tensor] | None
    of: Literal["map", "class_token"]


@dataclass
class Translated:
    """A file's tensors under the network's names, and what became of the others.

    Attributes:
        named: name in the network -> tensor.
        neck: the batch normalisation after the pool, by the names of its parts.
        left_out: what was left out -> how many tensors it has.
        changes: likewise, of what the authors' numbers need.
        unknown: names that the layout does not know.
    """

    named: dict[str, Tensor] = field(default_factory=dict)
    neck: dict[str, Tensor] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def recognise(names: Iterable[str]) -> WeightsLayout | Unsupported | None:
    """Return the layout that a file's names are of; None for names that are of none, as the network's own.

    Example:
        >>> recognise(["backbone.conv1.weight", "heads.bottleneck.0.weight"]).name
        'fast-reid'
    """
    names = list(names)

    def found(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in names)

    for layout in (*UNSUPPORTED, *LAYOUTS):
        known = any(all(map(found, patterns)) for patterns in layout.known_by)
        if known and not any(map(found, layout.without)):
            return layout
    return None


def kind_of(network: nn.Module) -> str | None:
    """Return the form of a whole network, a key of `KINDS`; None for a form that no layout loads into."""
    names = network.state_dict().keys()
    if "conv1.conv.weight" in names and "conv5.conv.weight" in names:
        return "osnet"
    if "conv1.weight" in names and "layer4.0.conv1.weight" in names:
        return "resnet_ibn" if "layer1.0.bn1.IN.weight" in names else "resnet"
    if {"cls_token", "pos_embed", "norm.weight", "blocks.0.attn.qkv.weight"} <= names:
        if "norm_pre.weight" not in names:
            return "vit"
        activation = type(network.get_submodule("blocks.0.mlp.act")).__name__
        return "clip" if activation == "QuickGELU" else "clip_gelu"
    return None


def translate(
    layout: WeightsLayout, tensors: Mapping[str, Tensor], wanted: Iterable[str], own: Iterable[str]
) -> Translated:
    """Bring a file's tensors to a network's names.

    Args:
        layout: how the file is laid out.
        tensors: what it holds.
        wanted: names of the network that are to be filled.
        own: all names of the network, with those that may stay as they are.
    """
    result, wanted, own = Translated(), set(wanted), set(own)
    branch = _branch(layout, tensors)
    taken_over = set(branch.values())
    for key, value in tensors.items():
        name = branch.get(key) or _renamed(layout, key)
        if name in taken_over and key not in branch:
            _count(result.left_out, "last block and norm before the branches part")
        elif name is not None and name in wanted:
            result.named[name] = value
        elif (why := _reason(layout.changes, key)) is not None:
            _count(result.changes, why)
        elif (why := _reason(layout.left_out, key)) is not None:
            _count(result.left_out, why)
        elif layout.neck is not None and key.startswith(layout.neck):
            result.neck[key.removeprefix(layout.neck)] = value
        elif name not in own and not key.endswith("num_batches_tracked"):
            result.unknown.append(key)
    for name in ("cls_token", "pos_embed"):  # CLIP's have no axis for the batch
        if name in result.named:
            value = result.named[name]
            result.named[name] = value.reshape((1,) * (3 - value.ndim) + tuple(value.shape))
    if layout.other_neck is not None and any(re.match(layout.other_neck, key) for key in tensors):
        result.neck.clear()
    return result


def _renamed(layout: WeightsLayout, key: str) -> str | None:
    """The network's name; None for one that is none of the backbone's."""
    for pattern, replacement in layout.renames:
        match = re.fullmatch(pattern, key)
        if match is not None:
            return match.expand(replacement)
    return None if layout.renames else key


def _branch(layout: WeightsLayout, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of the global branch's own last block and norm -> names in the network."""
    depths = [int(match[1]) for key in tensors if (match := re.search(r"\.blocks\.(\d+)\.", key))]
    if layout.branch is None or not depths:
        return {}
    places = {f"{layout.branch}.0.": f"blocks.{max(depths)}.", f"{layout.branch}.1.": "norm."}
    return {
        key: place + key.removeprefix(prefix)
        for prefix, place in places.items()
        for key in tensors
        if key.startswith(prefix)
    }


def _reason(patterns: Iterable[tuple[str, str]], key: str) -> str | None:
    return next((why for pattern, why in patterns if re.match(pattern, key)), None)


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1
