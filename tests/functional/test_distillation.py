"""Distances to a teacher against loops written from their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import similarity_distillation, teacher_distance


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def looped_distance(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """1/N Σ_i (1 - cos(s_i, t_i))."""
    pairs = list(zip(student.tolist(), teacher.tolist(), strict=True))
    return sum(1 - cosine(s, t) for s, t in pairs) / len(pairs)


def looped_similarity(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    """-1/N Σ_i Σ_{j≠i} p_ij ln q_ij, p and q softmaxes over j ≠ i of cosines through τ."""
    s, t, total = student.tolist(), teacher.tolist(), 0.0
    for i in range(len(s)):
        others = [j for j in range(len(s)) if j != i]
        p = [math.exp(cosine(t[i], t[j]) / temperature) for j in others]
        q = [math.exp(cosine(s[i], s[j]) / temperature) for j in others]
        total -= sum(a / sum(p) * math.log(b / sum(q)) for a, b in zip(p, q, strict=True))
    return total / len(s)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 5), width=st.integers(1, 6), seed=st.integers(0, 999))
def test_the_distance_is_its_formula(count: int, width: int, seed: int) -> None:
    student, teacher = random(count, width, seed=seed), random(count, width, seed=seed + 1)
    assert float(teacher_distance(student, teacher)) == pytest.approx(looped_distance(student, teacher), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(2, 6),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    temperature=st.floats(0.02, 2),
    seed=st.integers(0, 999),
)
def test_the_similarities_are_their_formula(count: int, widths: tuple[int, int], temperature: float, seed: int) -> None:
    student, teacher = random(count, widths[0], seed=seed), random(count, widths[1], seed=seed + 1)
    got = float(similarity_distillation(student, teacher, temperature))
    assert got == pytest.approx(looped_similarity(student, teacher, temperature), rel=1e-9, abs=1e-9)


def test_a_turned_space_costs_nothing_more_than_the_teachers_own() -> None:
    teacher = random(6, 4)
    turn, _ = torch.linalg.qr(random(4, 4, seed=1))
    least = float(similarity_distillation(teacher, teacher))
    assert float(similarity_distillation(teacher @ turn, teacher)) == pytest.approx(least, rel=1e-9)
    assert float(similarity_distillation(random(6, 4, seed=2), teacher)) > least


def test_gradients_flow_to_the_student_alone() -> None:
    student, teacher = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: teacher_distance(s, teacher), [student])
    assert torch.autograd.gradcheck(lambda s: similarity_distillation(s, teacher, 0.3), [student])
    (teacher_distance(student, teacher) + similarity_distillation(student, teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize(
    ("student", "teacher"), [((3, 2), (3, 3)), ((3, 2), (2, 2)), ((0, 2), (0, 2)), ((3,), (3,)), ((3, 2, 1), (3, 2))]
)
def test_distances_of_shapes_that_do_not_fit_are_refused(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        teacher_distance(torch.ones(student), torch.ones(teacher))


def test_one_image_has_no_others_to_be_alike() -> None:
    with pytest.raises(ShapeError, match="at least 2"):
        similarity_distillation(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(ShapeError, match="above 0"):
        similarity_distillation(torch.ones(2, 2), torch.ones(2, 2), 0.0)
