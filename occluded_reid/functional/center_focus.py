"""Attention on the middle of the bounding box, where the person who is meant stands (OCNet §2.1)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import pad

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_choice, require_rank

__all__ = ["center_attention", "center_focus", "center_gate", "center_window"]

Crop = Literal["columns", "square"]


def center_window(
    rows: int, columns: int, width: int, crop: Crop = "columns"
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Cells of a map that are its centre: W columns in the middle, or a square of W × W cells.

    Args:
        rows: h.
        columns: w.
        width: W, the "size of center"; w - W has to be even, or else no W columns lie in the middle.
        crop: "columns" takes the full height, "square" W rows in the middle (h - W even too).

    Returns:
        (first row, row after the last), (first column, column after the last).

    Raises:
        ShapeError: W is not between 1 and w (square: and h), or there is no middle; the message names widths that fit.

    Example:
        >>> center_window(16, 8, 2)
        ((0, 16), (3, 5))
        >>> center_window(16, 8, 4, crop="square")
        ((6, 10), (2, 6))
    """
    require_choice(crop, ("columns", "square"), "crop")
    sides = (columns,) if crop == "columns" else (rows, columns)
    if not 1 <= width <= min(sides) or any((side - width) % 2 for side in sides):
        fitting = [w for w in range(1, min(sides) + 1) if not any((side - w) % 2 for side in sides)]
        named = "columns" if crop == "columns" else "rows and columns"
        raise ShapeError(
            f"a centre of width {width} does not lie in the middle of a map of {rows}×{columns} cells: as many {named} "
            f"must be left over on both sides. Widths that fit: {', '.join(map(str, fitting)) or 'none'}."
        )
    left = (columns - width) // 2
    top = 0 if crop == "columns" else (rows - width) // 2
    return (top, rows - top), (left, columns - left)


def center_attention(scores: Tensor, width: int, crop: Crop = "columns") -> Tensor:
    """Spatial-level probability map A: softmax of the scores over the central cells, 0 elsewhere (OCNet §2.1).

    Args:
        scores: (N, h, w), such as the mean over the channels of F_BB.
        width: W in cells of the map, see `center_window`.
        crop: "columns" or "square".

    Returns:
        (N, h, w), a sum of 1 for each image.

    Raises:
        ShapeError: scores is not (N, h, w), or W does not fit.

    Example:
        >>> import torch
        >>> center_attention(torch.zeros(1, 2, 4), width=2)
        tensor([[[0.0000, 0.2500, 0.2500, 0.0000],
                 [0.0000, 0.2500, 0.2500, 0.0000]]])
    """
    require_rank(scores, 3, "scores", "(N, h, w)")
    rows, columns = scores.shape[1:]
    (top, bottom), (left, right) = center_window(rows, columns, width, crop)
    cells = scores[:, top:bottom, left:right]
    probability = cells.flatten(1).softmax(1).view_as(cells)
    return pad(probability, (left, columns - right, top, rows - bottom))


def center_focus(features: Tensor, attention: Tensor, scale: float, residual: bool = True) -> Tensor:
    """F_c = F_BB + s·A ⊙ F_BB: the map, with its centre made stronger by what the probability map says (OCNet §2.1).

    With s = n_c, the number of central cells, the gain s·A has a mean of 1 over the centre. With s = 1, the paper's
    words to the letter, it has a mean of 1 / n_c: 1/32 for two columns of a 16×8 map, next to nothing.

    Args:
        features: (N, C, h, w), F_BB.
        attention: (N, h, w), A.
        scale: s.
        residual: add F_BB itself ("multiplying and adding"); without it only the centre is left.

    Returns:
        (N, C, h, w).

    Raises:
        ShapeError: the shapes do not fit each other.

    Example:
        >>> import torch
        >>> center_focus(torch.ones(1, 1, 1, 4), center_attention(torch.zeros(1, 1, 4), width=2), scale=2)
        tensor([[[[1., 2., 2., 1.]]]])
    """
    _require_pair(features, attention)
    gain = scale * attention[:, None]
    return features * (1 + gain) if residual else features * gain


def center_gate(features: Tensor, attention: Tensor, residual: bool = True) -> Tensor:
    """F_c = F_BB + σ(v) ⊙ F_BB with v = Σ A ⊙ F_BB: the other reading, a gate for each channel (OCNet §2.1).

    Args:
        features: (N, C, h, w), F_BB.
        attention: (N, h, w), A, a sum of 1 for each image: v is the centre's mean feature.
        residual: add F_BB itself.

    Returns:
        (N, C, h, w).

    Raises:
        ShapeError: the shapes do not fit each other.

    Example:
        >>> import torch
        >>> center_gate(torch.zeros(1, 2, 1, 4), torch.full((1, 1, 4), 0.25)).shape
        torch.Size([1, 2, 1, 4])
    """
    _require_pair(features, attention)
    gate = (attention[:, None] * features).sum((2, 3), keepdim=True).sigmoid()
    return features * (1 + gate) if residual else features * gate


def _require_pair(features: Tensor, attention: Tensor) -> None:
    require_rank(features, 4, "features", "(N, C, h, w)")
    if attention.shape != (features.shape[0], *features.shape[2:]):
        raise ShapeError(
            f"attention must be (N, h, w) beside features {tuple(features.shape)}; got {tuple(attention.shape)}. "
            "Give one map for each image, of the features' size."
        )
