"""Second moments of a slot's rows, and the directions that hold most of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError
from occluded_reid.matchers.base import Matcher
from occluded_reid.matchers.slots import SlotMatcher
from occluded_reid.registry import did_you_mean

__all__ = ["measures_unit_vectors", "moments", "require_widths", "signed", "unit_rows"]

_CHUNK = 4096  # sample rows in float64 at a time


def require_widths(sample: PartEmbeddings, widths: Mapping[str, int]) -> None:
    """Refuse widths that make no sense for these slots.

    Raises:
        EmbeddingError: a slot does not exist, its width is out of range, or nothing gets smaller.
    """
    for name, width in widths.items():
        if name not in sample.names:
            raise EmbeddingError(
                f"there is no slot '{name}' to reduce.{did_you_mean(name, sample.names)} "
                f"Slots: {', '.join(sample.names)}."
            )
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= sample.widths[name]:
            raise EmbeddingError(
                f"slot '{name}' is to have {width!r} numbers; it has {sample.widths[name]}. "
                f"Give a whole number from 1 to {sample.widths[name]}."
            )
    if all(width == sample.widths[name] for name, width in widths.items()):
        raise EmbeddingError(
            f"nothing gets smaller: the widths {dict(widths)} are those of the slots. Name a smaller width for a slot, "
            "or leave the reduction out."
        )


def measures_unit_vectors(matcher: Matcher) -> bool:
    """Return whether a matcher measures unit vectors: lengths do not count.

    Raises:
        EmbeddingError: it is none of ours and does not say.
    """
    if not isinstance(matcher, SlotMatcher):
        raise EmbeddingError(
            f"{matcher!r} does not say whether the lengths of vectors count. Say normalize=True if they do not, or "
            "normalize=False."
        )
    return matcher.metric == "cosine" or matcher.normalize


def moments(slot: Tensor, seen: Tensor, kept: Tensor, unit: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the mean (None for unit vectors) and Σ v² (x - mean)(x - mean)ᵀ of some rows of a slot, in float64.

    Args:
        slot: (N, D).
        seen: (N,) visibility v.
        kept: numbers of the rows that count.
        unit: bring rows to length 1, and take no mean off.
    """
    weight = seen[kept].square()

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(kept), _CHUNK):
            part = kept[start : start + _CHUNK]
            rows = slot[part].detach().cpu().double()
            yield (unit_rows(rows) if unit else rows), weight[start : start + _CHUNK, None].cpu()

    width = slot.shape[1]
    mean = torch.zeros(width, dtype=torch.float64)
    if not unit:
        for rows, factor in chunks():
            mean += (rows * factor).sum(0)
        mean /= weight.sum()
    moment = torch.zeros(width, width, dtype=torch.float64)
    for rows, factor in chunks():
        rows = (rows - mean) * factor.sqrt()
        moment.addmm_(rows.T, rows)
    return (None if unit else mean.numpy()), moment.numpy()


def unit_rows(rows: Tensor) -> Tensor:
    """Return rows of length 1; a row of length 0 stays."""
    # By the largest entry first: squares of very large or small numbers would leave the range of the type.
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1)


def signed(vectors: np.ndarray) -> np.ndarray:
    """Return the same directions, the largest entry of each column positive: an eigenvector alone has no sign."""
    largest = np.abs(vectors).argmax(0)
    return np.ascontiguousarray(vectors * np.where(vectors[largest, range(vectors.shape[1])] < 0, -1.0, 1.0))
