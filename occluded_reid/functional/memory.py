"""A memory of one centroid for each identity: contrast against it, and how it follows the embeddings (FED, Fig. 2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_choice, require_labels, require_rank

__all__ = ["memory_contrast", "memory_logits", "moved_memory"]


def memory_logits(embeddings: Tensor, bank: Tensor, temperature: float = 0.05) -> Tensor:
    """Cosine of each embedding to each identity's centroid, over the temperature: cos(e, M_c) / τ (FED, Fig. 2).

    Both sides are brought to length 1 here; a centroid of zeros is as far from everything as a right angle.

    Args:
        embeddings: (N, D).
        bank: (C, D), a centroid an identity.
        temperature: τ, above 0.

    Returns:
        (N, C).

    Raises:
        ShapeError: the widths differ, or τ is not positive.

    Example:
        >>> memory_logits(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]), temperature=0.5)
        tensor([[2., 0.]])
    """
    _require_widths(embeddings, bank)
    if not temperature > 0:
        raise ShapeError(f"temperature is {temperature}; give a positive number, such as 0.05.")
    return normalize(embeddings, dim=1) @ normalize(bank, dim=1).T / temperature


def memory_contrast(logits: Tensor, labels: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Contrast of each embedding with all centroids: -log(softmax(logits)_y + ε), one value a row (FED, Fig. 2).

    Args:
        logits: (N, C), as `memory_logits` gives them.
        labels: (N,) class indices.
        epsilon: ε of the authors' code: it bounds the loss of a row by -log ε. 0 is plain cross-entropy.

    Returns:
        (N,).

    Raises:
        ShapeError: the shapes do not fit, or a label is not below C.

    Example:
        >>> memory_contrast(torch.zeros(1, 4), torch.tensor([2]), epsilon=0.0).exp()
        tensor([4.])
    """
    require_rank(logits, 2, "logits", "(N, C)")
    labels = require_labels(labels, logits.shape[:1], logits.shape[1])
    own = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -own if epsilon == 0 else -(own.exp() + epsilon).log()


def moved_memory(
    bank: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    momentum: float = 0.2,
    *,
    rule: Literal["sequential", "class_mean"] = "sequential",
    renormalize: bool = False,
) -> Tensor:
    """The bank after a batch: M_y ← μ M_y + (1 - μ) e for one embedding after the other (FED, Fig. 2).

    n embeddings of one identity, one after the other, leave μⁿ of its old centroid. All are taken at once here, each
    with the weight (1 - μ) μʳ if r more come after it. With μ = 0.2 and n = 4 the new centroid is 0.16 % of the old
    one and 80 % of the last embedding.

    Args:
        bank: (C, D).
        embeddings: (N, D), used as they are, not normalised.
        labels: (N,) class indices.
        momentum: μ in [0, 1], the share of the old centroid that stays.
        rule: "sequential", or "class_mean": once a batch, with the mean of an identity's embeddings.
        renormalize: bring the centroids that have moved to length 1.

    Returns:
        (C, D); rows of identities without an embedding are unchanged.

    Raises:
        ShapeError: the shapes do not fit, a label is not below C, or μ is not in [0, 1].

    Example:
        >>> bank, rows = torch.zeros(2, 1), torch.tensor([[1.0], [2.0]])
        >>> moved_memory(bank, rows, torch.tensor([1, 1]), momentum=0.5)
        tensor([[0.0000],
                [1.2500]])
        >>> moved_memory(bank, rows, torch.tensor([1, 1]), momentum=0.5, rule="class_mean")
        tensor([[0.0000],
                [0.7500]])
    """
    _require_widths(embeddings, bank)
    require_choice(rule, ("sequential", "class_mean"), "rule")
    if not 0 <= momentum <= 1:
        raise ShapeError(f"momentum is {momentum}; give the share of the old centroid that stays, in [0, 1].")
    labels = require_labels(labels, embeddings.shape[:1], len(bank))
    # Sums as products of matrices: on a GPU they are the same in every run, which scattered additions are not.
    owns = one_hot(labels, len(bank)).T.to(bank.dtype)  # (C, N)
    counts = owns.sum(1, keepdim=True)
    if rule == "sequential":
        after = (labels[:, None] == labels).triu(1).sum(1).to(bank.dtype)
        kept, weights = momentum**counts, owns * (1 - momentum) * momentum**after
    else:
        kept, weights = torch.full_like(counts, momentum), owns * (1 - momentum) / counts.clamp(min=1)
    moved = kept * bank + weights @ embeddings.to(bank.dtype)
    return torch.where(counts > 0, normalize(moved, dim=1) if renormalize else moved, bank)


def _require_widths(embeddings: Tensor, bank: Tensor) -> None:
    require_rank(embeddings, 2, "embeddings", "(N, D)")
    require_rank(bank, 2, "bank", "(C, D)")
    if embeddings.shape[1] != bank.shape[1]:
        raise ShapeError(
            f"embeddings {tuple(embeddings.shape)} and bank {tuple(bank.shape)} have other widths. "
            "Give both the same number of columns."
        )
