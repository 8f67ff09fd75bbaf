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
    """
    require_rank(logits, 4, "logits", "(N, K, h, w)")
    require_choice(mode, ("argmax", "probability"), "mode")
    if mode == "argmax":
        return (logits.argmax(1) != 0).to(logits.dtype)
    return 1 - logits.softmax(1)[:, 0]


def stripe_visibility(
    foreground: Tensor, num_stripes: int, threshold: float | None = None, *, rows: int | None = None
) -> Tensor:
    """Fraction of foreground in each horizontal stripe (SORN Eq. 11), or its indicator (Eq. 12).

    Args:
        foreground: (N, h, w), 1 where a body is seen, 0 elsewhere; probabilities are welcome.
        num_stripes: P, at most h.
        threshold: τ; None returns the fractions.
        rows: rows of the feature map whose bands are meant; h is a multiple of them. None: h itself.

    Returns:
        (N, P) in [0, 1]; exactly 0 or 1 where a threshold is given.

    Raises:
        ShapeError: foreground is not (N, h, w), h < P, or h is no multiple of `rows`.

    Example:
        >>> mask = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
        >>> stripe_visibility(mask, num_stripes=2)
        tensor([[1.0000, 0.5000]])
    """
    require_rank(foreground, 3, "foreground", "(N, h, w)")
    height = foreground.shape[1]
    scale, rest = divmod(height, rows or height)
    if rest or not scale:
        raise ShapeError(f"a mask of {height} rows does not lie over a map of {rows} rows; resize it to a multiple.")
    stripes = [foreground[:, start * scale : stop * scale] for start, stop in bands(rows or height, num_stripes)]
    fractions = torch.stack([stripe.mean((1, 2)) for stripe in stripes], dim=1)
    return fractions if threshold is None else (fractions >= threshold).to(fractions.dtype)
