"""From the pixels that an occluder covers to the stripes that it hides (FED's soft binarisation)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional.bands import bands
from occluded_reid.functional.checks import require_choice, require_rank

__all__ = ["occlusion_stripes"]


def occlusion_stripes(
    mask: Tensor,
    num_stripes: int,
    *,
    rule: Literal["ratio", "fraction"] = "ratio",
    ratio: float = 3.0,
    threshold: float = 0.5,
    vertical_all_visible: bool = True,
    rows: int | None = None,
) -> Tensor:
    """Which horizontal stripes stay visible under an occluder: the targets m of occlusion erasing (FED, Fig. 2).

    With d_p the mean of the mask over stripe p, "ratio" hides the stripe of the largest mean d₁ alone where
    d₁ / d₂ > `ratio`, else every stripe with d_p > 0: an occluder that only laps over an edge hides one stripe.
    "fraction" hides the stripes of which at least `threshold` of the pixels are covered.

    Args:
        mask: (N, H, W), 0 where nothing was pasted; 1 where something was, or how much the pixel changed. Not negative.
        num_stripes: P, at most H.
        rule: "ratio" is the published one.
        ratio: for the rule "ratio", not negative.
        threshold: for the rule "fraction", in (0, 1].
        vertical_all_visible: an occluder that touches all P stripes stands beside the body and hides none of them.
        rows: rows of the feature map whose bands are meant; H is a multiple of them. None: H itself.

    Returns:
        (N, P), 1 where a stripe is visible, 0 where it is hidden; at least float32.

    Raises:
        ShapeError: the mask is not (N, H, W), H < P, H is no multiple of `rows`, or an option is out of range.

    Example:
        >>> mask = torch.zeros(2, 8, 4)
        >>> mask[0, 6:] = mask[1, 3:] = 1
        >>> occlusion_stripes(mask, 4)
        tensor([[1., 1., 1., 0.],
                [1., 0., 0., 0.]])
    """
    require_rank(mask, 3, "mask", "(N, H, W)")
    require_choice(rule, ("ratio", "fraction"), "rule")
    if ratio < 0:
        raise ShapeError(f"ratio is {ratio}; give how many times more the first stripe is covered, such as 3.")
    if not 0 < threshold <= 1:
        raise ShapeError(f"threshold is {threshold}; give the covered share of a hidden stripe, in (0, 1].")
    height, width = mask.shape[1:]
    rows = height if rows is None else rows
    if rows < 1 or height % rows:
        raise ShapeError(f"a mask of {height} rows does not lie over a map of {rows} rows; resize it to a multiple.")
    scale = height // rows
    edges = [(start * scale, stop * scale) for start, stop in bands(rows, num_stripes)]
    areas = torch.tensor([(stop - start) * width for start, stop in edges], device=mask.device)

    def share(pixels: Tensor) -> Tensor:
        # Summed and divided once: a half-precision or a rounded mean could miss a bound by its last bit.
        wide = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
        return torch.stack([wide[:, start:stop].sum((1, 2)) for start, stop in edges], dim=1) / areas

    means = share(mask)
    touched = means > 0
    if rule == "fraction":
        hidden = share(mask > 0) >= threshold
    else:
        top = means.topk(min(2, num_stripes), dim=1).values
        largest = torch.zeros_like(touched).scatter_(1, means.argmax(1, keepdim=True), True)
        alone = top[:, :1] > ratio * top[:, 1:]
        hidden = touched & (largest | ~alone) if num_stripes > 1 else touched
    if vertical_all_visible:
        hidden = hidden & ~touched.all(1, keepdim=True)
    return (~hidden).to(means.dtype)
