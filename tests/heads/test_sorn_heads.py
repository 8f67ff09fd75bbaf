"""SORN's heads against the plainest loops over their own weights."""

from __future__ import annotations

import pytest
import torch

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, StageInfo
from occluded_reid.errors import BuildError
from occluded_reid.heads import GlobalHead, LocalHead, SemanticHead

STAGES = {"fine": StageInfo(3, 8), "middle": StageInfo(4, 16), "coarse": StageInfo(6, 16)}


def info(num_classes=5, heads=None, name="head", size=(112, 32)):
    return BuildInfo(stages=STAGES, input_size=size, num_classes=num_classes, heads=heads or {}, name=name)


def maps(count=2, rows=7, columns=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"fine": (3, 2 * rows, 2 * columns), "middle": (4, rows, columns), "coarse": (6, rows, columns)}
    stages = {name: torch.randn(count, *shape, generator=generator) for name, shape in shapes.items()}
    return FeatureMaps(stages, torch.zeros(count, 3, rows * 16, columns * 16))


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("match", ["before", "after"])
def test_local_head_is_a_loop_over_stripes(pooling, match):
    head = LocalHead(info(), num_parts=3, pooling=pooling, match=match).eval()
    features = maps()
    output = head(features, {})
    # Seven rows in three bands: ⌊n·7/3 + ½⌋ gives 0, 2, 5, 7.
    for p, (start, stop) in enumerate([(0, 2), (2, 5), (5, 7)]):
        name = f"part_{p + 1}"
        for i in range(2):
            for c in range(6):
                cells = [float(features["coarse"][i, c, r, x]) for r in range(start, stop) for x in range(2)]
                pooled = sum(cells) / len(cells) if pooling == "average" else max(cells)
                assert float(output.features[name][i, c]) == pytest.approx(pooled, abs=1e-6)
        necked = head.necks[p](output.features[name])
        torch.testing.assert_close(output.logits[name], head.classifiers[p](necked))
        torch.testing.assert_close(output.embeddings[name], necked if match == "after" else output.features[name])


def test_local_head_reduces_each_part_with_weights_of_its_own():
    head = LocalHead(info(), num_parts=2, reduction=5)
    assert head.info.slots == {"part_1": 5, "part_2": 5}
    assert not torch.equal(head.reductions[0][0].weight, head.reductions[1][0].weight)
    assert (head(maps(4), {}).features["part_1"] >= 0).all(), "ReLU after the reduction"


def test_bnneck_keeps_its_bias_at_zero():
    head = LocalHead(info(), num_parts=2, neck="bnneck")
    assert not head.necks[0].bias.requires_grad
    assert head.classifiers[0].bias is None


def test_global_head_pools_the_projected_map():
    head = GlobalHead(info(), num_sets=3, set_width=4).eval()
    features = maps()
    output = head(features, {})
    grid = torch.einsum("oc,nchw->nohw", head.project[0].weight[:, :, 0, 0], features["coarse"])
    torch.testing.assert_close(output.features["global"], grid.mean((2, 3)))
    aggregated = torch.stack([grid[:, 4 * n : 4 * n + 4].sum(1) for n in range(3)], 1)
    expected = 1 / (1 + torch.exp(-(aggregated - aggregated.mean((2, 3), keepdim=True))))
    torch.testing.assert_close(output.maps["aggregation"], expected)
    assert head.info.slots == {"global": 12}


def test_global_head_without_sets_is_plain_pooling():
    head = GlobalHead(info(None))
    assert head.info.maps == {}
    assert head.classifier is None
    torch.testing.assert_close(head.eval()(maps(), {}).features["global"], maps()["coarse"].mean((2, 3)))


@pytest.mark.parametrize("visibility", ["binary", "soft"])
@pytest.mark.parametrize("mask", ["argmax", "probability"])
def test_semantic_head_gives_the_stripes_their_visibility(visibility, mask):
    before = {"local": HeadInfo(slots={"part_1": 6, "part_2": 6, "part_3": 6})}
    head = SemanticHead(info(heads=before), visibility=visibility, mask=mask, threshold=0.6, widths=(5, 5)).eval()
    output = head(maps(3), {})
    logits = output.maps["segmentation"]
    assert logits.shape == (3, 8, 28, 8)
    for i in range(3):
        # The map has 7 rows, the mask 4 for each: the bands 0-2-5-7 of the map are rows 0-8-20-28 of the mask.
        for p, (start, stop) in enumerate([(0, 8), (8, 20), (20, 28)]):
            total = 0.0
            for r in range(start, stop):
                for x in range(8):
                    scores = logits[i, :, r, x].tolist()
                    if mask == "argmax":
                        total += 0.0 if scores.index(max(scores)) == 0 else 1.0
                    else:
                        total += 1 - float(torch.tensor(scores).softmax(0)[0])
            fraction = total / ((stop - start) * 8)
            expected = fraction if visibility == "soft" else float(fraction >= 0.6)
            assert float(output.visibility[f"part_{p + 1}"][i]) == pytest.approx(expected, abs=1e-5)


def test_semantic_head_needs_a_pyramid():
    stages = {"a": StageInfo(3, 8), "b": StageInfo(3, 16), "c": StageInfo(3, 32)}
    with pytest.raises(BuildError, match="last_stride: 1"):
        SemanticHead(BuildInfo(stages=stages, input_size=(64, 64), name="semantic"), visibility_of=None)


def test_visibility_carries_no_gradient():
    before = {"local": HeadInfo(slots={"part_1": 6, "part_2": 6})}
    head = SemanticHead(info(heads=before), mask="probability", visibility="soft", widths=(5, 5))
    assert not head(maps(), {}).visibility["part_1"].requires_grad
