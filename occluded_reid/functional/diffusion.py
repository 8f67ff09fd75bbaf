"""Feature diffusion: the nearest other identities, and attention over them (FED, Fig. 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, normalize

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_labels, require_rank

__all__ = ["gated_gelu", "nearest_centroids", "neighbour_attention"]


def nearest_centroids(embeddings: Tensor, bank: Tensor, count: int, labels: Tensor | None = None) -> Tensor:
    """The K centroids of other identities that are nearest by cosine, nearest first.

    K + 1 are searched; the own identity's is dropped where it is among them, else the last one.

    Args:
        embeddings: (N, D).
        bank: (C, D).
        count: K, at most C - 1.
        labels: (N,) own identities; None drops no own identity and gives the first K.

    Returns:
        (N, K) rows of the bank.

    Raises:
        ShapeError: the shapes do not fit, or K is not between 1 and C - 1.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> nearest_centroids(torch.tensor([[1.0, 0.0]]), bank, 1, labels=torch.tensor([0]))
        tensor([[1]])
        >>> nearest_centroids(torch.tensor([[1.0, 0.0]]), bank, 1)
        tensor([[0]])
    """
    require_rank(embeddings, 2, "embeddings", "(N, D)")
    require_rank(bank, 2, "bank", "(C, D)")
    if embeddings.shape[1] != bank.shape[1] or not 1 <= count < len(bank):
        raise ShapeError(
            f"{count} neighbours of embeddings {tuple(embeddings.shape)} are sought in a bank {tuple(bank.shape)}. "
            f"Give both the same width, and a count between 1 and {len(bank) - 1}."
        )
    with torch.no_grad():
        similarity = normalize(embeddings, dim=1) @ normalize(bank, dim=1).T
        nearest = similarity.topk(count + 1, dim=1).indices
        if labels is None:
            return nearest[:, :count]
        own = nearest == require_labels(labels, embeddings.shape[:1], len(bank))[:, None]
        own[:, -1] |= ~own.any(1)
        return nearest[~own].view(-1, count)


def neighbour_attention(query: Tensor, keys: Tensor, values: Tensor, heads: int, scale: float) -> Tensor:
    """One query an image attends to its neighbours: softmax(q · k_j · scale) over j weighs the values, head by head.

    Args:
        query: (N, D).
        keys: (N, K, D).
        values: (N, K, D).
        heads: h; each has D / h columns of its own.
        scale: of the dot products.

    Returns:
        (N, D).

    Raises:
        ShapeError: the shapes do not fit, or D cannot be divided into h heads.

    Example:
        >>> keys, values = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 4.0], [3.0, 8.0]]])
        >>> neighbour_attention(torch.ones(1, 2), keys, values, heads=2, scale=1.0)
        tensor([[2., 6.]])
    """
    require_rank(query, 2, "query", "(N, D)")
    require_rank(keys, 3, "keys", "(N, K, D)")
    count, width = query.shape
    if keys.shape != values.shape or (keys.shape[0], keys.shape[2]) != (count, width) or heads < 1 or width % heads:
        raise ShapeError(
            f"query {tuple(query.shape)}, keys {tuple(keys.shape)} and values {tuple(values.shape)} do not make "
            f"{heads} heads: wanted (N, D), (N, K, D), (N, K, D) with D divisible by the heads."
        )
    asked = query.view(count, heads, 1, -1)
    offered, given = (part.view(count, -1, heads, width // heads).transpose(1, 2) for part in (keys, values))
    attention = (asked @ offered.transpose(2, 3) * scale).softmax(-1)
    return (attention @ given).reshape(count, width)


def gated_gelu(values: Tensor) -> Tensor:
    """GEGLU (Shazeer, 2020): the first half of the last dimension times GELU of the second half.

    Args:
        values: (…, 2 D).

    Returns:
        (…, D).

    Raises:
        ShapeError: the last dimension is odd.

    Example:
        >>> gated_gelu(torch.tensor([[5.0, 0.0]]))
        tensor([[0.]])
    """
    if values.ndim < 1 or values.shape[-1] % 2:
        raise ShapeError(f"values are {tuple(values.shape)}; the last dimension must be even, to be halved.")
    first, second = values.chunk(2, dim=-1)
    return first * gelu(second)
