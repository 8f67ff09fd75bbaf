"""Learning from a teacher's embeddings: their directions, and which images of a batch they find alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_rank

__all__ = ["similarity_distillation", "teacher_distance"]


def teacher_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of 1 - cos(s_i, t_i).

    Args:
        student: (N, D), s.
        teacher: (N, D), t; no gradient flows to it.

    Returns:
        Scalar, at least float32, in [0, 2].

    Raises:
        ShapeError: the shapes do not fit each other.

    Example:
        >>> teacher_distance(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
        tensor(0.5000)
    """
    student, teacher = _units(student, teacher, least=1)
    return (1 - (student * teacher).sum(1)).mean()


def similarity_distillation(student: Tensor, teacher: Tensor, temperature: float = 0.05) -> Tensor:
    """Cross-entropy of the student's similarities within a batch against the teacher's.

    With p_ij = softmax over j ≠ i of cos(t_i, t_j)/τ, and q_ij likewise of s: -1/N Σ_i Σ_{j≠i} p_ij ln q_ij. It is
    least
    (the entropy of p) where the student finds the same images alike as the teacher does, however its space is turned.

    Args:
        student: (N, D), s.
        teacher: (N, E), t, of any width; no gradient flows to it.
        temperature: τ; a small one looks at the most similar images only.

    Returns:
        Scalar, at least float32.

    Raises:
        ShapeError: the shapes do not fit each other, there is only one image, or τ is not above 0.

    Example:
        Of three images each finds the other two equally alike: -Σ ½ ln ½.

        >>> same = torch.ones(3, 2)
        >>> similarity_distillation(same, same)
        tensor(0.6931)
    """
    if not temperature > 0:
        raise ShapeError(f"temperature is {temperature}; give a number above 0, such as 0.05.")
    student, teacher = _units(student, teacher, least=2, same_width=False)
    wanted = (_others(teacher @ teacher.T) / temperature).softmax(1)
    return cross_entropy(_others(student @ student.T) / temperature, wanted)


def _others(similarity: Tensor) -> Tensor:
    """(N, N) without its diagonal, (N, N-1): everything is most similar to itself, which teaches nothing."""
    count = len(similarity)
    beside = ~torch.eye(count, dtype=torch.bool, device=similarity.device)
    return similarity[beside].view(count, count - 1)


def _units(student: Tensor, teacher: Tensor, least: int, same_width: bool = True) -> tuple[Tensor, Tensor]:
    require_rank(student, 2, "student", "(N, D)")
    require_rank(teacher, 2, "teacher", "(N, D)")
    if len(student) != len(teacher) or len(student) < least or (same_width and student.shape != teacher.shape):
        wanted = "the same shape" if same_width else "as many rows"
        raise ShapeError(
            f"student is {tuple(student.shape)} and teacher {tuple(teacher.shape)}; wanted {wanted}, and at least "
            f"{least} of them. Give each image's embedding by both."
        )
    kind = torch.promote_types(student.dtype, torch.float32)
    return normalize(student.to(kind)), normalize(teacher.detach().to(kind))
