"""OCNet's heads against loops over their own weights, their sizes by hand, and the system whole."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from occluded_reid import build_model
from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, StageInfo, Targets
from occluded_reid.errors import BuildError, RecipeError, UnknownOptionError
from occluded_reid.heads import CenterFocusHead, ConverterHead, RelationHead
from occluded_reid.registry import HEADS

STAGES = {"middle": StageInfo(6, 8), "last": StageInfo(12, 16)}
BEFORE = {
    "focus": HeadInfo(maps={"focused": MapInfo(12, 16)}),
    "other": HeadInfo(maps={"mask": MapInfo(2, 16)}, training_only=True),
    "global": HeadInfo(slots={"global": 5}),
    "parts": HeadInfo(slots={"top": 5, "bottom": 5}),
    "wide": HeadInfo(slots={"wide": 7}),
    "ghost": HeadInfo(slots={"ghost": 5}, training_only=True),
}


def info(name="branch", num_classes=4, size=(112, 64), heads=None) -> BuildInfo:
    return BuildInfo(STAGES, size, num_classes=num_classes, heads=BEFORE if heads is None else heads, name=name)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(count=3) -> FeatureMaps:
    stages = {"middle": random(count, 6, 14, 8, seed=1), "last": random(count, 12, 7, 4, seed=2)}
    return FeatureMaps(stages, torch.zeros(count, 3, 112, 64))


def trained(head: torch.nn.Module) -> torch.nn.Module:
    """The head in float64, with normalisations that do something."""
    generator = torch.Generator().manual_seed(9)
    for name, value in [*head.named_parameters(), *head.named_buffers()]:
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator)
            value.data = drawn.abs() + 0.5 if "running_var" in name else drawn
    return head.double().eval().requires_grad_(False)


def double(features: FeatureMaps) -> FeatureMaps:
    return FeatureMaps({name: grid.double() for name, grid in features.items()}, features.images)


def normalised(value: float, norm: torch.nn.Module, channel: int) -> float:
    """What a batch normalisation makes of a number in evaluation."""
    scale = float(norm.weight[channel]) / math.sqrt(float(norm.running_var[channel]) + norm.eps)
    return (value - float(norm.running_mean[channel])) * scale + float(norm.bias[channel])


def convert_loop(head: ConverterHead, grid: torch.Tensor, groups: int, activation: str) -> list[list[list[float]]]:
    """Values of each image and output channel at every position, from the head's own weights (kernel 1)."""
    convolution, norm = head.convert[0], head.convert[1]
    width, inside = convolution.weight.shape[:2]
    result = []
    for image in grid.tolist():
        channels = []
        for o in range(width):
            first = (o // (width // groups)) * inside  # the group of this output channel starts here
            weights = convolution.weight[o, :, 0, 0].tolist()
            cells = []
            for y in range(len(image[0])):
                for x in range(len(image[0][0])):
                    value = sum(w * image[first + c][y][x] for c, w in enumerate(weights))
                    value = normalised(value, norm, o)
                    cells.append(max(0.0, value) if activation == "relu" else value)
            channels.append(cells)
        result.append(channels)
    return result


def pooled_loop(cells: list[float], pooling: str, exponent: float) -> float:
    if pooling == "max":
        return max(cells)
    if pooling == "average":
        return sum(cells) / len(cells)
    return (sum(max(v, 1e-6) ** exponent for v in cells) / len(cells)) ** (1 / exponent)


@pytest.mark.parametrize("pooling", ["average", "max", "gem"])
@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_converter_is_a_loop_over_groups_and_cells(groups: int, activation, pooling) -> None:
    head = trained(ConverterHead(info(), width=8, groups=groups, activation=activation, pooling=pooling, classify=True))
    if head.exponent is not None:
        head.exponent.data.fill_(2.5)
    features = double(maps())
    output = head(features, {})
    for i, channels in enumerate(convert_loop(head, features["last"], groups, activation)):
        for o, cells in enumerate(channels):
            expected = pooled_loop(cells, pooling, 2.5)
            assert float(output.features["branch"][i, o]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
            assert float(output.embeddings["branch"][i, o]) == pytest.approx(
                normalised(expected, head.neck, o), rel=1e-9
            )
    logits = output.embeddings["branch"] @ head.classifier.weight.T
    torch.testing.assert_close(output.logits["branch"], logits)


def test_parts_are_bands_of_the_map() -> None:
    features = double(maps())
    # Seven rows in three bands: ⌊n·7/3 + ½⌋ gives 0, 2, 5, 7.
    for p, (start, stop) in enumerate([(0, 2), (2, 5), (5, 7)], start=1):
        head = trained(ConverterHead(info(), part=(p, 3), width=4, groups=2, kernel=1))
        cut = features["last"][:, :, start:stop]
        expected = [[sum(c) / len(c) for c in image] for image in convert_loop(head, cut, 2, "relu")]
        torch.testing.assert_close(head(features, {}).features["branch"], torch.tensor(expected, dtype=torch.float64))


def test_the_convolution_of_a_part_does_not_see_its_neighbour() -> None:
    head = trained(ConverterHead(info(), part=(1, 2), width=4, groups=1, kernel=3))
    grid = double(maps())["last"]
    changed = grid.clone()
    changed[:, :, 4:] += 1  # the upper half of seven rows is the first four
    outputs = [head(FeatureMaps({"last": g}, grid), {}).features["branch"] for g in (grid, changed)]
    assert torch.equal(*outputs)


def test_group_max_takes_the_largest_of_neighbouring_channels() -> None:
    head = trained(ConverterHead(info(), reading="group_max", width=4, activation="none", pooling="average"))
    grid = double(maps())["last"]
    output = head(FeatureMaps({"last": grid}, grid), {}).features["branch"]
    for i in range(3):
        for o in range(4):
            cells = []
            for y in range(7):
                for x in range(4):
                    value = max(float(grid[i, 3 * o + c, y, x]) for c in range(3))
                    cells.append(normalised(value, head.convert[1], o))
            assert float(output[i, o]) == pytest.approx(sum(cells) / 28, rel=1e-9)
    assert sum(p.numel() for p in head.parameters()) == 8, "scale and bias of the normalisation, nothing else"


def test_a_converter_reads_another_heads_map() -> None:
    head = ConverterHead(info(), source="focus.focused", width=4, groups=1).eval()
    given = random(3, 12, 7, 4, seed=5)
    read = head(maps(), {"focus": HeadOutput(maps={"focused": given})})
    direct = head.convert(given).mean((2, 3))
    torch.testing.assert_close(read.features["branch"], direct)


def test_what_a_converter_gives() -> None:
    plain = ConverterHead(info(), width=4, groups=1)
    assert plain.info == HeadInfo(slots={"branch": 4})
    assert isinstance(plain.neck, torch.nn.Identity), "nothing would train the neck of an unsupervised feature"
    assert plain.classifier is None
    assert plain.eval()(maps(), {}).logits == {}
    supervised = ConverterHead(info(), width=4, groups=1, classify=True, inference=True)
    assert supervised.info.inference_slots == ("branch",)
    assert not supervised.neck.bias.requires_grad
    assert supervised.classifier.bias is None
    before = ConverterHead(info(), width=4, groups=1, classify=True, match="before").eval()(maps(), {})
    assert before.embeddings["branch"] is before.features["branch"]
    inference = ConverterHead(info(num_classes=None), width=4, groups=1, classify=True)
    assert inference.classifier is None
    assert ConverterHead(info(), width=4, groups=1, classify=True, neck="bn").classifier.bias is not None
    assert ConverterHead(info(), width=4, groups=1, neck="bnneck").neck.weight.shape == (4,)


def test_sizes_by_hand() -> None:
    """d = 512, C = 2048, 32 groups, r = 2: each number written out."""
    stages = {"last": StageInfo(2048, 16)}
    made = BuildInfo(stages, (256, 128), num_classes=None, name="global")

    def size(head: torch.nn.Module) -> int:
        return sum(p.numel() for p in head.parameters())

    # 512 outputs of 2048/32 = 64 inputs each; scale and bias of BN2d.
    assert size(ConverterHead(made)) == 512 * 64 + 2 * 512 == 33_792
    # BNNeck: scale, and a bias that stays 0.
    assert size(ConverterHead(made, classify=True)) == 33_792 + 2 * 512
    heads = {name: HeadInfo(slots={name: 512}) for name in ("global", "top", "bottom", "center")}
    relation = BuildInfo(stages, (256, 128), num_classes=None, heads=heads, name="final")
    # FC1: 1024 → 256, FC2: 256 → 512, each with a bias; BNNeck of 2048.
    pair = 1024 * 256 + 256 + 256 * 512 + 512
    assert size(RelationHead(relation)) == pair + 2 * 2048 == 393_984 + 4096
    assert size(RelationHead(relation, ratio=1)) - 4096 == 1024 * 512 + 512 + 512 * 512 + 512
    assert size(RelationHead(relation, scalar=True)) - 4096 == 1024 * 256 + 256 + 256 + 1
    # 2048 → 128 → 2048
    assert size(RelationHead(relation, reading="se")) - 4096 == 2048 * 128 + 128 + 128 * 2048 + 2048
    assert size(RelationHead(relation, reading="se", scalar=True)) - 4096 == 2048 * 128 + 128 + 128 * 4 + 4
    assert size(CenterFocusHead(made)) == 0
    assert size(CenterFocusHead(made, score="conv1x1")) == 2048


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("scale", ["n", 1])
@pytest.mark.parametrize("score", ["mean", "max", "conv1x1"])
def test_center_focus_is_a_loop_over_the_middle_columns(score, scale, residual: bool) -> None:
    head = trained(CenterFocusHead(info("focus"), width=2, score=score, scale=scale, residual=residual))
    grid = double(maps())["last"]
    output = head(FeatureMaps({"last": grid}, grid), {})
    assert head.info.maps == {"focused": MapInfo(12, 16), "attention": MapInfo(1, 16)}
    for i in range(3):
        scores = {}
        for y in range(7):
            for x in (1, 2):
                column = [float(grid[i, c, y, x]) for c in range(12)]
                if score == "conv1x1":
                    weights = head.scoring.weight[0, :, 0, 0].tolist()
                    scores[y, x] = sum(w * v for w, v in zip(weights, column, strict=True))
                else:
                    scores[y, x] = sum(column) / 12 if score == "mean" else max(column)
        total = sum(math.exp(s) for s in scores.values())
        for y in range(7):
            for x in range(4):
                a = math.exp(scores[y, x]) / total if (y, x) in scores else 0.0
                assert float(output.maps["attention"][i, 0, y, x]) == pytest.approx(a, rel=1e-9)
                gain = (14 if scale == "n" else 1) * a + (1 if residual else 0)
                torch.testing.assert_close(output.maps["focused"][i, :, y, x], grid[i, :, y, x] * gain)


def test_center_focus_of_a_square_and_by_channels() -> None:
    grid = double(maps())["last"][:, :, :6]
    features = FeatureMaps({"last": grid}, grid)
    sized = info("focus", size=(96, 64))
    square = CenterFocusHead(sized, width=2, crop="square")(features, {}).maps
    assert (square["attention"][0, 0] > 0).nonzero().tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    gained = square["focused"] / grid - 1
    torch.testing.assert_close(gained.sum((2, 3)), torch.full((3, 12), 4.0, dtype=torch.float64))
    gated = CenterFocusHead(sized, width=2, reading="channel")(features, {}).maps
    v = (gated["attention"] * grid).sum((2, 3))
    torch.testing.assert_close(gated["focused"], grid * (1 + torch.sigmoid(v))[:, :, None, None])


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("heads", [("global", "parts"), ("parts", "global"), ("parts",)])
def test_relation_is_a_loop_over_pairs(heads: tuple[str, ...], residual: bool) -> None:
    head = trained(RelationHead(info("final"), heads=heads, residual=residual))
    context = {
        "global": HeadOutput(features={"global": random(3, 5, seed=1).double()}),
        "parts": HeadOutput(features={"top": random(3, 5, seed=2).double(), "bottom": random(3, 5, seed=3).double()}),
    }
    order = [(h, s) for h in heads for s in BEFORE[h].slots]
    branches = [context[h].features[s] for h, s in order]
    first, second = head.relate[0], head.relate[2]
    columns = []
    for i, mine in enumerate(branches):
        others = [f for j, f in enumerate(branches) if j != i]
        told = torch.zeros_like(mine)
        for other in others:
            hidden = torch.clamp(torch.cat([mine, other], 1) @ first.weight.T + first.bias, min=0)
            told += (hidden @ second.weight.T + second.bias) / len(others)
        columns.append(mine * ((1 if residual else 0) + 1 / (1 + torch.exp(-told))))
    expected = torch.cat(columns, 1)
    output = head(maps(), context)
    torch.testing.assert_close(output.features["final"], expected)
    for c in range(expected.shape[1]):
        value = normalised(float(expected[0, c]), head.neck, c)
        assert float(output.embeddings["final"][0, c]) == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(output.logits["final"], output.embeddings["final"] @ head.classifier.weight.T)
    assert head.info.slots == {"final": 5 * len(order)}
    assert head.info.inference_slots == ("final",)


def test_relation_has_an_alias_and_names_its_slot() -> None:
    made = HEADS.create("ram", info("final"), heads=("parts",), slot="corrected", match="before", neck="none")
    assert isinstance(made, RelationHead)
    assert made.info.slots == {"corrected": 10}
    context = {"parts": HeadOutput(features={"top": random(2, 5), "bottom": random(2, 5, seed=1)})}
    output = made(maps(), context)
    assert output.embeddings["corrected"] is output.features["corrected"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("converter", {"width": 8, "groups": 3}, r"12 channels to width 8 in 3 groups.*groups may be 1, 2, 4; or"),
        ("converter", {"width": 9, "groups": 4}, r"groups may be 1, 3; or change width"),
        ("converter", {"reading": "group_max", "width": 5}, r"5 groups of 12 channels.*width may be 1, 2, 3, 4, 6, 12"),
        ("converter", {"part": (0, 2), "width": 4, "groups": 1}, r"takes part \[0, 2\] of a map with 7 rows"),
        ("converter", {"part": (3, 2), "width": 4, "groups": 1}, r"p from 1 to P"),
        ("converter", {"part": (1, 8), "width": 4, "groups": 1}, r"P at most 7"),
        ("converter", {"source": "focus.focus"}, r"map 'focus\.focus', which no head.*Did you mean 'focus\.focused'"),
        ("converter", {"source": "other.mask"}, r"map 'other\.mask', which no head before it gives"),
        ("converter", {"source": "focus.focused", "on": "middle"}, r"both on: middle and source: focus\.focused"),
        ("converter", {"on": "lst"}, r"stage 'lst'.*Did you mean 'last'"),
        ("center_focus", {"width": 3}, r"head 'branch' on last, for images of 112×64: .* 7×4 cells.*fit: 2, 4"),
        ("center_focus", {"width": 6}, r"fit: 2, 4"),
        ("center_focus", {"width": 2, "crop": "square"}, r"rows and columns.*fit: none"),
        ("relation", {"heads": ("globl",)}, r"relates head 'globl'.*Did you mean 'global'"),
        ("relation", {"heads": ("focus",)}, r"head 'focus', which has no slots"),
        ("relation", {"heads": ("ghost", "global")}, r"head 'ghost', which exists in training only"),
        ("relation", {"heads": ("global", "wide")}, r"features of one width; it was given global 5, wide 7"),
        ("relation", {"heads": ()}, r"it was given none"),
        ("relation", {"heads": ("global",)}, r"give one feature.*include_self: true or reading: se"),
        ("relation", {"heads": ("parts",), "reading": "se", "include_self": True}, r"'se' has no pairs"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_built(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        HEADS.create(kind, info(), **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("converter", {"kernel": 2}),
        ("converter", {"groups": 0}),
        ("converter", {"width": 0}),
        ("center_focus", {"width": 0}),
        ("center_focus", {"scale": 2}),
        ("relation", {"ratio": 0}),
    ],
)
def test_values_that_make_no_sense(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(UnknownOptionError, match=f"'{next(iter(options))}' was given"):
        HEADS.create(kind, info(), **options)


def test_a_head_without_features_before_the_neck_is_named() -> None:
    head = RelationHead(info("final"), heads=("parts",))
    with pytest.raises(BuildError, match="head 'parts' does not give for its slot 'bottom'"):
        head(maps(), {"parts": HeadOutput(features={"top": random(3, 5)})})


TINY = {
    "model.input": {"height": 96, "width": 64},
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
    **{f"model.heads.{name}.options.width": 16 for name in ("global", "top", "bottom", "center")},
    **{f"model.heads.{name}.options.groups": 8 for name in ("global", "top", "bottom", "center")},
}
BRANCHES = ("final", "backbone", "global", "center")


def tiny(num_classes: int | None = 6, **overrides: Any):
    torch.manual_seed(0)
    return build_model("ocnet_lite", num_classes=num_classes, **{**TINY, **overrides})


def batch(classes: int = 6) -> tuple[torch.Tensor, Targets]:
    images = random(2 * classes, 3, 96, 64, seed=4)
    return images, Targets(torch.arange(2 * classes) % classes, torch.zeros(2 * classes, dtype=torch.long))


def test_every_named_part_is_in_the_sum_and_starts_at_chance() -> None:
    model = tiny()
    images, targets = batch()
    values = model.criterion(model(images, targets), targets)
    weights = {"final": 0.8, "backbone": 0.5, "global": 0.25, "center": 0.25}
    assert set(values.named) == {f"{kind}_{b}" for kind in ("identity", "triplet") for b in BRANCHES} | {"separation"}
    expected = float(values.named["separation"].detach())
    for branch, weight in weights.items():
        identity, triplet = (float(values.named[f"{kind}_{branch}"].detach()) for kind in ("identity", "triplet"))
        assert identity == pytest.approx(math.log(6), abs=0.05), branch
        assert triplet > 0, branch
        expected += weight * (identity + triplet)
    assert float(values.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(values.named["separation"].detach()) >= 2, "two parts behind a ReLU"


def test_separation_falls_below_2_only_without_relu() -> None:
    images, targets = batch()
    off = {f"model.heads.{name}.options.activation": "none" for name in ("global", "top", "bottom")}
    alone = {f"model.losses.{kind}_{b}.weight": 0.0 for kind in ("identity", "triplet") for b in BRANCHES}
    ends = []
    for overrides in ({}, off):
        model = tiny(**alone, **overrides)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(8):
            values = model.criterion(model(images, targets), targets)
            optimizer.zero_grad()
            values.total.backward()
            optimizer.step()
        ends.append(float(values.named["separation"].detach()))
    assert ends[0] >= 2
    assert ends[1] < 2


def test_every_parameter_learns() -> None:
    model = tiny()
    images, targets = batch()
    model.criterion(model(images, targets), targets).total.backward()
    silent = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent


def test_inference_gives_final_and_backbone() -> None:
    model = tiny(None)
    assert model.slots == {"backbone": 64, "final": 64}
    rows = model.embed(batch()[0][:3])
    assert torch.equal(rows.visibility, torch.ones(3, 2))
    a, b = (rows.slot(s) / rows.slot(s).norm(dim=1, keepdim=True) for s in ("final", "backbone"))
    paper = torch.cdist(a, a) + torch.cdist(b, b)
    torch.testing.assert_close(model.matcher.distance(rows, rows), paper, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "overrides",
    [
        {"model.heads.final.options": {"reading": "se"}},
        {"model.heads.final.options": {"activation": "softmax", "scalar": True, "residual": True}},
        {"model.heads.center_focus.options": {"reading": "channel", "width": 4}},
        {"model.heads.center_focus.options": {"score": "conv1x1", "width": 2}},
        {"model.heads.top.options.pooling": "gem", "model.heads.bottom.options.kernel": 3},
        {
            "model.heads.top.options.neck": "bnneck",
            "model.heads.bottom.options.neck": "bnneck",
            "model.losses.separation.options.side": "after",
        },
        {f"model.heads.{n}.options.reading": "group_max" for n in ("global", "top", "bottom", "center")},
    ],
)
def test_other_readings_train_too(overrides: dict[str, Any]) -> None:
    model = tiny(**overrides)
    images, targets = batch()
    values = model.criterion(model(images, targets), targets)
    values.total.backward()
    assert torch.isfinite(values.total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def three_parts() -> dict[str, Any]:
    return {
        "model.heads.top.options.part": [1, 3],
        "model.heads.middle": {
            "type": "converter",
            "before": "bottom",
            "options": {"part": [2, 3], "width": 16, "groups": 8},
        },
        "model.heads.bottom.options.part": [3, 3],
        "model.heads.final.options.heads": ["global", "top", "middle", "bottom", "center"],
        "model.losses.separation.options.parts": ["top", "middle", "bottom"],
    }


def without_center() -> dict[str, Any]:
    names = ("heads.center", "heads.center_focus", "losses.identity_center", "losses.triplet_center")
    return {f"model.{name}": None for name in names}


SOME = {"model.heads.final": {"type": "concat", "options": {"heads": ["global", "top", "bottom"]}}}
VECTORS = {"model.heads.final.options.use": "vectors"}
NO_SL = {"model.losses.separation": None}
TABLE_2 = {
    "3: concatenation": {**SOME, **without_center(), **NO_SL},
    "4: concatenation, SL": {**SOME, **without_center()},
    "5: relation network, concatenation, CFM": {**VECTORS, **NO_SL},
    "6: relation network, concatenation, CFM, SL": VECTORS,
    "7: CFM, RAM": NO_SL,
    "8: SL, RAM": {**without_center(), "model.heads.final.options.heads": ["global", "top", "bottom"]},
    "9: all": {},
}
TABLE_3 = {
    "1 part": {
        "model.heads.top.options.part": [1, 1],
        "model.heads.bottom": None,
        "model.heads.final.options.heads": ["global", "top", "center"],
        "model.losses.separation.options.parts": ["top"],
    },
    "3 parts": three_parts(),
    "4 parts": {
        "model.heads.top.options.part": [1, 4],
        "model.heads.upper": {"type": "converter", "before": "bottom", "options": {"part": [2, 4], "width": 16}},
        "model.heads.lower": {"type": "converter", "before": "bottom", "options": {"part": [3, 4], "width": 16}},
        "model.heads.upper.options.groups": 8,
        "model.heads.lower.options.groups": 8,
        "model.heads.bottom.options.part": [4, 4],
        "model.heads.final.options.heads": ["global", "top", "upper", "lower", "bottom", "center"],
        "model.losses.separation.options.parts": ["top", "upper", "lower", "bottom"],
    },
    "W 4": {"model.heads.center_focus.options.width": 4},
    "gamma 5": {"model.losses.separation.weight": 5.0},
}
WIDTHS = {
    "3: concatenation": 48,
    "4: concatenation, SL": 48,
    "8: SL, RAM": 48,
    "1 part": 48,
    "3 parts": 80,
    "4 parts": 96,
}


@pytest.mark.parametrize("row", [*TABLE_2, *TABLE_3])
def test_every_row_of_the_papers_tables_learns(row: str) -> None:
    overrides = {**TABLE_2, **TABLE_3}[row]
    gone = [key for key, value in overrides.items() if value is None]
    sizes = {key: value for key, value in TINY.items() if not any(key.startswith(f"{each}.") for each in gone)}
    torch.manual_seed(0)
    model = build_model("ocnet_lite", num_classes=6, pretrained=False, **{**sizes, **overrides})
    assert model.slots == {"backbone": 64, "final": WIDTHS.get(row, 64)}
    images, targets = batch()
    values = model.criterion(model(images, targets), targets)
    values.total.backward()
    assert torch.isfinite(values.total)
    silent = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent
    rows = model.embed(images)
    assert torch.isfinite(model.matcher.distance(rows, rows)).all()


def test_the_center_alone_is_a_baseline_whose_map_is_focused() -> None:
    """Table 2, row 2: what BoT classifies is F_c."""
    model = build_model(
        "bot_lite",
        num_classes=6,
        pretrained=False,
        **{
            "model.input": {"height": 96, "width": 64},
            "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
            "model.heads.center_focus": {"type": "center_focus", "before": "global", "options": {"width": 2}},
            "model.heads.global.options.source": "center_focus.focused",
        },
    )
    assert list(model.parts) == ["center_focus", "global"]
    images, targets = batch()
    output = model(images, targets)
    focused = output["center_focus"].maps["focused"]
    projected = model.parts["global"].project(focused)
    torch.testing.assert_close(output["global"].features["global"], projected.mean((2, 3)))
    model.criterion(output, targets).total.backward()


def test_concatenated_features_stand_side_by_side() -> None:
    head = trained(HEADS.create("concat", info("final"), heads=("global", "parts", "wide")))
    assert head.info.slots == {"final": 5 + 10 + 7}
    places = (("global", "global"), ("parts", "top"), ("parts", "bottom"), ("wide", "wide"))
    given = [random(3, width, seed=k).double() for k, width in enumerate((5, 5, 5, 7))]

    def run(*values: torch.Tensor) -> HeadOutput:
        context: dict[str, HeadOutput] = {}
        for (name, slot), value in zip(places, values, strict=True):
            context.setdefault(name, HeadOutput()).features[slot] = value
        return head(maps(), context)

    output = run(*given)
    for n in range(3):
        row: list[float] = []
        for value in given:
            row += value[n].tolist()
        assert output.features["final"][n].tolist() == row
        for c, value in enumerate(row):
            expected = normalised(value, head.neck, c)
            assert float(output.embeddings["final"][n, c]) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(output.logits["final"], output.embeddings["final"] @ head.classifier.weight.T)
    assert torch.autograd.gradcheck(
        lambda *values: run(*values).logits["final"], tuple(value.requires_grad_() for value in given)
    )
    with pytest.raises(BuildError, match=r"concatenates head 'middel'.*before: final"):
        HEADS.create("concat", info("final"), heads=("global", "middel"))
    with pytest.raises(BuildError, match="concatenates features; it was given none"):
        HEADS.create("concat", info("final"), heads=())


def test_relation_vectors_take_the_place_of_the_features() -> None:
    """Rows 5 and 6: the mean over the others of FC2(ReLU(FC1([f_i ; f_j]))), in loops over both weights."""
    head = trained(HEADS.create("relation", info("final"), heads=("global", "parts"), use="vectors"))
    branches = [random(3, 5, seed=k).double() for k in range(3)]
    context = {
        "global": HeadOutput(features={"global": branches[0]}),
        "parts": HeadOutput(features={"top": branches[1], "bottom": branches[2]}),
    }
    first, second = head.relate[0], head.relate[2]
    found = head(maps(), context).features["final"]
    assert found.shape == (3, 15)
    for n in range(3):
        for i in range(3):
            for d in range(5):
                total = 0.0
                for j in range(3):
                    if j == i:
                        continue
                    pair = branches[i][n].tolist() + branches[j][n].tolist()
                    hidden = [
                        max(0.0, sum(float(w) * x for w, x in zip(weight, pair, strict=True)) + float(b))
                        for weight, b in zip(first.weight, first.bias, strict=True)
                    ]
                    told = sum(float(w) * h for w, h in zip(second.weight[d], hidden, strict=True))
                    total += (told + float(second.bias[d])) / 2
                assert float(found[n, 5 * i + d]) == pytest.approx(total, rel=1e-9, abs=1e-12)
    with pytest.raises(BuildError, match="use: vectors has none"):
        HEADS.create("relation", info("final"), heads=("global", "parts"), use="vectors", residual=True)


def test_an_inserted_head_whose_source_is_missing_says_what_to_do() -> None:
    with pytest.raises(RecipeError, match=r"middle\.before: there is no other head 'botom'.*Did you mean 'bottom'"):
        tiny(**{"model.heads.middle": {"type": "converter", "before": "botom"}})
    source = {"source": "center_focus.focused", "width": 16, "groups": 8}
    with pytest.raises(BuildError, match=r"map 'center_focus\.focused', which no head.*takes before: NAME"):
        tiny(**{"model.heads.again": {"type": "converter", "before": "center_focus", "options": source}})
    with pytest.raises(BuildError, match=r"relates head 'middle', which does not come before it.*before: final"):
        tiny(**{"model.heads.middle": "converter", "model.heads.final.options.heads": ["global", "middle"]})


def test_three_parts_are_one_head_more() -> None:
    model = tiny(
        **{
            "model.heads.top.options.part": [1, 3],
            "model.heads.bottom.options.part": [3, 3],
            "model.heads.final": None,
            "model.losses.separation.options.parts": ["top", "middle", "bottom"],
        }
        | {
            "model.heads.middle": {"type": "converter", "options": {"part": [2, 3], "width": 16, "groups": 8}},
            "model.heads.corrected": {
                "type": "relation",
                "options": {"heads": ["global", "top", "middle", "bottom", "center"]},
            },
            "model.losses.identity_final.on": "corrected",
            "model.losses.triplet_final.on": "corrected",
        }
    )
    assert model.slots["final"] == 80
    images, targets = batch()
    assert float(model.criterion(model(images, targets), targets).named["separation"].detach()) >= 3


def test_the_whole_system_says_what_does_not_fit() -> None:
    with pytest.raises(BuildError, match="groups may be 1, 2, 4, 8, 16; or change width"):
        tiny(**{"model.heads.global.options.groups": 32})
    with pytest.raises(BuildError, match=r"of 6×4 cells.*fit: 2, 4"):
        tiny(**{"model.heads.center_focus.options.width": 3})
    with pytest.raises(BuildError, match="loss 'identity_center' works on head 'center'"):
        tiny(**{"model.heads.center": None, "model.heads.final.options.heads": ["global", "top", "bottom"]})
    with pytest.raises((BuildError, RecipeError), match=r"map 'center_focus\.focused', which no head"):
        tiny(**{"model.heads.center_focus": None})


def test_the_papers_shapes() -> None:
    model = build_model("ocnet")
    assert model.slots == {"backbone": 2048, "final": 2048}
    output = model.infer(torch.zeros(1, 3, 256, 128))
    assert output["center_focus"].maps["focused"].shape == (1, 2048, 16, 8)
    attention = output["center_focus"].maps["attention"][0, 0]
    assert int((attention > 0).sum()) == 32
    assert (attention[:, 3:5] > 0).all()
