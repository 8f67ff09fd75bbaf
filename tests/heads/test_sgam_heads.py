"""SGAM's heads with a parser made of rules: against loops over their own weights, and what they refuse."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from occluded_reid import build_model
from occluded_reid.contracts import (
    BuildInfo,
    FeatureMaps,
    HeadInfo,
    HeadOutput,
    MapInfo,
    ModelOutput,
    RegionParser,
    StageInfo,
    Targets,
)
from occluded_reid.errors import BuildError
from occluded_reid.heads import GlobalHead, Head, RegionPoolingHead, RegionsHead
from occluded_reid.losses import Criterion, IdentityLoss, VisiblePartLoss

NAMES = ("head", "upper_body", "lower_body", "shoes")
ROWS = ((0, 4), (4, 12), (12, 22), (22, 24))
HEIGHT, WIDTH = 96, 32
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)


class Bands(RegionParser):
    """A person fills the picture: a region is as likely as its rows are bright, at four pixels a cell."""

    names = NAMES

    def __init__(self, size: tuple[int, int] = (24, 8)) -> None:
        super().__init__()
        self.size = size
        self.norm = nn.BatchNorm2d(3)
        self.seen: list[torch.Tensor] = []
        self.register_buffer("reference", torch.tensor([4 / 24, 8 / 24, 10 / 24, 2 / 24]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        self.norm(images)
        self.seen.append(images)
        bright = torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), (24, 8))
        maps = torch.zeros(len(images), 4, 24, 8)
        for i, (start, stop) in enumerate(ROWS):
            maps[:, i, start:stop] = bright[:, 0, start:stop]
        return nn.functional.interpolate(maps, self.size, mode="nearest-exact")


def info(num_classes=5, parser=None, heads=None, name="head"):
    return BuildInfo(
        stages={"middle": StageInfo(4, 8), "last": StageInfo(6, 16)},
        input_size=(HEIGHT, WIDTH),
        num_classes=num_classes,
        heads=heads or {},
        name=name,
        parser=parser or Bands(),
        mean=MEAN,
        std=STD,
    )


def normalised(colours):
    return (colours - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def features(colours, seed=0):
    generator = torch.Generator().manual_seed(seed)
    count = len(colours)
    stages = {
        "middle": torch.randn(count, 4, 12, 4, generator=generator),
        "last": torch.randn(count, 6, 6, 2, generator=generator),
    }
    return FeatureMaps(stages, normalised(colours))


def people(count=2, seed=1):
    return torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def targets(count=2, occlusion=None):
    labels = torch.arange(count)
    return Targets(labels, torch.zeros_like(labels), occlusion_mask=occlusion)


def pooling(parser=None, num_classes=5, **options):
    regions = RegionsHead(info(parser=parser, name="regions"))
    given = info(num_classes, regions._parser[0], {"regions": regions.info}, "region_pooling")
    return regions, RegionPoolingHead(given, **options)


def test_the_parser_sees_the_colours_of_the_image():
    parser = Bands()
    head = RegionsHead(info(parser=parser), stride=4)
    colours = people()
    output = head(features(colours), {})
    torch.testing.assert_close(parser.seen[0], colours)
    assert head.info.maps == {"regions": MapInfo(4, 4)}
    torch.testing.assert_close(output.maps["regions"], parser(colours))


@pytest.mark.parametrize(("stride", "shape"), [(1, (96, 32)), (4, (24, 8)), (5, (20, 7)), (16, (6, 2))])
@pytest.mark.parametrize("size", [(24, 8), (40, 40), (10, 40)])
def test_maps_are_resized_to_the_stride_and_stay_probabilities(stride, shape, size):
    head = RegionsHead(info(parser=Bands(size)), stride=stride)
    maps = head(features(people()), {}).maps["regions"]
    assert maps.shape == (2, 4, *shape)
    assert maps.dtype == torch.float32
    assert ((maps >= 0) & (maps <= 1)).all()
    assert not maps.requires_grad
    # What a region covers of the picture stays what it is, up to what bleeds at its edges.
    finest = RegionsHead(info(parser=Bands(size)), stride=1)(features(people()), {}).maps["regions"]
    torch.testing.assert_close(maps.mean((2, 3)), finest.mean((2, 3)), atol=0.02, rtol=0)


def test_the_parser_stays_frozen_while_the_model_trains():
    parser = Bands()
    head = RegionsHead(info(parser=parser))
    parser.train()
    before = copy.deepcopy(parser.state_dict())
    head.train()(features(people()), {}, targets())
    assert not parser.training
    assert all(torch.equal(value, before[key]) for key, value in parser.state_dict().items())


def test_the_parser_belongs_to_the_preprocessing():
    regions, pool = pooling()
    assert list(regions.parameters()) == []
    assert regions.state_dict() == {}
    assert not [name for name, _ in pool.named_modules() if "parser" in name]
    assert not [key for key in pool.state_dict() if "reference" in key]


@pytest.mark.parametrize("zero_erased", [True, False])
def test_an_erased_box_is_no_part_of_a_region(zero_erased):
    colours = people()
    fill = torch.tensor([round(m * 255) / 255 for m in MEAN]).view(3, 1, 1)  # what `erase` writes, in 8 bits
    colours[0, :, 16:48, 8:24] = fill
    colours[1, :, 40, :] = fill[:, :, 0]  # a line that has the colour by chance
    colours[1, :, 50:54, 3:30] = fill  # four rows are no block either
    head = RegionsHead(info(), zero_erased=zero_erased)
    seen, trained = head(features(colours), {}), head(features(colours), {}, targets())
    inside = trained.maps["regions"][0, 1, 4:12, 2:6]
    assert (seen.maps["regions"][0, 1, 4:12, 2:6] > 0.2).all(), "outside training nothing is made 0"
    assert (inside == 0).all() if zero_erased else (inside > 0.2).all()
    for output in (seen, trained):
        assert (output.maps["regions"][0, 1, 4:12, :2] > 0).all()
    torch.testing.assert_close(trained.maps["regions"][1], seen.maps["regions"][1])


def test_under_a_pasted_occluder_there_is_no_region():
    mask = torch.zeros(2, HEIGHT, WIDTH)
    mask[0, 48:88] = 1
    mask[1, 90:, :16] = 1  # half of the cells' height, on the left
    head = RegionsHead(info())
    clean = head(features(people()), {}, targets()).maps["regions"]
    maps = head(features(people()), {}, targets(occlusion=mask)).maps["regions"]
    assert (maps[0, 2] == 0).all()
    torch.testing.assert_close(maps[0, :2], clean[0, :2])
    torch.testing.assert_close(maps[1, 3, 22, :4], clean[1, 3, 22, :4] / 2)
    assert (maps[1, 3, 23, :4] == 0).all()
    torch.testing.assert_close(maps[1, 3, :, 4:], clean[1, 3, :, 4:])


@pytest.mark.parametrize("match", ["after", "before", "pooled"])
@pytest.mark.parametrize("neck", ["bn", "bnneck", "none"])
def test_pooling_is_a_loop_over_regions(match, neck):
    regions, head = pooling(reduction=3, match=match, neck=neck)
    head.eval()
    given = features(people())
    maps = regions(given, {})
    output = head(given, {"regions": maps})
    assert head.info.slots == dict.fromkeys(NAMES, 6 if match == "pooled" else 3)
    assert head.info.inference_slots == head.info.visibility_of == NAMES
    for i, name in enumerate(NAMES):
        for n in range(2):
            weights = [
                [float(maps.maps["regions"][n, i, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean()) for x in range(2)]
                for y in range(6)
            ]
            total = sum(map(sum, weights)) + 1e-6
            pooled = torch.tensor(
                [
                    sum(weights[y][x] * float(given["last"][n, c, y, x]) for y in range(6) for x in range(2)) / total
                    for c in range(6)
                ]
            )
            reduced = head.reductions[i].weight @ pooled
            torch.testing.assert_close(output.features[name][n], reduced, atol=1e-5, rtol=1e-5)
            matched = {"after": head.necks[i](reduced[None])[0], "before": reduced, "pooled": pooled}[match]
            torch.testing.assert_close(output.embeddings[name][n], matched, atol=1e-5, rtol=1e-5)
        necked = head.necks[i](output.features[name])
        torch.testing.assert_close(output.logits[name], head.classifiers[i](necked))
    assert not torch.equal(head.reductions[0].weight, head.reductions[1].weight)


def test_one_convolution_for_all_five_features():
    """Read before the pooling, the global head's 1×1 convolution is every region's too: W · f_i, in a loop."""
    parser = Bands()
    regions = RegionsHead(info(parser=parser, name="regions"))
    whole = GlobalHead(info(name="global"), set_width=4, neck="none").double().eval()
    heads = {"global": whole.info, "regions": regions.info}
    assert whole.info.maps == {"projected": MapInfo(4, 16)}
    head = RegionPoolingHead(
        info(parser=parser, heads=heads), source="global.projected", reduction=None, neck="none", denominator="full"
    ).double()
    assert head.info.slots == dict.fromkeys(NAMES, 4)
    given = features(people())
    maps = regions(given, {}).maps["regions"].double()
    given = FeatureMaps({k: v.double() for k, v in given.items()}, given.images)
    context = {"global": whole(given, {}), "regions": HeadOutput(maps={"regions": maps})}
    output = head(given, context)
    weight = whole.project[0].weight[:, :, 0, 0]
    for n in range(2):
        for i, name in enumerate(NAMES):
            total = float(maps[n, i].sum()) + 1e-6
            pooled = torch.zeros(6, dtype=torch.float64)
            for y in range(6):
                for x in range(2):
                    share = maps[n, i, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean()
                    pooled += share * given["last"][n, :, y, x] / total
            torch.testing.assert_close(output.features[name][n], weight @ pooled, atol=1e-12, rtol=0)
    output.features["head"].sum().backward()
    assert whole.project[0].weight.grad.any(), "the shared convolution learns from the regions"
    with pytest.raises(BuildError, match=r"reads the map 'global.projekted'.*Did you mean 'global.projected'"):
        RegionPoolingHead(info(parser=parser, heads=heads), source="global.projekted")


def test_dropout_comes_before_the_reduction_and_before_the_classifier():
    regions, head = pooling(reduction=3, dropout=0.5)
    given = features(people(4))
    context = {"regions": regions(given, {})}
    torch.manual_seed(0)
    first, second = head(given, context), head(given, context)
    assert not torch.equal(first.features["head"], second.features["head"])
    head.eval()
    torch.testing.assert_close(head(given, context).logits["head"], head(given, context).logits["head"])
    head.train()
    head.reductions = nn.ModuleList()
    head.necks = nn.ModuleList(nn.Identity() for _ in NAMES)
    head.classifiers = nn.ModuleList(nn.Identity() for _ in NAMES)
    dropped = head(given, context)
    assert (dropped.logits["head"] == 0).float().mean() > (dropped.features["head"] == 0).float().mean()


@pytest.mark.parametrize("mode", ["ref", "area", "relative", "peak", "binary"])
def test_visibility_is_what_the_maps_say(mode):
    regions, head = pooling(visibility=mode)
    maps = regions(features(people()), {}).maps["regions"]
    output = head(features(people()), {"regions": HeadOutput(maps={"regions": maps})})
    reference = [4 / 24, 8 / 24, 10 / 24, 2 / 24]
    for n in range(2):
        sums = [float(maps[n, i].sum()) for i in range(4)]
        for i, name in enumerate(NAMES):
            ratio = min(1.0, sums[i] / (reference[i] * 192))
            # The greatest mean of 4×4 cells: the last stage has 6×2 of them.
            peak = max(float(maps[n, i, y : y + 4, x : x + 4].mean()) for y in range(0, 24, 4) for x in (0, 4))
            expected = {
                "ref": ratio,
                "area": sums[i] / 192,
                "relative": sums[i] / sum(sums),
                "peak": peak,
                "binary": float(ratio >= 0.2),
            }[mode]
            assert float(output.visibility[name][n]) == pytest.approx(expected, abs=1e-6)
            assert not output.visibility[name].requires_grad


def test_covering_a_region_lowers_its_visibility():
    regions, head = pooling()
    head.eval()
    colours = people(2)
    colours[1] = colours[0]
    colours[1, :, 48:88] = 0  # something black in front of the legs
    given = features(colours)
    output = head(given, {"regions": regions(given, {})})
    assert float(output.visibility["lower_body"][1]) < 0.1 < 0.4 < float(output.visibility["lower_body"][0])
    for name in ("head", "upper_body", "shoes"):
        assert output.visibility[name][1] == output.visibility[name][0]


def test_a_reference_of_ones_own_replaces_the_parsers():
    given = features(people())
    regions, own = pooling(reference=(1.0, 1.0, 1.0, 1.0))
    maps = {"regions": regions(given, {})}
    area = pooling(visibility="area")[1]
    for name in NAMES:
        torch.testing.assert_close(own(given, maps).visibility[name], area(given, maps).visibility[name])
    limits = dict(zip(NAMES, (0.99, 0.0, 0.99, 0.0), strict=True))
    for threshold in (tuple(limits.values()), limits):
        seen = pooling(visibility="binary", threshold=threshold)[1](given, maps).visibility
        assert [float(seen[name][0]) for name in NAMES] == [0.0, 1.0, 0.0, 1.0]


def test_the_parsers_reference_may_be_loaded_later():
    parser = Bands()
    regions, head = pooling(parser)
    given = features(people())
    maps = {"regions": regions(given, {})}
    before = head(given, maps).visibility["head"]
    state = {**parser.state_dict(), "reference": parser.reference * 2}
    parser.load_state_dict(state)
    torch.testing.assert_close(head(given, maps).visibility["head"], before / 2)


def test_maps_of_another_head_make_numbered_slots():
    heads = {"masks": HeadInfo(maps={"regions": MapInfo(3, 4)})}
    head = RegionPoolingHead(info(heads=heads), regions="masks", visibility="area", reduction=None)
    assert head.info.slots == {"region_1": 6, "region_2": 6, "region_3": 6}
    output = head(features(people()), {"masks": HeadOutput(maps={"regions": torch.rand(2, 3, 24, 8)})})
    assert output.embeddings["region_3"].shape == (2, 6)


def test_an_inference_build_has_no_classifier():
    regions, head = pooling(num_classes=None)
    given = features(people())
    assert head(given, {"regions": regions(given, {})}).logits == {}
    assert not [key for key in head.state_dict() if "classifier" in key]


def test_one_reduction_before_pooling_is_the_papers_after_it():
    """GAP and then a 1×1 convolution is a 1×1 convolution and then GAP: `global` with set_width is SGAM's."""
    head = GlobalHead(info(), num_sets=1, set_width=4, neck="none").double()
    given = FeatureMaps({k: v.double() for k, v in features(people()).items()}, torch.zeros(2, 3, HEIGHT, WIDTH))
    weight = head.project[0].weight[:, :, 0, 0]
    for n in range(2):
        for o in range(4):
            pooled = [given["last"][n, c].mean() for c in range(6)]
            expected = sum(weight[o, c] * pooled[c] for c in range(6))
            torch.testing.assert_close(head(given, {}).features["global"][n, o], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("classes", [3, 40])
def test_a_fresh_classifier_knows_nobody(classes):
    """Each identity term starts at ln C; Eq. 5 weighs it by max(v - t, 0), Eq. 7 by λ and 1 - λ."""
    count = 6
    parser = Bands()
    regions = RegionsHead(info(classes, parser, name="regions"))
    pool = RegionPoolingHead(info(classes, parser, {"regions": regions.info}, "region_pooling"), reduction=16)
    whole = GlobalHead(info(classes, parser), set_width=16)
    known = {"regions": regions.info, "region_pooling": pool.info, "global": whole.info}
    given, labels = features(people(count)), replace(targets(count), identity=torch.arange(count) % classes)
    context = {"regions": regions(given, {}, labels)}
    context["region_pooling"], context["global"] = pool(given, context, labels), whole(given, context, labels)
    built = info(classes, parser, known, "loss")
    losses = {
        "global": IdentityLoss(built, on="global"),
        "parts": VisiblePartLoss(built),
        "each": IdentityLoss(built, on="region_pooling", aggregate="mean"),
    }
    values = Criterion(losses, {"global": 0.2, "parts": 0.8, "each": 0.0})(ModelOutput(given, context), labels)
    assert values.named["global"].item() == pytest.approx(math.log(classes), abs=0.05)
    assert values.named["each"].item() == pytest.approx(math.log(classes), abs=0.05)
    seen = torch.stack(list(context["region_pooling"].visibility.values()), 1)
    share = float((seen - 0.2).clamp(min=0).sum(1).mean())
    assert values.named["parts"].item() == pytest.approx(share * math.log(classes), abs=0.05)
    total = 0.2 * values.named["global"].item() + 0.8 * values.named["parts"].item()
    assert values.total.item() == pytest.approx(total, rel=1e-6)
    values.total.backward()
    assert pool.reductions[0].weight.grad.any()


class Quarters(Head):
    """Stands in for a parser where a model is built by name."""

    def __init__(self, info: BuildInfo) -> None:
        super().__init__(info)
        self.info = HeadInfo(maps={"regions": MapInfo(4, 4)})

    def forward(self, features, context, targets=None):
        return HeadOutput(maps={"regions": torch.full((len(features.images), 4, 24, 8), 0.25)})


def test_one_head_gives_a_regions_visibility():
    heads = {
        "regions": Quarters,
        "region_pooling": {"type": "region_pooling", "options": {"visibility": "area", "reduction": 8}},
        "semantic": None,
        "local": None,
    }
    another = {"type": "semantic", "options": {"visibility_of": "region_pooling", "widths": [8, 8]}}
    sizes = {
        "model.input": {"height": HEIGHT, "width": WIDTH},
        "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
    }
    with pytest.raises(BuildError, match="'region_pooling' and 'masks' both give the visibility of slot 'region_1'"):
        build_model("sorn_lite", heads={**heads, "masks": another}, **sizes)
    model = build_model("sorn_lite", heads=heads, **sizes)
    rows = model.embed(torch.zeros(2, 3, HEIGHT, WIDTH))
    assert list(rows.names) == ["global", "region_1", "region_2", "region_3", "region_4"]
    torch.testing.assert_close(rows.visibility[0], torch.tensor([1.0, 0.25, 0.25, 0.25, 0.25]))


TINY = {
    "model.input.height": HEIGHT,
    "model.input.width": WIDTH,
    "model.parser.options": {"backbone": "test_efficientnet", "height": HEIGHT, "width": WIDTH, "widths": [8, 8]},
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
}


def test_the_recipe_weighs_the_whole_and_the_parts():
    torch.manual_seed(0)
    model = build_model("sgam_lite", num_classes=7, **TINY).train()
    images, labels = torch.randn(4, 3, HEIGHT, WIDTH), targets(4)
    output = model(images, labels)
    values = model.criterion(output, labels)
    assert values.named["global"].item() == pytest.approx(math.log(7), abs=0.05)
    total = 0.2 * values.named["global"].item() + 0.8 * values.named["parts"].item()
    assert values.total.item() == pytest.approx(total, rel=1e-6)
    values.total.backward()
    assert all(p.grad is None for p in model.preprocess.parameters()), "the parser is frozen"
    rows = model.embed(images)
    assert rows.widths == dict.fromkeys(("global", *NAMES), 128)
    everyone = build_model(  # SGAM-1, the paper's ablation: every region causes loss
        "sgam_lite", num_classes=7, **TINY, **{"model.losses.parts": {"type": "identity", "on": "region_pooling"}}
    )
    assert everyone.criterion(output, labels).named["parts"].item() == pytest.approx(4 * math.log(7), abs=0.2)


ROWS_OF_THE_PAPER = {
    "SGAM-2": {"model.matcher": {"type": "plain", "options": {"metric": "euclidean"}}},
    "no crop": {"model.input.crop.rule": "none"},
    "crop of a box, whatever is visible": {"model.input.crop.rule": "box", "model.input.crop.when": "always"},
    "ResNet-50": {
        "model.input.crop.rule": "none",
        "model.parser": None,
        "model.heads.regions": None,
        "model.heads.region_pooling": None,
        "model.losses.parts": None,
        "model.losses.global.weight": 1.0,
    },
    "ResNet-50 + crop": {
        "model.heads.regions": None,
        "model.heads.region_pooling": None,
        "model.losses.parts": None,
        "model.losses.global.weight": 1.0,
    },
    "lambda 0.5": {"model.losses.global.weight": 0.5, "model.losses.parts.weight": 0.5},
    "Eq. 2 as printed": {
        "model.heads.region_pooling.options.visibility": "area",
        "model.losses.parts.options.pixels": 192,
        "model.matcher.options.pixels": 192,
    },
    "Eq. 3 as printed": {"model.heads.region_pooling.options.denominator": "full"},
    "one convolution": {
        "model.heads.region_pooling.options.source": "global.projected",
        "model.heads.region_pooling.options.reduction": None,
    },
}


@pytest.mark.parametrize("row", ROWS_OF_THE_PAPER)
def test_every_row_of_the_paper_is_built_and_learns(row):
    overrides = ROWS_OF_THE_PAPER[row]
    without = "model.parser" in overrides
    sizes = {key: value for key, value in TINY.items() if not (without and key.startswith("model.parser"))}
    model = build_model("sgam_lite", num_classes=5, pretrained=False, **sizes, **overrides).train()
    images, labels = torch.randn(4, 3, HEIGHT, WIDTH), targets(4)
    values = model.criterion(model(images, labels), labels)
    values.total.backward()
    assert math.isfinite(values.total.item())
    assert any(p.grad is not None and p.grad.any() for p in model.backbone.parameters())
    rows = model.embed(images)
    assert torch.isfinite(model.matcher.distance(rows, rows)).all()


def test_the_recipe_without_its_parser_says_what_is_missing():
    with pytest.raises(BuildError, match="'regions' asks a human parser"):
        build_model("sgam_lite", **{**TINY, "model.parser.options": {}, "model.parser": None, "model.input.crop": {}})


def test_no_parser_says_how_to_get_one():
    with pytest.raises(BuildError, match=r"'regions' asks a human parser.*train-parser.*model\.parser\.weights"):
        RegionsHead(replace(info(name="regions"), parser=None))


class Silent(Bands):
    """A parser that has measured nothing."""

    def __init__(self) -> None:
        super().__init__()
        del self.reference


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": "region"}, "of head 'region', which does not come before it.*Did you mean 'regions'"),
        ({"visibility": "area", "reference": (0.1,) * 4}, "visibility 'area' takes no reference"),
        ({"threshold": 0.3}, "'ref' takes no threshold; those of Eq. 5 belong to the loss 'visible_part'"),
        ({"reference": (0.1, 0.2)}, "'region_pooling': reference holds 2 numbers for 4: head, upper_body"),
        ({"visibility": "binary", "threshold": (0.1,)}, "threshold holds 1 numbers for 4"),
        ({"reference": {"had": 0.1}}, "reference names 'had', which is none of.*Did you mean 'head'"),
        ({"visibility": "binary", "threshold": {"head": 0.1}}, "threshold lacks upper_body, lower_body, shoes. Name"),
        ({"on": "stage9"}, "asks for stage 'stage9'"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_built(options, message):
    with pytest.raises(BuildError, match=message):
        pooling(**options)


@pytest.mark.parametrize("mode", ["ref", "binary"])
def test_a_parser_without_measured_sizes_is_named(mode):
    with pytest.raises(BuildError, match=r"the parser \(Silent\) does not know it for 4 regions. Give reference"):
        pooling(Silent(), visibility=mode)
    assert pooling(Silent(), visibility="area")[1].info.slots
