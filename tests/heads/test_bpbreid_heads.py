"""BPBreID's heads against loops over cells, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

from occluded_reid.contracts import (
    BuildInfo,
    FeatureMaps,
    HeadInfo,
    HeadOutput,
    MapInfo,
    ModelOutput,
    StageInfo,
    Targets,
)
from occluded_reid.errors import BuildError, MaskError
from occluded_reid.functional import part_triplet_loss
from occluded_reid.heads import ConcatHead, GlobalHead, PartAttentionHead
from occluded_reid.losses import PartTripletLoss, SegmentationLoss, TripletLoss

STAGES = {"middle": StageInfo(4, 8), "last": StageInfo(6, 16)}


def info(name="parts", heads=None, num_classes=5):
    return BuildInfo(stages=STAGES, input_size=(48, 32), num_classes=num_classes, heads=heads or {}, name=name)


def features(count=3):
    generator = torch.Generator().manual_seed(2)
    grid = torch.randn(count, 6, 3, 2, generator=generator, dtype=torch.float64)
    return FeatureMaps({"last": grid}, torch.zeros(count, 3, 48, 32))


def part_head(**options):
    head = PartAttentionHead(info(), classes=5, **options).double()
    torch.manual_seed(3)
    torch.nn.init.normal_(head.classify.weight, std=1.0)
    torch.nn.init.normal_(head.classify.bias)
    return head.eval()


@pytest.mark.parametrize("foreground", ["max", "sum"])
@pytest.mark.parametrize("visibility", ["binary", "soft"])
def test_parts_are_loops_over_cells(foreground, visibility):
    head, given = part_head(foreground=foreground, visibility=visibility, threshold=0.7), features()
    output, grid = head(given, {}), given["last"]
    weight, bias = head.classify.weight[:, :, 0, 0].detach(), head.classify.bias.detach()
    seen_both = set()
    for n in range(3):
        likely = {}
        for y in range(3):
            for x in range(2):
                logits = [
                    sum(float(weight[k, c]) * float(grid[n, c, y, x]) for c in range(6)) + float(bias[k])
                    for k in range(5)
                ]
                total = sum(math.exp(value) for value in logits)
                for k in range(5):
                    likely[k, y, x] = math.exp(logits[k]) / total
                    assert float(output.maps["segmentation"][n, k, y, x].detach()) == pytest.approx(logits[k])
                values = [likely[k, y, x] for k in range(1, 5)]
                wanted = max(values) if foreground == "max" else sum(values)
                assert float(output.maps["foreground"][n, 0, y, x].detach()) == pytest.approx(wanted)
        for k in range(1, 5):
            places = [(y, x) for y in range(3) for x in range(2)]
            below = sum(likely[k, y, x] for y, x in places)
            for c in range(6):
                above = sum(likely[k, y, x] * float(grid[n, c, y, x]) for y, x in places)
                assert float(output.embeddings[f"part_{k}"][n, c].detach()) == pytest.approx(above / below)
            highest = max(likely[k, y, x] for y, x in places)
            wanted = highest if visibility == "soft" else float(highest > 0.7)
            assert float(output.visibility[f"part_{k}"][n]) == pytest.approx(wanted)
            seen_both.add(wanted)
    assert len(seen_both) > 1
    assert head.info.visibility_of == head.info.inference_slots == ("part_1", "part_2", "part_3", "part_4")
    assert not output.logits


def test_reduced_parts_have_a_layer_each():
    head, given = part_head(reduction=7), features()
    output, plain = head(given, {}), part_head()(given, {})
    for k, layer in enumerate(head.reductions):
        slot = f"part_{k + 1}"
        wanted = torch.relu(plain.features[slot] @ layer[0].weight.T / math.sqrt(1 + layer[1].eps))
        torch.testing.assert_close(output.features[slot], wanted)
    assert head.info.slots["part_1"] == 7


def test_the_foreground_embedding_is_an_average_weighted_by_its_map():
    heads = {"parts": HeadInfo(maps={"foreground": MapInfo(1, 16), "parts": MapInfo(4, 16)})}
    head = GlobalHead(info("foreground", heads), attention="parts.foreground", slot="foreground", neck="none").double()
    given = features()
    weights = torch.rand(3, 1, 3, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    output = head(given, {"parts": HeadOutput(maps={"foreground": weights})})
    wanted = (given["last"] * weights).sum((2, 3)) / weights.sum((2, 3))
    torch.testing.assert_close(output.features["foreground"], wanted)
    for wrong in ({"attention": "parts.parts"}, {"attention": "parts.foreground", "pooling": "max"}):
        with pytest.raises(BuildError, match="one channel"):
            GlobalHead(info("foreground", heads), **wrong)
    with pytest.raises(BuildError, match=r"Did you mean 'parts\.foreground'"):
        GlobalHead(info("foreground", heads), attention="parts.foregrond")


def test_heads_for_losses_alone_match_nothing():
    whole = GlobalHead(info("global"), training_only=True)
    side = ConcatHead(info("concat", {"parts": part_head().info}), heads=("parts",), training_only=True)
    for head in (whole, side):
        assert head.info.training_only
        assert head.info.inference_slots == ()
    assert side.info.slots == {"final": 24}


def test_gradients_of_the_attention():
    head, given = part_head(visibility="soft"), features(2)
    grid = given["last"].requires_grad_()

    def pooled(x):
        output = head(FeatureMaps({"last": x}, given.images), {})
        return torch.stack([*output.features.values()]), output.maps["foreground"]

    assert torch.autograd.gradcheck(pooled, (grid,))


def model_output(head):
    return ModelOutput(features(), {"parts": head(features(), {})})


def test_the_losses_read_the_head():
    head = part_head(threshold=0.3)
    known = info("loss", {"parts": head.info})
    output, targets = model_output(head), Targets(torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.long))
    parts = torch.stack(list(output["parts"].features.values()), 1)
    seen = torch.stack(list(output["parts"].visibility.values()), 1)
    assert 0 < float(seen.sum()) < seen.numel()
    for mode, given in (("shared", seen), ("all", None)):
        loss = PartTripletLoss(known, margin=3.0, parts=mode)(output, targets)
        torch.testing.assert_close(loss, part_triplet_loss(parts, targets.identity, given, 3.0))
    with pytest.raises(MaskError, match="needs part masks"):
        SegmentationLoss(known, on="parts")(output, targets)


def test_one_part_is_the_plain_triplet():
    known = info("loss", {"one": HeadInfo(slots={"part_1": 6})})
    rows = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    output = ModelOutput(features(), {"one": HeadOutput(features={"part_1": rows})})
    targets = Targets(torch.tensor([0, 0, 1, 1, 1, 2]), torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(
        PartTripletLoss(known, on="one", parts="all")(output, targets), TripletLoss(known, on="one")(output, targets)
    )


def test_what_cannot_be():
    heads = {"one": HeadInfo(slots={"a": 3, "b": 3}), "two": HeadInfo(slots={"c": 3, "d": 4}), "none": HeadInfo()}
    with pytest.raises(BuildError, match="no head gives the visibility of a, b"):
        PartTripletLoss(info("loss", heads), on="one")
    with pytest.raises(BuildError, match="c 3, d 4"):
        PartTripletLoss(info("loss", heads), on="two")
    with pytest.raises(BuildError, match="has none"):
        PartTripletLoss(info("loss", heads), on="none", parts="all")
    loss = PartTripletLoss(info("loss", heads), on="one", parts="all")
    with pytest.raises(BuildError, match="gives none for a, b"):
        loss(ModelOutput(features(), {"one": HeadOutput()}), Targets(torch.zeros(3), torch.zeros(3)))
