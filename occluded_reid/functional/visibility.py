"""From a foreground mask to the visibility of stripes (SORN Eq. 11-12)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional.bands import bands
from occluded_reid.functional.checks import require_choice, require_rank

__all__ = ["mask_foreground", "stripe_visibility"]


def mask_foreground(logits: Tensor, mode: Literal["argmax", "probability"] = "argmax") -> Tensor:
    """Foreground mask E: where the likeliest class is not 0, or the probability of that (SORN §III-E).

    Args:
        logits: (N, K, h, w), class 0 is the background.
        mode: "argmax" gives 0 or 1, "probability" gives 1 - P(background).

    Returns:
        (N, h, w) in [0, 1].

    Raises:
        ShapeError: logits is not (N, K, h, w) with at least 2 classes.

    Example:
        >>> mask_foreground(torch.tensor([[[[2.0, 0.0]], [[1.0, 1.0]]]]))
        tensor([[[0., 1.]]])
    """
    require_rank(logits, 4, "logits", "(N, K, h, w)")
    require_choice(mode, ("argmax", "probability"), "mode")
    if logits.shape[1] < 2:
        raise ShapeError(
            f"logits must have a background and at least one more class; got {tuple(logits.shape)}. "
            "A mask of one channel goes to stripe_visibility() as it is, as (N, h, w)."
        )
    if mode == "argmax":
        return (logits.argmax(1) != 0).to(logits.dtype)
    return 1 - logits.softmax(1)[:, 0]


def stripe_visibility(
    foreground: Tensor, num_stripes: int, threshold: float | None = None, *, rows: int | None = None
) -> Tensor:
    """Fraction v_p of foreground in each horizontal stripe (SORN Eq. 11), or its indicator I_p (Eq. 12).

    Args:
        foreground: (N, h, w), 1 where a body is seen, 0 elsewhere; probabilities and booleans are welcome.
        num_stripes: P, at most h.
        threshold: τ in [0, 1]; None returns the fractions.
        rows: rows of the feature map whose bands are meant; h is a multiple of them. None: h itself.

    Returns:
        (N, P) in [0, 1], at least float32; exactly 0 or 1 where a threshold is given.

    Raises:
        ShapeError: foreground is not (N, h, w), h < P, h is no multiple of `rows`, or τ is not a fraction.

    Example:
        >>> mask = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
        >>> stripe_visibility(mask, num_stripes=2)
        tensor([[1.0000, 0.5000]])
        >>> stripe_visibility(mask, num_stripes=2, threshold=0.6)
        tensor([[1., 0.]])
    """
    require_rank(foreground, 3, "foreground", "(N, h, w)")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ShapeError(f"threshold is {threshold}; give a fraction of foreground in [0, 1].")
    height, width = foreground.shape[1:]
    rows = height if rows is None else rows
    if rows < 1 or height % rows:
        raise ShapeError(f"a mask of {height} rows does not lie over a map of {rows} rows; resize it to a multiple.")
    # Whole pixels are counted and divided once: a half-precision or a rounded mean could miss τ by its last bit.
    pixels = foreground.to(torch.promote_types(foreground.dtype, torch.float32))
    scale = height // rows
    fractions = torch.stack(
        [
            pixels[:, start * scale : stop * scale].sum((1, 2)) / ((stop - start) * scale * width)
            for start, stop in bands(rows, num_stripes)
        ],
        dim=1,
    )
    return fractions if threshold is None else (fractions >= threshold).to(fractions.dtype)
