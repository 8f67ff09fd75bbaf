"""Which of timm's keywords a recipe may give: those that shape a network, none that names a file, an address or code.

A recipe or a saved model may come from a stranger, and timm's `create_model` hands keywords on that open files
(``checkpoint_path``), follow addresses (``pretrained_cfg``) or call what they are given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm

from occluded_reid.errors import UnknownNameError, UnknownOptionError
from occluded_reid.registry import did_you_mean

__all__ = ["FEATURE_OPTIONS", "SHAPING_OPTIONS", "require_timm_name", "require_timm_options"]

FEATURE_OPTIONS = ("feature_cls", "out_indices", "output_stride")
"""Keywords of the pyramid of feature maps, not of the network."""

SHAPING_OPTIONS = (
    *("attn_drop_rate", "drop_block_rate", "drop_path_rate", "drop_rate", "patch_drop_rate", "pos_drop_rate"),
    *("proj_drop_rate", "block_reduce_first", "base_width", "cardinality", "channels", "class_token", "conv_bias"),
    *("conv_mlp", "depth", "depths", "dims", "down_kernel_size", "avg_down", "dynamic_img_pad", "dynamic_img_size"),
    *("embed_dim", "final_norm", "fix_init", "fix_stem", "global_pool", "head_dim", "img_size", "init_values"),
    *("kernel_sizes", "layers", "ls_init_value", "mlp_ratio", "no_embed_class", "norm_eps", "num_features"),
    *("num_heads", "num_reg_tokens", "pad_type", "patch_size", "pos_embed", "pre_norm", "proj_bias", "qk_norm"),
    *("qkv_bias", "reg_tokens", "replace_stem_pool", "stem_kernel_size", "stem_size", "stem_type", "stem_width"),
    *("strict_img_size", "swiglu_mlp", "use_abs_pos_emb", "use_grn", "use_post_norm", "use_rot_pos_emb"),
    *("window_size", "zero_init_last"),
)
"""Keywords of timm's networks that may be given; which of them a network takes is timm's to say."""

_ALLOWED = sorted({*SHAPING_OPTIONS, *FEATURE_OPTIONS})
_WORD = re.compile(r"[A-Za-z0-9_]*")  # neither a path nor an address
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def require_timm_name(name: str) -> None:
    """Refuse what is not the plain name of a timm model, such as ``local-dir:…`` and ``hf-hub:…``.

    Raises:
        UnknownNameError: timm knows no such model.
    """
    if not _NAME.fullmatch(name) or not timm.is_model(name.split(".")[0]):
        raise UnknownNameError(
            f"timm has no model named '{name}'.{did_you_mean(name, timm.list_models())} Give a name of "
            "timm.list_models(), with or without a weights tag; folders and hubs are not read."
        )


def require_timm_options(options: Mapping[str, Any]) -> None:
    """Refuse keywords that do not shape a network, and values other than numbers, words and lists of them.

    Raises:
        UnknownOptionError: one of them may not be given.

    Example:
        >>> require_timm_options({"drop_path_rate": 0.1, "out_indices": [1, 2]})
    """
    for key, value in options.items():
        where = f"model.backbone.options.options: timm's '{key}'"
        if key not in _ALLOWED:
            raise UnknownOptionError(
                f"{where} may not be given by a recipe: only what shapes the network is, nothing that names files, "
                f"addresses or code.{did_you_mean(key, _ALLOWED)} Weights go to model.backbone.weights. Allowed: "
                f"{', '.join(_ALLOWED)}."
            )
        if not _is_plain(value):
            raise UnknownOptionError(f"{where} was given {value!r}; wanted a number, a word, or a list of numbers.")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(each is None or isinstance(each, int | float) for each in value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, int | float)
