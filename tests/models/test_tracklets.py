"""A row for a track, against the formula as a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from occluded_reid import build_model
from occluded_reid.data.tracklet import Tracklet, crop_weights, sharpness
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ShapeError
from occluded_reid.gallery.search.query import mean_query
from occluded_reid.models.embedding import embed_images
from occluded_reid.models.tracklets import tracklet_embeddings, tracklet_row


def crop(seed: int, blur: float = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(blur))


def rows(count: int = 5) -> PartEmbeddings:
    torch.manual_seed(count)
    return PartEmbeddings(("a", "b"), (torch.randn(count, 4), torch.randn(count, 3)), torch.rand(count, 2))


def test_a_row_is_the_weighted_mean() -> None:
    crops, weight = rows(), [1.0, 0.0, 0.25, 2.0, 1.0]
    got = tracklet_row(crops, weight)
    for s, name in enumerate(crops.names):
        shares = [w * float(v) for w, v in zip(weight, crops.visibility[:, s], strict=True)]
        wanted = sum(x * e.double() for x, e in zip(shares, crops.slot(name), strict=True)) / sum(shares)
        assert torch.allclose(got.slot(name)[0].double(), wanted, atol=1e-6)
        seen = max(float(v) for w, v in zip(weight, crops.visibility[:, s], strict=True) if w)
        assert float(got.visibility[0, s]) == pytest.approx(seen)


def test_without_weights_it_is_the_query_of_several_images() -> None:
    one, two = tracklet_row(rows()), mean_query(rows())
    assert torch.equal(one.concatenate(), two.concatenate())
    assert torch.equal(one.visibility, two.visibility)


def test_the_best_crops_differ() -> None:
    vectors = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [-1, 0]])
    crops = PartEmbeddings(("a",), (vectors,), torch.tensor([[1.0], [0.99], [0.5], [0.0]]))
    # The second is the first once more, and the last shows nothing.
    wanted = (vectors[0] * 1.0 + vectors[2] * 0.5) / 1.5
    assert torch.allclose(tracklet_row(crops, best=2).slot("a")[0], wanted)
    assert torch.allclose(tracklet_row(crops, best=9).slot("a"), tracklet_row(crops).slot("a"))


def test_a_hidden_slot_has_the_plain_mean() -> None:
    crops = PartEmbeddings(("a",), (torch.tensor([[1.0], [3.0]]),), torch.zeros(2, 1))
    got = tracklet_row(crops)
    assert got.slot("a").tolist() == [[2.0]]
    assert got.visibility.tolist() == [[0.0]]


def test_each_factor_of_a_weight() -> None:
    crops = [crop(0), crop(0), crop(0)]
    boxes = np.array([[0.0, 0, 10, 20], [40, 40, 50, 60], [80, 40, 99, 60]])
    others = [np.empty((0, 4)), np.array([[45.0, 40, 70, 60], [49, 40, 70, 60]]), np.empty((0, 4))]
    track = Tracklet("t", crops, boxes=boxes, frame_size=(100, 100), others=others, confidences=np.array([1, 0.5, 1]))
    assert crop_weights(track).tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert crop_weights(Tracklet("t", crops, confidences=np.zeros(3))).tolist() == [1, 1, 1]
    soft = Tracklet("t", [crop(1), crop(1, blur=1)])
    ratio = sharpness(soft.images[1]) / sharpness(soft.images[0])
    assert crop_weights(soft).tolist() == pytest.approx([1, max(0.1, ratio**0.5)])
    assert ratio < 0.5
    assert crop_weights(soft, blur=False).tolist() == [1, 1]


def test_batches_and_kinds_of_images_change_nothing(tmp_path) -> None:
    recipe = {"model.input": {"height": 64, "width": 32}, "model.backbone.type": "test_efficientnet"}
    model = build_model("sorn_lite", **recipe).eval()
    tracks = [Tracklet("a", [crop(0), crop(1), crop(2)]), Tracklet("b", [crop(3)])]
    for number in range(4):
        crop(number).save(tmp_path / f"{number}.png")
    files = [Tracklet("a", [tmp_path / f"{n}.png" for n in range(3)]), Tracklet("b", [np.asarray(crop(3))])]
    one = tracklet_embeddings(model, tracks, batch_size=1)
    for other in (tracklet_embeddings(model, tracks), tracklet_embeddings(model, files)):
        assert torch.allclose(one.concatenate(), other.concatenate(), atol=1e-5)
    by_hand = tracklet_row(
        PartEmbeddings.cat(list(embed_images(model, tracks[0].images, ["", "", ""], 64))), crop_weights(tracks[0])
    )
    assert torch.allclose(one[0:1].concatenate(), by_hand.concatenate(), atol=1e-5)
    assert len(one) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"images": []},
        {"start": 1.0},
        {"start": 2.0, "end": 1.0},
        {"boxes": np.zeros((1, 4))},
        {"boxes": np.zeros((2, 4))},
        {"confidences": np.array([2.0])},
        {"frame_size": (10, 10)},
        {"name": ""},
        {"camera": "hall"},
    ],
)
def test_what_is_no_tracklet_is_refused(options) -> None:
    with pytest.raises(ShapeError):
        Tracklet(**{"name": "t", "images": [crop(0)], **options})


def test_what_is_no_list_of_tracklets_is_refused() -> None:
    model = object()
    for wrong in ([], ["a"], "a", Tracklet("a", [crop(0)]), [Tracklet("a", [crop(0)]), Tracklet("a", [crop(1)])]):
        with pytest.raises(EmbeddingError):
            tracklet_embeddings(model, wrong)
    for weights in ([1.0], [0.0] * 5, [-1.0] * 5, "abcde"):
        with pytest.raises(EmbeddingError):
            tracklet_row(rows(), weights)
