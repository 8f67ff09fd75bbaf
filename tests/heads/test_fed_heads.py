"""FED's heads against the plainest loops over their own weights, and what they refuse."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, StageInfo, Targets
from occluded_reid.errors import BuildError, MaskError
from occluded_reid.heads import ClassTokenHead, FeatureDiffusionHead, MemoryHead, OcclusionErasingHead

STAGES = {"fine": StageInfo(4, 8), "last": StageInfo(6, 16)}
PARTS, WIDTH, CLASSES = 3, 6, 5


def info(num_classes: int | None = CLASSES, heads: Any = None, size=(112, 32), token: int | None = 8) -> BuildInfo:
    return BuildInfo(
        stages=STAGES, input_size=size, num_classes=num_classes, heads=heads or {}, name="head", class_token=token
    )


def maps(count: int = 4, seed: int = 0, token: bool = True) -> FeatureMaps:
    generator = torch.Generator().manual_seed(seed)
    stages = {
        "fine": torch.randn(count, 4, 14, 4, generator=generator).double(),
        "last": torch.randn(count, 6, 7, 2, generator=generator).double(),
    }
    class_token = torch.randn(count, 8, generator=generator).double() if token else None
    return FeatureMaps(stages, torch.zeros(count, 3, 112, 32), class_token)


def views(images: int = 2, identity: list[int] | None = None) -> Targets:
    """The second view of the first image is occluded over its top band, the other images' over their lowest one."""
    mask = torch.zeros(2 * images, 112, 32)
    mask[images:, 90:] = 1
    mask[images] = 0
    mask[images, :20] = 1
    labels = torch.tensor(identity or list(range(images)))
    return Targets(
        labels.repeat(2),
        torch.zeros(2 * images, dtype=torch.long),
        occlusion_mask=mask,
        view=torch.tensor([0] * images + [1] * images),
    )


def make(kind: type, *args: Any, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    head = kind(*args, **options).double()
    for module in head.modules():  # weights that are no identities, so that leaving one out would be seen
        if isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return head


# --- class token -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "width"), [("cls", 8), ("first_patch", 6), ("pool", 6)])
def test_the_token_is_classified_as_it_is(token: str, width: int) -> None:
    head, features = make(ClassTokenHead, info(), token=token, inference=False), maps()
    output = head(features, {})
    expected = {
        "cls": features.class_token,
        "first_patch": features["last"][:, :, 0, 0],
        "pool": features["last"].flatten(2).mean(2),
    }[token]
    torch.testing.assert_close(output.features["global"], expected)
    torch.testing.assert_close(output.embeddings["global"], expected)
    torch.testing.assert_close(output.logits["global"], expected @ head.classifier.weight.T)
    assert head.classifier.bias is None
    assert head.info == HeadInfo(slots={"global": width}, inference_slots=())


@pytest.mark.parametrize("match", ["before", "after"])
def test_the_vit_baseline_classifies_after_a_neck(match: str) -> None:
    head, features = make(ClassTokenHead, info(), neck="bnneck", match=match, slot="token").train(), maps()
    output = head(features, {})
    token = features.class_token
    assert token is not None
    necked = (token - token.mean(0)) / (token.var(0, unbiased=False) + 1e-5).sqrt() * head.neck.weight
    torch.testing.assert_close(output.logits["token"], necked @ head.classifier.weight.T)
    torch.testing.assert_close(output.embeddings["token"], token if match == "before" else necked)
    torch.testing.assert_close(output.features["token"], token)
    assert not head.neck.bias.requires_grad
    assert head.info.inference_slots == ("token",)


def test_a_backbone_without_class_token() -> None:
    with pytest.raises(BuildError, match=r"which this backbone does not have.*set token: pool"):
        ClassTokenHead(info(token=None))
    assert ClassTokenHead(info(None, token=None), token="pool").classifier is None
    with pytest.raises(BuildError, match="announced and did not give"):
        make(ClassTokenHead, info())(maps(token=False), {})


# --- occlusion erasing -----------------------------------------------------------------------------------------------


def pooled_by_loops(grid: Tensor) -> Tensor:
    """Means over the bands 0-2, 2-5, 5-7 of seven rows."""
    result = torch.zeros(len(grid), PARTS, grid.shape[1], dtype=grid.dtype)
    for p, (start, stop) in enumerate([(0, 2), (2, 5), (5, 7)]):
        for i in range(len(grid)):
            for c in range(grid.shape[1]):
                cells = [float(grid[i, c, y, x]) for y in range(start, stop) for x in range(grid.shape[3])]
                result[i, p, c] = sum(cells) / len(cells)
    return result


@torch.no_grad()
def scored_by_loops(head: OcclusionErasingHead, pooled: Tensor) -> Tensor:
    """s_p = σ(W₂ LN(W₁ F_p + b₁) + b₂)."""
    result = torch.zeros(pooled.shape[:2], dtype=pooled.dtype)
    for p, scorer in enumerate(head.scorers):
        narrow, norm, last = (scorer[k] for k in range(3))  # type: ignore[index]
        for i in range(len(pooled)):
            hidden = [
                float(sum(narrow.weight[h, c] * pooled[i, p, c] for c in range(pooled.shape[2])) + narrow.bias[h])
                for h in range(narrow.out_features)
            ]
            mean = sum(hidden) / len(hidden)
            spread = math.sqrt(sum((x - mean) ** 2 for x in hidden) / len(hidden) + 1e-5)
            normed = [(x - mean) / spread * float(norm.weight[h]) + float(norm.bias[h]) for h, x in enumerate(hidden)]
            score = sum(float(last.weight[0, h]) * x for h, x in enumerate(normed)) + float(last.bias[0])
            result[i, p] = 1 / (1 + math.exp(-score))
    return result


@torch.no_grad()
def normed_by_loops(norm: nn.BatchNorm1d, rows: Tensor, training: bool) -> Tensor:
    result = torch.zeros_like(rows)
    for c in range(rows.shape[1]):
        column = rows[:, c].tolist()
        mean, variance = float(norm.running_mean[c]), float(norm.running_var[c])  # type: ignore[index]
        if training:
            mean = sum(column) / len(column)
            variance = sum((x - mean) ** 2 for x in column) / len(column)
        for i, x in enumerate(column):
            result[i, c] = (x - mean) / math.sqrt(variance + 1e-5) * float(norm.weight[c])
    return result


def erasing(seed: int = 0, num_classes: int | None = CLASSES, **options: Any) -> OcclusionErasingHead:
    head: OcclusionErasingHead = make(
        OcclusionErasingHead, info(num_classes), parts=PARTS, reduction=2, seed=seed, **options
    )
    generator = torch.Generator().manual_seed(seed + 1)
    for norm in head.norms.norms:
        norm.running_mean.uniform_(-1, 1, generator=generator)  # type: ignore[union-attr, operator]
        norm.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr, operator]
    return head


@pytest.mark.parametrize("erase", ["soft", "hard", "none"])
def test_erasing_is_a_loop_over_parts(erase: str) -> None:
    head, features = erasing(erase=erase).eval(), maps()
    output = head(features, {})
    pooled = pooled_by_loops(features["last"])
    scores = scored_by_loops(head, pooled)
    weights = {"soft": scores, "hard": (scores >= 0.5).double(), "none": torch.ones_like(scores)}[erase]
    erased = pooled * weights[:, :, None]
    parts = [normed_by_loops(head.norms.norms[p], erased[:, p], False) for p in range(PARTS)]  # type: ignore[arg-type]
    torch.testing.assert_close(output.maps["scores"][:, :, 0, 0], scores)
    torch.testing.assert_close(output.features["erased"], erased.flatten(1))
    torch.testing.assert_close(output.embeddings["erased"], torch.cat(parts, 1))
    assert head.classifier is not None
    torch.testing.assert_close(output.logits["erased"], torch.cat(parts, 1) @ head.classifier.weight.T)
    assert output.visibility == {}, "the scores are inside the embedding already"
    plain = [normed_by_loops(head.norms.norms[p], pooled[:, p], False) for p in range(PARTS)]  # type: ignore[arg-type]
    torch.testing.assert_close(head.initial_embeddings(features), torch.cat(plain, 1))


@pytest.mark.parametrize("bn_views", ["joint", "apart"])
def test_views_share_a_pass_of_batch_normalisation_or_not(bn_views: str) -> None:
    head, features, targets = erasing(bn_views=bn_views).train(), maps(6), views(3)
    before = copy.deepcopy(head.norms)
    order = torch.tensor([3, 0, 4, 1, 5, 2])  # the views need not lie in two blocks
    shuffled = Targets(targets.identity[order], targets.camera, view=targets.view[order])  # type: ignore[index]
    output = head(FeatureMaps({"last": features["last"][order]}, features.images), {}, shuffled)
    erased = output.features["erased"].detach().view(6, PARTS, WIDTH)
    view = shuffled.view
    assert view is not None
    passes = [torch.ones(6, dtype=torch.bool)] if bn_views == "joint" else [view == 0, view == 1]
    for p in range(PARTS):
        for rows in passes:
            norm = before.norms[p]
            expected = normed_by_loops(norm, erased[rows, p], True)  # type: ignore[arg-type]
            given = output.embeddings["erased"].view(6, PARTS, WIDTH)[rows, p]
            torch.testing.assert_close(given, expected)
            mean, variance = erased[rows, p].mean(0), erased[rows, p].var(0)
            norm.running_mean.mul_(0.9).add_(0.1 * mean)  # type: ignore[operator, union-attr]
            norm.running_var.mul_(0.9).add_(0.1 * variance)  # type: ignore[operator, union-attr]
        torch.testing.assert_close(head.norms.norms[p].running_mean, before.norms[p].running_mean)
        torch.testing.assert_close(head.norms.norms[p].running_var, before.norms[p].running_var)


def test_apart_and_joint_are_the_same_at_inference() -> None:
    joint, apart = erasing(bn_views="joint").eval(), erasing().eval()
    assert (joint.norms.views, apart.norms.views) == ("joint", "apart")
    apart.load_state_dict(joint.state_dict())
    first, second = (head(maps(6), {}, views(3)).embeddings["erased"] for head in (joint, apart))
    assert torch.equal(first, second)


def test_true_masks_erase_in_training_only() -> None:
    head, features, targets = erasing(scores="mask").train(), maps(), views(2)
    output = head(features, {}, targets)
    pooled = pooled_by_loops(features["last"])
    visible = torch.tensor([[1.0, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(output.features["erased"].view(4, PARTS, WIDTH), pooled * visible[:, :, None])
    with pytest.raises(MaskError, match="takes its scores from occlusion masks, and this batch has none"):
        head(features, {}, Targets(targets.identity, targets.camera))
    scores = scored_by_loops(head, pooled)
    given = head.eval()(features, {}).features["erased"].view(4, PARTS, WIDTH)
    torch.testing.assert_close(given, pooled * scores[:, :, None])


def test_slots_of_their_own_carry_the_scores_as_visibility() -> None:
    whole, apart = erasing().eval(), erasing(slots="per_part").eval()
    first, second = whole(maps(), {}), apart(maps(), {})
    names = ("part_1", "part_2", "part_3")
    assert apart.info.inference_slots == apart.info.visibility_of == names
    assert torch.equal(torch.cat([second.embeddings[name] for name in names], 1), first.embeddings["erased"])
    for p, name in enumerate(names):
        assert torch.equal(second.visibility[name], second.maps["scores"][:, p, 0, 0])
        assert not second.visibility[name].requires_grad
    assert torch.equal(second.logits["erased"], first.logits["erased"])


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((112, 32), {"parts": 8}, r"into 8 parts, but for images of 112×32 that map is 7×2.*last_stride: 1"),
        ((112, 32), {"reduction": 7}, "6 channels cannot be reduced 7 times"),
        ((100, 32), {"scores": "mask"}, "masks of 100 rows over a map of 7 rows"),
    ],
)
def test_what_erasing_refuses(size: tuple[int, int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        OcclusionErasingHead(info(size=size), **options)


# --- memory ----------------------------------------------------------------------------------------------------------


def before(head: OcclusionErasingHead) -> dict[str, HeadInfo]:
    return {"erasing": head.info}


def memory(seed: int = 0, **options: Any) -> MemoryHead:
    head: MemoryHead = make(MemoryHead, info(heads=before(erasing())), source="erasing", **options)
    if head.share_with is None:
        head.bank.normal_(generator=torch.Generator().manual_seed(seed))
    return head.train()


def source(seed: int = 3, count: int = 6) -> HeadOutput:
    rows = torch.randn(count, PARTS * WIDTH, generator=torch.Generator().manual_seed(seed)).double()
    return HeadOutput(
        embeddings={"erased": (rows.requires_grad_() * 1)},
        maps={"scores": torch.rand(count, PARTS, 1, 1, generator=torch.Generator().manual_seed(seed + 1)).double()},
    )


@pytest.mark.parametrize("update_views", ["clean", "all"])
def test_all_views_see_the_bank_before_the_batch_and_clean_views_move_it(update_views: str) -> None:
    head, given, targets = memory(update_views=update_views), source(), views(3, [4, 1, 4])
    bank = head.bank.clone()
    output = head(maps(6), {"erasing": given}, targets)
    rows = given.embeddings["erased"].detach()
    expected = (rows / rows.norm(dim=1, keepdim=True)) @ (bank / bank.norm(dim=1, keepdim=True)).T / 0.05
    torch.testing.assert_close(output.logits["memory"], expected)
    assert torch.equal(head.bank, bank), "nothing moves in a forward pass"
    output.logits["memory"].square().sum().backward()
    for i in range(3 if update_views == "clean" else 6):
        y = int(targets.identity[i])
        bank[y] = 0.2 * bank[y] + 0.8 * rows[i]
    torch.testing.assert_close(head.bank, bank)
    assert list(head.parameters()) == []
    assert head.info.training_only


def test_the_gradient_reaches_the_embedding_alone() -> None:
    head, given = memory(), source()
    bank = head.bank.clone()
    weights = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad(
        (head(maps(6), {"erasing": given}, views(3)).logits["memory"] * weights).sum(), given.embeddings["erased"]
    )
    rows = given.embeddings["erased"].detach().requires_grad_()
    similar = nn.functional.cosine_similarity(rows[:, None], bank[None], dim=2) / 0.05
    (similar * weights).sum().backward()
    torch.testing.assert_close(gradient, rows.grad)
    assert not head.bank.requires_grad


def test_mixed_precision_does_not_round_the_logits() -> None:
    head, targets = memory().float(), views(3)
    rows = source().embeddings["erased"].float()
    exact = head(maps(6), {"erasing": HeadOutput(embeddings={"erased": rows})}, targets).logits["memory"]
    with torch.autocast("cpu", torch.bfloat16):
        given = head(maps(6), {"erasing": HeadOutput(embeddings={"erased": rows})}, targets).logits["memory"]
    assert torch.equal(given, exact)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_an_embedding_that_is_not_finite_moves_nothing(broken: float) -> None:
    head, given = memory(), source()
    bank = head.bank.clone()
    with torch.no_grad():
        given.embeddings["erased"][5, 0] = broken  # an occluded view: even so, the step is lost
    head(maps(6), {"erasing": given}, views(3)).logits["memory"].sum().backward()
    assert torch.equal(head.bank, bank)


def test_without_a_backward_pass_nothing_moves() -> None:
    head, given = memory(), source()
    bank = head.bank.clone()
    with torch.no_grad():
        head(maps(6), {"erasing": source()}, views(3))
    head(maps(6), {"erasing": given})  # nobody says who they are
    given.embeddings["erased"].sum().backward()
    head.eval()(maps(6), {"erasing": (again := source())}, views(3))
    again.embeddings["erased"].sum().backward()
    assert torch.equal(head.bank, bank)


def test_a_shared_bank_is_one_tensor_that_the_later_head_moves_first() -> None:
    first = memory()
    heads = {**before(erasing()), "memory": first.info, "later": HeadInfo(slots={"diffused": PARTS * WIDTH})}
    second = make(MemoryHead, info(heads=heads), source="later", share_with="memory").train()
    assert not second.state_dict()
    given, targets = source(), views(3)
    later = HeadOutput(embeddings={"diffused": given.embeddings["erased"] * 2 + 1})
    context = {"erasing": given, "later": later}
    context["memory"] = first(maps(6), context, targets)
    bank = first.bank.clone()
    logits = second(maps(6), context, targets).logits["memory"]
    (logits.sum() + context["memory"].logits["memory"].sum()).backward()
    for rows in (later.embeddings["diffused"].detach(), given.embeddings["erased"].detach()):
        for i in range(3):
            y = int(targets.identity[i])
            bank[y] = 0.2 * bank[y] + 0.8 * rows[i]
    torch.testing.assert_close(first.bank, bank)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"source": "erasin"},
            "compares embeddings of head 'erasin', which does not come before it. Did you mean 'eras",
        ),
        ({"source": "bare"}, "'bare', which gives no slots"),
        ({"source": "narrow", "start": "erasing"}, "gives embeddings of 4, but head 'erasing' gives 18"),
        ({"source": "passing"}, "starts from head 'passing', which exists in training only.*Set start"),
        ({"source": "erasing", "share_with": "bare"}, "shares the bank of head 'bare', which is no memory before it"),
        ({"source": "narrow", "share_with": "memory"}, "embeddings of 4, but the bank of 'memory' has 18"),
    ],
)
def test_what_a_memory_refuses(options: dict[str, Any], message: str) -> None:
    heads = {
        **before(erasing()),
        "memory": memory().info,
        "bare": HeadInfo(),
        "narrow": HeadInfo(slots={"narrow": 4}),
        "passing": HeadInfo(slots={"passing": 18}, training_only=True),
    }
    with pytest.raises(BuildError, match=message):
        MemoryHead(info(heads=heads), **options)


# --- feature diffusion -----------------------------------------------------------------------------------------------


def diffusion(start: OcclusionErasingHead, num_classes: int | None = CLASSES, **options: Any) -> FeatureDiffusionHead:
    heads = {**before(start), "memory": memory().info}
    return make(FeatureDiffusionHead, info(num_classes, heads=heads), **{"heads": 2, "neighbours": 3, **options})


@torch.no_grad()
def fed_by_loops(net: Any, token: list[float], residual: bool) -> list[float]:
    """LayerNorm → Linear → first half · GELU(second half) → Linear."""

    def linear(layer: Any, row: list[float]) -> list[float]:
        weight, bias = layer.weight.tolist(), layer.bias.tolist()
        return [sum(w * x for w, x in zip(weight[o], row, strict=True)) + bias[o] for o in range(len(bias))]

    mean = sum(token) / len(token)
    spread = math.sqrt(sum((x - mean) ** 2 for x in token) / len(token) + 1e-5)
    scale, shift = net.norm.weight.tolist(), net.norm.bias.tolist()
    wide = linear(net.widen, [(x - mean) / spread * scale[d] + shift[d] for d, x in enumerate(token)])
    half = len(wide) // 2
    gated = [wide[d] * wide[half + d] * 0.5 * (1 + math.erf(wide[half + d] / math.sqrt(2))) for d in range(half)]
    narrow = linear(net.narrow, gated)
    return [x + y for x, y in zip(narrow, token, strict=True)] if residual else narrow


@torch.no_grad()
def attended_by_loops(head: FeatureDiffusionHead, z: Tensor, bank: Tensor, own: int, scale: float) -> list[float]:
    """Cosine search without the own identity, and attention head by head over what is found."""
    size = len(z)
    unit = [centroid / centroid.norm() for centroid in bank]
    order = sorted(range(len(bank)), key=lambda c: -float(z @ unit[c]))[: head.neighbours + 1]
    others = [c for c in order if c != own][: head.neighbours]
    asked = head.ask.weight @ z
    offered = [head.offer.weight @ unit[c] for c in others]
    result = torch.zeros(size, dtype=z.dtype)
    columns = size // head.heads
    for h in range(head.heads):
        mine = slice(h * columns, (h + 1) * columns)
        weights = [math.exp(float(asked[mine] @ kv[:size][mine]) * scale) for kv in offered]
        for weight, kv in zip(weights, offered, strict=True):
            result[mine] += weight / sum(weights) * kv[size:][mine]
    projected: list[float] = (head.project.weight @ result + head.project.bias).tolist()
    return projected


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({}, 9**-0.5),
        ({"attn_scale": "code", "residual": True}, 3**-0.5),
        ({"norm": "separate", "scores": "mask", "neighbours": 8}, 9**-0.5),
        ({"scores": "none"}, 9**-0.5),
    ],
)
def test_diffusion_is_a_loop_over_neighbours_and_parts(options: dict[str, Any], scale: float) -> None:
    start = erasing().eval()
    head = diffusion(start, **options).eval()
    given, targets = source(), views(3, [4, 0, 2])
    bank = memory(7).bank
    context = {"erasing": given, "memory": HeadOutput(maps={"bank": bank[:, :, None, None]})}
    with torch.no_grad():
        output = head(maps(6), context, targets)
        scores = given.maps["scores"][:, :, 0, 0]
        if options.get("scores") == "mask":
            scores = torch.tensor([[1.0, 1, 1]] * 3 + [[0.0, 1, 1], [1, 1, 0], [1, 1, 0]]).double()
        elif options.get("scores") == "none":
            scores = torch.ones_like(scores)
        residual = bool(options.get("residual"))
        fused = torch.zeros(6, PARTS, WIDTH, dtype=torch.float64)
        for i in range(6):
            z = given.embeddings["erased"][i].detach()
            tokens = attended_by_loops(head, z, bank, int(targets.identity[i]), scale)
            for p in range(PARTS):
                part = slice(p * WIDTH, (p + 1) * WIDTH)
                blended = fed_by_loops(head.blend, tokens[part], residual)
                guided = [float(scores[i, p]) * g + float(x) for g, x in zip(blended, z[part], strict=True)]
                fused[i, p] = torch.tensor(fed_by_loops(head.fuse, guided, residual))
    torch.testing.assert_close(output.features["diffused"], fused.flatten(1))
    norms = head.own_norms if options.get("norm") == "separate" else start.norms
    assert norms is not None
    parts = [normed_by_loops(norms.norms[p], fused[:, p], False) for p in range(PARTS)]  # type: ignore[arg-type]
    torch.testing.assert_close(output.embeddings["diffused"], torch.cat(parts, 1))
    torch.testing.assert_close(output.logits["diffused"], torch.cat(parts, 1) @ head.classifier.weight.T)


def test_what_diffusion_learns_reaches_the_erasing_head() -> None:
    """Nothing is detached, and the norms are the same modules, owned by one head."""
    start, targets, features = erasing().train(), views(3), maps(6)
    store = memory()
    head = diffusion(start).train()
    context = {"erasing": start(features, {}, targets)}
    context["memory"] = store(features, context, targets)
    counted = int(start.norms.norms[0].num_batches_tracked)  # type: ignore[arg-type]
    output = head(features, context, targets)
    assert int(start.norms.norms[0].num_batches_tracked) == counted + 2, "z and ρ in turn, view by view"  # type: ignore[arg-type]
    assert not [name for name in head.state_dict() if "running_mean" in name]
    output.logits["diffused"].square().sum().backward()
    for name, parameter in (*start.named_parameters(), *head.named_parameters()):
        if parameter.requires_grad and not name.startswith("classifier"):
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


def test_a_copied_model_shares_its_own_norms() -> None:
    start = erasing()
    copied = copy.deepcopy(nn.ModuleDict({"erasing": start, "diffusion": diffusion(start)}))
    assert copied["diffusion"]._shared[0] is copied["erasing"].norms
    assert copied["diffusion"]._shared[0] is not start.norms


def test_few_identities_give_few_neighbours() -> None:
    assert diffusion(erasing(), num_classes=3, neighbours=8).neighbours == 2
    assert diffusion(erasing(), num_classes=9, neighbours=8).neighbours == 8
    with pytest.raises(BuildError, match="seeks other identities, and there is one"):
        diffusion(erasing(), num_classes=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "erasin"}, "no occlusion-erasing head before it. Did you mean 'erasing'"),
        ({"source": "memory"}, "'memory', which is no occlusion-erasing head"),
        ({"memory": "memry"}, "no memory before it. Did you mean 'memory'"),
        ({"memory": "narrow"}, "the bank of 'narrow' is 4 wide, the embedding of 'erasing' 18"),
        ({"heads": 4}, "3 parts of 6 channels cannot be divided among 4 heads"),
    ],
)
def test_what_diffusion_refuses(options: dict[str, Any], message: str) -> None:
    heads = {**before(erasing()), "memory": memory().info, "vector": HeadInfo(slots={"vector": 4})}
    heads["narrow"] = MemoryHead(info(heads=heads), source="vector").info
    with pytest.raises(BuildError, match=message):
        FeatureDiffusionHead(info(heads=heads), **options)


# --- sizes of the paper ----------------------------------------------------------------------------------------------


def test_parameters_at_the_width_of_the_paper() -> None:
    stages = {"last": StageInfo(768, 16)}
    known = BuildInfo(stages=stages, input_size=(256, 128), num_classes=702, name="head", class_token=768)

    def count(head: nn.Module) -> int:
        return sum(p.numel() for p in head.parameters())

    with torch.device("meta"):  # shapes only
        scorer = (768 * 192 + 192) + 2 * 192 + (192 + 1)
        start = OcclusionErasingHead(known)
        assert count(start) == 4 * scorer + 4 * 2 * 768 + 3072 * 702
        assert dict(start.info.slots) == {"erased": 3072}
        assert count(ClassTokenHead(known)) == 768 * 702
        known = BuildInfo(**{**vars(known), "heads": {"erasing": start.info}})
        store = MemoryHead(known, source="erasing")
        assert store.bank.shape == (702, 3072)
        assert count(store) == 0
        known = BuildInfo(**{**vars(known), "heads": {"erasing": start.info, "memory": store.info}})
        attention = 3 * 3072 * 3072 + (3072 * 3072 + 3072)
        feed_forward = 2 * 768 + (768 * 6144 + 6144) + (3072 * 768 + 768)
        head = FeatureDiffusionHead(known)
        assert count(head) == attention + 2 * feed_forward + 3072 * 702
        assert head.scale == pytest.approx(384**-0.5)
        assert FeatureDiffusionHead(known, attn_scale="code").scale == pytest.approx(96**-0.5)
