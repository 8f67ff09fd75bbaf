"""From the probability maps of body regions to their visibility and their features (SGAM Eq. 2-3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from occluded_reid.errors import BuildError, ShapeError
from occluded_reid.functional.checks import require_choice, require_rank
from occluded_reid.options import did_you_mean

__all__ = ["VISIBLE_FROM", "RegionMode", "named_values", "region_pool", "region_values", "region_visibility"]

VISIBLE_FROM = 0.2
"""t_i where nothing else is said: a region counts as visible from this visibility on (SGAM gives no number)."""

RegionMode = Literal["ref", "area", "relative", "peak", "binary"]
"""What the visibility of a region is measured against."""

_MODES = (*get_args(RegionMode), "sum")

_EPSILON = 1e-6  # keeps Eq. 3 finite for a region of which nothing is seen


def named_values(
    values: float | Sequence[float] | Mapping[str, float], names: Sequence[str], where: str
) -> tuple[float, ...]:
    """Return one number for each name, as an option of a part gives them: one for all, a list, or by name.

    Args:
        values: a number, as many numbers as names, or a mapping that has every name.
        names: of the regions, in order.
        where: how the message names the place, such as ``"loss 'parts': thresholds"``.

    Raises:
        BuildError: there are not as many numbers as names, a name is missing, or one is unknown.

    Example:
        >>> named_values({"shoes": 0.1, "head": 0.3}, ("head", "shoes"), "thresholds")
        (0.3, 0.1)
    """
    shown = ", ".join(names)
    if isinstance(values, Mapping):
        for name in values:
            if name not in names:
                raise BuildError(f"{where} names '{name}', which is none of {shown}.{did_you_mean(name, names)}")
        if missing := [name for name in names if name not in values]:
            raise BuildError(f"{where} lacks {', '.join(missing)}. Name each of {shown}, or give one number for all.")
        return tuple(values[name] for name in names)
    if isinstance(values, Sequence):
        if len(values) != len(names):
            raise BuildError(f"{where} holds {len(values)} numbers for {len(names)}: {shown}. Give one for each.")
        return tuple(values)
    return (values,) * len(names)


def region_values(values: float | Sequence[float] | Tensor, regions: int, name: str, like: Tensor) -> Tensor:
    """Return one number in [0, 1] for each region, as a tensor beside `like`.

    Args:
        values: one number for all regions, or R of them.
        regions: R.
        name: of the argument, for the message.
        like: gives device and type.

    Raises:
        ShapeError: there are not R numbers, or one of them is not in [0, 1].

    Example:
        >>> region_values(0.2, 3, "thresholds", torch.zeros(1))
        tensor([0.2000, 0.2000, 0.2000])
    """
    given = torch.as_tensor(values, dtype=like.dtype, device=like.device).detach()
    if given.ndim == 0:
        given = given.expand(regions)
    if given.shape != (regions,):
        raise ShapeError(f"{name} must be one number, or {regions}, one for each region; got {tuple(given.shape)}.")
    # A graph that is being exported cannot depend on values; these are a recipe's, and were checked before.
    if not torch.compiler.is_exporting() and not bool(((given >= 0) & (given <= 1)).all()):
        raise ShapeError(f"{name} must lie in [0, 1]; got {given.tolist()}.")
    return given


def region_visibility(
    probabilities: Tensor,
    mode: RegionMode | Literal["sum"] = "ref",
    reference: float | Sequence[float] | Tensor | None = None,
    *,
    threshold: float | Sequence[float] | Tensor | None = None,
    pooled_size: tuple[int, int] | None = None,
) -> Tensor:
    """Visibility v_i in [0, 1] of each region from S_i = Σ_g P(R_i | g) (SGAM Eq. 2).

    S_i counts pixels: beside the weight 1 of the global distance (Eq. 4), or less a threshold (Eq. 5), only a ratio
    makes sense, and the paper does not say which. Regions have very different sizes, so the default measures each
    against its own usual one.

    Args:
        probabilities: (N, R, h, w) in [0, 1]; background is no region.
        mode: "ref" v_i = min(1, S_i / (q_i·h·w)); "area" S_i / (h·w); "relative" S_i / Σ_k S_k, 0 where nothing is
            seen; "peak" the greatest value of the average-pooled map; "binary" whether "ref" (without a reference:
            "area") is at least t_i. "sum" is S_i itself, as Eq. 2 is printed: a number of pixels, and no visibility
            that a slot can carry; see `pixels` of the matcher `public_distance` and of the loss `visible_part`.
        reference: q_i, the share of an image that region i covers when it is seen, for "ref" and "binary". A region
            with q_i = 0 was never seen when that was measured: its visibility is 0.
        threshold: t_i, one for all regions or R of them, for "binary" only; None is 0.2 there.
        pooled_size: (rows, columns) of the average-pooled map, for "peak" only; None leaves the map as it is.

    Returns:
        (N, R) in [0, 1], at least float32; exactly 0 or 1 for "binary"; in [0, h·w] for "sum".

    Raises:
        ShapeError: probabilities is not (N, R, h, w), or the other arguments do not fit it or the mode.

    Example:
        >>> maps = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.5], [0.0, 0.0]]]])
        >>> region_visibility(maps, reference=[0.5, 0.1])
        tensor([[0.5000, 1.0000]])
        >>> region_visibility(maps, "binary", [0.5, 0.1], threshold=[0.6, 0.6])
        tensor([[0., 1.]])
    """
    require_rank(probabilities, 4, "probabilities", "(N, R, h, w)")
    require_choice(mode, _MODES, "mode")
    _refuse_unused(mode, reference=reference, threshold=threshold, pooled_size=pooled_size)
    maps = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
    regions = maps.shape[1]
    if mode == "sum":
        return maps.sum((2, 3))
    if mode == "peak":
        score = (maps if pooled_size is None else adaptive_avg_pool2d(maps, pooled_size)).amax((2, 3))
    elif mode == "relative":
        seen = maps.sum((2, 3))
        score = _ratio(seen, seen.sum(1, keepdim=True))
    else:
        score = maps.mean((2, 3))
        if reference is not None:
            score = _ratio(score, region_values(reference, regions, "reference", maps).expand_as(score))
        elif mode == "ref":
            raise ShapeError(
                "mode 'ref' measures each region against its usual size; give reference, the share of an image that "
                "each region covers when it is seen, or another mode."
            )
    if mode == "binary":
        limits = region_values(VISIBLE_FROM if threshold is None else threshold, regions, "threshold", maps)
        return (score >= limits).to(score.dtype)
    return score.clamp(0, 1)


def region_pool(features: Tensor, probabilities: Tensor, denominator: Literal["pooled", "full"] = "pooled") -> Tensor:
    """Mean of a feature map's cells, weighted by each region's map pooled to their size (SGAM Eq. 3).

    f_i = Σ_t AP(P_i)_t · t / (Σ_t AP(P_i)_t + 1e-6). The paper writes S_i below the line, the sum over the map before
    it is pooled: that shrinks f_i by the factor of the pooling, so the sum of the pooled map stands there by default.

    Args:
        features: (N, C, h, w), T.
        probabilities: (N, R, H, W) of any size; average-pooled to (h, w).
        denominator: "pooled" as above; "full" is S_i of the map as it comes, the equation to the letter.

    Returns:
        (N, R, C) of the features' type; near 0 for a region of which nothing is seen.

    Raises:
        ShapeError: the shapes do not fit.

    Example:
        >>> cells = torch.tensor([[[[2.0, 4.0]]]])
        >>> maps = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]]]])
        >>> region_pool(cells, maps)
        tensor([[[2.0000],
                 [3.0000]]])
    """
    require_rank(features, 4, "features", "(N, C, h, w)")
    require_rank(probabilities, 4, "probabilities", "(N, R, H, W)")
    require_choice(denominator, ("pooled", "full"), "denominator")
    if features.shape[0] != probabilities.shape[0]:  # len() would fix the batch of an exported graph
        raise ShapeError(
            f"features hold {features.shape[0]} images and probabilities {probabilities.shape[0]}; "
            "give both of the same ones."
        )
    maps = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
    pooled = adaptive_avg_pool2d(maps, (features.shape[2], features.shape[3])).flatten(2)
    # Weights that sum to 1 before the product: a sum of hundreds of features could leave half precision.
    whole = pooled if denominator == "pooled" else maps.flatten(2)
    shares = pooled / (whole.sum(2, keepdim=True) + _EPSILON)
    return torch.einsum("nrt,nct->nrc", shares.to(features.dtype), features.flatten(2))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where the whole is 0; the inner `where` keeps 0 / 0 out of the backward pass too."""
    some = whole > 0
    return torch.where(some, part / torch.where(some, whole, torch.ones_like(whole)), torch.zeros_like(part))


def _refuse_unused(mode: str, **given: object) -> None:
    """Raise ShapeError for an argument that the mode does not look at."""
    uses = {"ref": ("reference",), "binary": ("reference", "threshold"), "peak": ("pooled_size",)}.get(mode, ())
    for name, value in given.items():
        if value is not None and name not in uses:
            raise ShapeError(f"mode '{mode}' has no use for {name}; leave it out, or choose another mode.")
