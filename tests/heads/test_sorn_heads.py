"""SORN's heads against the plainest loops over their own weights."""

from __future__ import annotations

import pytest
import torch

from occluded_reid import build_model
from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, StageInfo, Targets
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


@pytest.mark.parametrize(
    ("stages", "middle", "channels"),
    [
        ({"one": StageInfo(6, 16)}, None, 6),
        ({"a": StageInfo(4, 16), "b": StageInfo(4, 16), "c": StageInfo(6, 16)}, "b", 10),
    ],
)
def test_on_a_single_scale_the_deconvolutions_have_no_skip(stages, middle, channels, caplog):
    head = SemanticHead(
        BuildInfo(stages=stages, input_size=(112, 32), name="semantic"), visibility_of=None, widths=(5, 4), classes=2
    ).eval()
    assert "no stage twice as large" in caplog.text
    assert (head.middle, head.fine) == (middle, None)
    assert (head.up_first[0].in_channels, head.up_second[0].in_channels) == (channels, 5)
    generator = torch.Generator().manual_seed(0)
    given = {n: torch.randn(2, s.channels, 7, 2, generator=generator) for n, s in stages.items()}
    logits = head(FeatureMaps(given, torch.zeros(2, 3, 112, 32)), {}).maps["segmentation"]
    assert logits.shape == (2, 2, 28, 8)

    def grown(grid, block):
        """3×3, stride 2, one pixel of padding: what a cell gives goes to the outputs 2r + i - 1, 2x + j - 1."""
        weight, norm = block[0].weight, block[1]
        count, _, rows, columns = grid.shape
        out = torch.zeros(count, weight.shape[1], 2 * rows, 2 * columns)
        for r in range(rows):
            for x in range(columns):
                for i in range(3):
                    for j in range(3):
                        y, z = 2 * r + i - 1, 2 * x + j - 1
                        if 0 <= y < 2 * rows and 0 <= z < 2 * columns:
                            out[:, :, y, z] += grid[:, :, r, x] @ weight[:, :, i, j]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        out = (out - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        return out.clamp(min=0)

    below = torch.cat([given[middle], given["c"]], 1) if middle else given["one"]
    expected = grown(grown(below, head.up_first), head.up_second)
    weight, bias = head.classify.weight[:, :, 0, 0], head.classify.bias
    expected = torch.einsum("kc,nchw->nkhw", weight, expected) + bias[:, None, None]
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("names", [("one",), ("a", "b", "c"), ("fine", "middle", "coarse")])
def test_gradients_of_the_semantic_head(names):
    """In float64, on a single map, on maps of one size, and on a pyramid."""
    sizes = {"fine": (2, 8)} | dict.fromkeys(("one", "a", "b", "c", "middle", "coarse"), (2, 16))
    stages = {name: StageInfo(*sizes[name]) for name in names}
    known = BuildInfo(stages=stages, input_size=(32, 32), name="semantic")
    head = SemanticHead(known, visibility_of=None, widths=(3, 3), classes=2).double().eval()
    torch.manual_seed(0)
    with torch.no_grad():  # far from 0, where the ReLU has a corner, and where everything is flat
        for values in head.parameters():
            values.normal_()
    given = [torch.randn(2, c, 32 // s, 32 // s, dtype=torch.float64, requires_grad=True) for c, s in sizes_of(stages)]

    def logits(*grids):
        return head(FeatureMaps(dict(zip(names, grids, strict=True)), torch.zeros(2, 3, 32, 32)), {}).maps[
            "segmentation"
        ]

    used = [n for n, name in enumerate(names) if name in (head.coarse, head.middle, head.fine)]
    assert used
    assert torch.autograd.gradcheck(logits, given)
    grown = torch.autograd.grad(logits(*given).sum(), [given[n] for n in used])
    assert all(grid.abs().max() > 0 for grid in grown)


def sizes_of(stages):
    return [(stage.channels, stage.stride) for stage in stages.values()]


def targets(count, size, classes=5):
    labels = torch.arange(count) % classes
    parsing = torch.zeros(count, *size, dtype=torch.long)
    parsing[:, : size[0] // 2] = 2
    return Targets(labels, torch.zeros_like(labels), parsing=parsing)


def test_a_transformer_is_a_backbone_of_sorn(caplog):
    size = {"model.input.height": 96, "model.input.width": 32}
    model = build_model("sorn", backbone="vit_tiny_patch16_224", num_classes=5, pretrained=False, **size).train()
    for notice in ("last_stride: 1 changes nothing", "no stage twice as large"):
        assert notice in caplog.text
    images, labels = torch.randn(4, 3, 96, 32), targets(4, (96, 32))
    output = model(images, labels)
    assert output["semantic"].maps["segmentation"].shape == (4, 8, 24, 8)
    values = model.criterion(output, labels)
    values.total.backward()
    assert torch.isfinite(values.total)
    assert model.heads["semantic"].up_second[0].weight.grad is not None
    assert list(model.embed(images).names) == ["global", "part_1", "part_2", "part_3"]


def test_a_backbone_that_knows_no_last_stride_ignores_it(caplog):
    size = {"model.input.height": 96, "model.input.width": 32}
    build_model("bot_lite", backbone="osnet", pretrained=False, **size)
    assert "'osnet' has no stride to change: the recipe's last_stride is ignored" in caplog.text


@pytest.mark.parametrize(("sets", "width"), [(1, 3072), (2, 1536), (3, 1024), (4, 768)])
def test_any_number_of_sets_shares_the_channels_of_all(sets, width):
    """Fig. 8(c): N·c' stays, and c' is what each of the N sets gets; without sets there is no SPC loss."""
    overrides = {"model.heads.global.options.num_sets": sets}
    if sets == 1:
        overrides["model.losses.spc"] = None
    size = {"model.input": {"height": 96, "width": 32}, "model.heads.semantic.options.widths": [8, 8]}
    small = {"model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}}}
    model = build_model("sorn", num_classes=5, pretrained=False, **size, **small, **overrides).train()
    images, labels = torch.randn(4, 3, 96, 32), targets(4, (96, 32))
    output = model(images, labels)
    grid, maps = output["global"].maps["projected"], output["global"].maps.get("aggregation")
    assert grid.shape[1] == 3072 == sets * width
    if sets > 1:
        for n in range(sets):
            aggregated = torch.zeros(4, 6, 2)
            for c in range(n * width, (n + 1) * width):
                aggregated += grid[:, c].detach()
            expected = (aggregated - aggregated.mean((1, 2), keepdim=True)).sigmoid()
            torch.testing.assert_close(maps[:, n].detach(), expected, atol=1e-4, rtol=1e-4)
    else:
        assert maps is None
    model.criterion(output, labels).total.backward()
    with pytest.raises(BuildError, match="set_width: 4 and total_width: 12"):
        GlobalHead(info(), num_sets=3, set_width=4, total_width=12)
    with pytest.raises(BuildError, match="asks for 3 channel sets: 10 channels"):
        GlobalHead(info(), num_sets=3, total_width=10)


def test_visibility_carries_no_gradient():
    before = {"local": HeadInfo(slots={"part_1": 6, "part_2": 6})}
    head = SemanticHead(info(heads=before), mask="probability", visibility="soft", widths=(5, 5))
    assert not head(maps(), {}).visibility["part_1"].requires_grad
