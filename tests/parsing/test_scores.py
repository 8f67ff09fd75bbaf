"""Pixel accuracy and IoU, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score

from occluded_reid.errors import ShapeError
from occluded_reid.parsing.scores import ConfusionMatrix


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 4))
def test_counted_in_pieces_is_what_scikit_learn_says_of_the_whole(seed, classes, pieces):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (pieces, 5, 4)).astype(np.uint8)
    predicted = np.where(random.random(truth.shape) < 0.5, truth, random.integers(0, classes, truth.shape))
    matrix = ConfusionMatrix([f"class {k}" for k in range(classes)])
    for one, other in zip(truth, predicted, strict=True):
        matrix.add(one, other)
    scores = matrix.scores()
    assert scores.pixels == truth.size
    assert scores.pixel_accuracy == pytest.approx(accuracy_score(truth.ravel(), predicted.ravel()))
    occurring = sorted({*truth.ravel().tolist(), *predicted.ravel().tolist()})
    wanted = jaccard_score(truth.ravel(), predicted.ravel(), labels=occurring, average=None, zero_division=0)
    assert [scores.iou[f"class {k}"] for k in occurring] == pytest.approx(wanted.tolist())
    assert scores.mean_iou == pytest.approx(wanted.mean())
    assert all(scores.iou[f"class {k}"] is None for k in range(classes) if k not in occurring)
    assert f"mean IoU {scores.mean_iou:.4f}" in scores.format()


def test_a_class_may_be_left_out():
    matrix = ConfusionMatrix(["background", "head", "legs"], ignore=0)
    matrix.add(np.array([[0, 1, 2, 2]]), np.array([[1, 1, 2, 1]]))
    assert (matrix.scores().pixels, matrix.scores().pixel_accuracy) == (3, pytest.approx(2 / 3))
    assert matrix.scores().iou == {"background": None, "head": 0.5, "legs": 0.5}


def test_what_cannot_be_counted_is_said():
    matrix = ConfusionMatrix(["background", "body"])
    with pytest.raises(ShapeError, match="no pixel"):
        matrix.scores()
    with pytest.raises(ShapeError, match="one shape"):
        matrix.add(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ShapeError, match="true class"):
        matrix.add(np.full((2, 2), 2), np.zeros((2, 2), int))
    with pytest.raises(ShapeError, match="predicted class"):
        matrix.add(np.zeros((2, 2), int), np.full((2, 2), -1))
