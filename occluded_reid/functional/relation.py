"""Weights of features from the relations between them (OCNet §2.2, relational adaptive module)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_choice, require_rank

__all__ = ["correct_features", "relation_pairs", "relation_vectors", "relation_weights"]

Reading = Literal["pair", "se"]
Activation = Literal["sigmoid", "2sigmoid", "softmax"]


def relation_pairs(features: Tensor, include_self: bool = False) -> Tensor:
    """Ordered pairs [f_i ; f_j] of K features, j running over the others (OCNet §2.2).

    Args:
        features: (N, K, D).
        include_self: let j be i too.

    Returns:
        (N, K, K - 1, 2D), or (N, K, K, 2D) with the feature itself: entry (i, ·) are the pairs of feature i.

    Raises:
        ShapeError: features is not (N, K, D), or there is no other feature.

    Example:
        >>> relation_pairs(torch.tensor([[[1.0], [2.0], [3.0]]]))[0, 1]
        tensor([[2., 1.],
                [2., 3.]])
    """
    require_rank(features, 3, "features", "(N, K, D)")
    number = features.shape[1]
    if number < (1 if include_self else 2):
        raise ShapeError(f"{number} features make no pairs; give at least two, or include_self=True.")
    partners = [[j for j in range(number) if include_self or j != i] for i in range(number)]
    others = features[:, torch.tensor(partners, device=features.device)]
    return torch.cat([features[:, :, None].expand_as(others), others], dim=3)


def relation_vectors(
    features: Tensor,
    relate: Callable[[Tensor], Tensor],
    *,
    reading: Reading = "pair",
    include_self: bool = False,
) -> Tensor:
    """Relations ρ of K features: what a Relation Network hands on in place of them (OCNet Table 2, rows 5 and 6).

    "pair": ρ_i = 1/(K-1) Σ_{j≠i} relate([f_i ; f_j]), the same layers for every ordered pair (after Santoro et al., A
    simple neural network module for relational reasoning, 2017, who add up all pairs to one vector; "Concat" asks for
    one a feature). "se": ρ = relate(F_concat), as in squeeze and excitation.

    Args:
        features: (N, K, D), f_g, f_t, f_b, f_c.
        relate: the two shared fully connected layers: (…, 2D) to (…, D) for pairs, (N, K·D) to (N, K·D) for "se". One
            number for each feature is allowed too: (…, 2D) to (…, 1), and (N, K·D) to (N, K).
        reading: "pair" or "se".
        include_self: "pair" only: let j be i too, and divide by K.

    Returns:
        (N, K, D), or (N, K, 1) where `relate` gives one number for each feature.

    Raises:
        ShapeError: the shapes do not fit, there are too few features, or an option is none of its values.

    Example:
        >>> total = lambda pair: pair[..., :1] + pair[..., 1:]
        >>> relation_vectors(torch.tensor([[[1.0], [2.0], [4.0]]]), total)
        tensor([[[4.0000],
                 [4.5000],
                 [5.5000]]])
    """
    require_rank(features, 3, "features", "(N, K, D)")
    require_choice(reading, ("pair", "se"), "reading")
    count, number, width = features.shape
    if reading == "pair":
        pairs = relation_pairs(features, include_self)
        return _related(relate, pairs, ((*pairs.shape[:3], width), (*pairs.shape[:3], 1))).mean(2)
    together = features.flatten(1)
    return _related(relate, together, ((count, number * width), (count, number))).view(count, number, -1)


def relation_weights(
    features: Tensor,
    relate: Callable[[Tensor], Tensor],
    *,
    reading: Reading = "pair",
    activation: Activation = "sigmoid",
    include_self: bool = False,
) -> Tensor:
    """Relational weights F_w = activation(ρ) of K features, ρ being their `relation_vectors` (OCNet §2.2).

    Args:
        features: (N, K, D), f_g, f_t, f_b, f_c.
        relate: the two shared fully connected layers, as in `relation_vectors`.
        reading: "pair" or "se", as there.
        activation: "sigmoid"; "2sigmoid", which is 1 at ρ = 0; "softmax" over the K features times K, mean 1.
        include_self: "pair" only: let j be i too, and divide by K.

    Returns:
        (N, K, D), or (N, K, 1) where `relate` gives one number for each feature.

    Raises:
        ShapeError: as `relation_vectors`.

    Example:
        >>> difference = lambda pair: pair[..., :1] - pair[..., 1:]
        >>> relation_weights(torch.tensor([[[1.0], [1.0]]]), difference)
        tensor([[[0.5000],
                 [0.5000]]])
    """
    require_rank(features, 3, "features", "(N, K, D)")
    require_choice(activation, ("sigmoid", "2sigmoid", "softmax"), "activation")
    relation = relation_vectors(features, relate, reading=reading, include_self=include_self)
    if activation == "softmax":
        return features.shape[1] * relation.softmax(1)
    return relation.sigmoid() * (2 if activation == "2sigmoid" else 1)


def correct_features(features: Tensor, weights: Tensor, residual: bool = False) -> Tensor:
    """F_final = F_w ⊙ F_concat, the features side by side, each corrected by its weights (OCNet §2.2).

    Args:
        features: (N, K, D).
        weights: (N, K, D) or (N, K, 1), F_w.
        residual: (1 + F_w) ⊙ F_concat, so that no feature can vanish.

    Returns:
        (N, K·D).

    Raises:
        ShapeError: the shapes do not fit each other.

    Example:
        >>> correct_features(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0], [0.5]]]))
        tensor([[1.0000, 2.0000, 1.5000, 2.0000]])
    """
    require_rank(features, 3, "features", "(N, K, D)")
    if weights.shape not in (features.shape, (*features.shape[:2], 1)):
        raise ShapeError(
            f"weights must be {tuple(features.shape)}, or one number for each feature; got {tuple(weights.shape)}. "
            "Take them from relation_weights() of the same features."
        )
    return (features * (1 + weights if residual else weights)).flatten(1)


def _related(relate: Callable[[Tensor], Tensor], given: Tensor, wanted: tuple[tuple[int, ...], ...]) -> Tensor:
    relation = relate(given)
    if relation.shape not in wanted:
        raise ShapeError(
            f"relate must turn {tuple(given.shape)} into {wanted[0]}, or into {wanted[1]} for one number a feature; it "
            f"gave {tuple(relation.shape)}. Change its last layer."
        )
    return relation
