"""Center focus against loops over cells written from OCNet §2.1."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import center_attention, center_focus, center_gate, center_window


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def central(rows: int, columns: int, width: int, crop: str) -> set[tuple[int, int]]:
    """Cells with as many columns (square: and rows) of the map on their left as the mirror image has on its right."""
    margin = (columns - width) // 2
    above = 0 if crop == "columns" else (rows - width) // 2
    return {(y, x) for y in range(above, rows - above) for x in range(margin, columns - margin)}


def attention_loop(scores: torch.Tensor, width: int, crop: str) -> torch.Tensor:
    """e^score over the sum of e^score of the central cells; 0 elsewhere."""
    count, rows, columns = scores.shape
    cells = central(rows, columns, width, crop)
    result = torch.zeros_like(scores)
    for i in range(count):
        total = sum(math.exp(float(scores[i, y, x])) for y, x in cells)
        for y, x in cells:
            result[i, y, x] = math.exp(float(scores[i, y, x])) / total
    return result


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    width=st.integers(1, 6),
    crop=st.sampled_from(["columns", "square"]),
    seed=st.integers(0, 999),
)
def test_attention_is_a_softmax_of_the_centre(rows: int, columns: int, width: int, crop, seed: int) -> None:
    scores = random(2, rows, columns, seed=seed)
    fits = width <= columns and (columns - width) % 2 == 0
    if crop == "square":
        fits = fits and width <= rows and (rows - width) % 2 == 0
    if not fits:
        with pytest.raises(ShapeError, match=f"centre of width {width} .* map of {rows}×{columns}"):
            center_attention(scores, width, crop)
        return
    got = center_attention(scores, width, crop)
    torch.testing.assert_close(got, attention_loop(scores, width, crop))
    torch.testing.assert_close(got.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    assert int((got > 0).sum()) == 2 * len(central(rows, columns, width, crop))


def test_the_papers_map_has_32_central_cells() -> None:
    assert center_window(16, 8, 2) == ((0, 16), (3, 5))
    assert [len(central(16, 8, w, "columns")) for w in (2, 4, 6, 8)] == [32, 64, 96, 128]
    assert center_window(16, 8, 8) == ((0, 16), (0, 8)), "the largest centre of the paper's Table 3 is the whole width"


def test_widths_that_fit_are_named() -> None:
    with pytest.raises(ShapeError, match=r"width 3 .* 16×8 cells: as many columns .* fit: 2, 4, 6, 8\."):
        center_window(16, 8, 3)
    with pytest.raises(ShapeError, match=r"width 2 .* 7×7 .* as many rows and columns .* fit: 1, 3, 5, 7\."):
        center_window(7, 7, 2, "square")
    with pytest.raises(ShapeError, match=r"fit: none\."):
        center_window(7, 8, 2, "square")
    with pytest.raises(ShapeError, match="crop is 'row'"):
        center_window(7, 8, 2, "row")


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_focus_multiplies_and_adds(scale: float, residual: bool) -> None:
    features, attention = random(2, 3, 4, 4), center_attention(random(2, 4, 4, seed=1), 2)
    got = center_focus(features, attention, scale, residual)
    for i in range(2):
        for c in range(3):
            for y in range(4):
                for x in range(4):
                    value = float(features[i, c, y, x])
                    focused = scale * float(attention[i, y, x]) * value
                    assert float(got[i, c, y, x]) == pytest.approx(focused + (value if residual else 0), rel=1e-12)
                    if x in (0, 3) and not residual:
                        assert got[i, c, y, x] == 0


@pytest.mark.parametrize("residual", [True, False])
def test_gate_is_the_sigmoid_of_the_centres_mean_feature(residual: bool) -> None:
    features, attention = random(2, 3, 2, 4), center_attention(random(2, 2, 4, seed=1), 2)
    got = center_gate(features, attention, residual)
    for i in range(2):
        for c in range(3):
            v = sum(float(attention[i, y, x]) * float(features[i, c, y, x]) for y in range(2) for x in range(4))
            gain = 1 / (1 + math.exp(-v)) + (1 if residual else 0)
            torch.testing.assert_close(got[i, c], features[i, c] * gain)


def test_to_the_letter_the_map_is_next_to_nothing_and_scaled_its_mean_gain_is_1() -> None:
    features = random(4, 64, 16, 8).relu()
    attention = center_attention(features.mean(1), 2)
    gain = attention[:, :, 3:5]
    assert float(gain.mean()) == pytest.approx(1 / 32)
    assert float((32 * gain).mean()) == pytest.approx(1.0)

    def moved(scale: float) -> float:
        """How far the pooled feature is from that of the map as it was, relative to its length."""
        before, after = features.mean((2, 3)), center_focus(features, attention, scale).mean((2, 3))
        return float(((after - before).norm(dim=1) / before.norm(dim=1)).mean())

    assert moved(1) < 0.01, "softmax alone: less than one per cent"
    assert moved(32) > 0.2, "a quarter of the cells counts twice"


def test_gradients() -> None:
    features, scores = random(1, 2, 3, 4).requires_grad_(), random(1, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, s: center_focus(f, center_attention(s, 2), 6.0), (features, scores))
    assert torch.autograd.gradcheck(lambda f, s: center_gate(f, center_attention(s, 2)), (features, scores))


@pytest.mark.parametrize("apply", [lambda f, a: center_focus(f, a, 1.0), center_gate])
def test_shapes_that_do_not_fit(apply) -> None:
    with pytest.raises(ShapeError, match=r"attention must be \(N, h, w\) beside features \(2, 3, 4, 4\)"):
        apply(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 2))
    with pytest.raises(ShapeError, match=r"features must be \(N, C, h, w\)"):
        apply(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4))


def test_scores_have_no_channels() -> None:
    with pytest.raises(ShapeError, match=r"scores must be \(N, h, w\)"):
        center_attention(torch.zeros(2, 1, 4, 4), 2)
