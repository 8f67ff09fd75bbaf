"""PCB's shared reduction and BoT's neck, against the same written out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from occluded_reid import BuildInfo, FeatureMaps, build_model
from occluded_reid.contracts import StageInfo
from occluded_reid.errors import BuildError, UnknownOptionError
from occluded_reid.heads.global_ import GlobalHead
from occluded_reid.heads.local import LocalHead
from occluded_reid.registry import HEADS

INFO = BuildInfo(stages={"last": StageInfo(8, 16)}, input_size=(96, 48), num_classes=5, name="the head")


def maps() -> FeatureMaps:
    generator = torch.Generator().manual_seed(0)
    return FeatureMaps({"last": torch.randn(4, 8, 6, 3, generator=generator)}, torch.zeros(4, 3, 96, 48))


def tensors(head: torch.nn.Module) -> Mapping[str, Tensor]:
    return dict(head.state_dict())


def test_pcb_reduces_every_part_with_the_same_convolution() -> None:
    torch.manual_seed(0)
    head = LocalHead(INFO, num_parts=3, reduction=4, shared_reduction=True, neck="none", match="pooled").eval()
    grid = maps()["last"].double()
    given = head(maps(), {})
    weights = tensors(head)
    conv, gain, bias = (weights[f"reductions.0.{k}"].double() for k in ("0.weight", "1.weight", "1.bias"))
    for part in range(3):
        name = f"part_{part + 1}"
        for n in range(4):
            pooled = [
                sum(grid[n, c, y, x].item() for y in (2 * part, 2 * part + 1) for x in range(3)) / 6 for c in range(8)
            ]
            torch.testing.assert_close(
                given.embeddings[name][n].double(), torch.tensor(pooled).double(), atol=1e-6, rtol=0
            )
            for d in range(4):
                # Fresh batch normalisation in evaluation: mean 0, variance 1, ε 1e-5.
                x = sum(conv[d, c, 0, 0].item() * pooled[c] for c in range(8)) / (1 + 1e-5) ** 0.5
                wanted = max(0.0, x * gain[d].item() + bias[d].item())
                assert given.features[name][n, d].item() == pytest.approx(wanted, abs=1e-6)
        torch.testing.assert_close(
            given.logits[name],
            given.features[name] @ weights[f"classifiers.{part}.weight"].T + weights[f"classifiers.{part}.bias"],
        )
    assert dict(head.info.slots) == {"part_1": 8, "part_2": 8, "part_3": 8}


def test_shared_batch_normalisation_sees_all_parts_together() -> None:
    torch.manual_seed(0)
    head = LocalHead(INFO, num_parts=3, reduction=4, shared_reduction=True, neck="none").train()
    given = head(maps(), {})
    rows = torch.cat(list(given.features.values()))
    assert (rows > 0).any()
    conv = tensors(head)["reductions.0.0.weight"][:, :, 0, 0]
    parts = torch.stack([maps()["last"][:, :, 2 * p : 2 * p + 2].mean((2, 3)) @ conv.T for p in range(3)], 1)
    flat = parts.flatten(0, 1)
    wanted = ((parts - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()).relu()
    torch.testing.assert_close(torch.stack(list(given.features.values()), 1), wanted, atol=1e-5, rtol=1e-5)


def test_dropout_is_for_training_and_not_for_what_is_matched() -> None:
    head = LocalHead(INFO, num_parts=2, dropout=0.5, neck="none", match="pooled")
    torch.manual_seed(0)
    trained = head.train()(maps(), {})
    used = head.eval()(maps(), {})
    assert torch.equal(trained.embeddings["part_1"], used.embeddings["part_1"])
    assert (trained.features["part_1"] == 0).float().mean() > 0.2
    assert torch.equal(used.features["part_1"], used.embeddings["part_1"])
    with pytest.raises(UnknownOptionError, match="dropout"):
        HEADS.create("local", INFO, dropout=1.0)


def test_the_bnneck_keeps_its_bias_at_zero_and_classifies_without_one() -> None:
    head = GlobalHead(INFO, neck="bnneck", slot="whole")
    assert not head.neck.bias.requires_grad
    assert head.classifier is not None
    assert head.classifier.bias is None
    given = head.train()(maps(), {})
    assert set(given.embeddings) == set(given.features) == set(given.logits) == {"whole"}
    torch.testing.assert_close(given.features["whole"], maps()["last"].mean((2, 3)))
    torch.testing.assert_close(given.embeddings["whole"].mean(0), torch.zeros(8), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        # 2048 channels: BN 2 · 2048, classifier 2048 · 751 without bias.
        ("bot", 2 * 2048 + 2048 * 751),
        # The shared 1×1 convolution and its BN, and six classifiers with bias.
        ("pcb", 2048 * 256 + 2 * 256 + 6 * (256 * 751 + 751)),
    ],
)
def test_heads_have_the_parameters_that_the_papers_imply(recipe: str, wanted: int) -> None:
    model = build_model(recipe, num_classes=751)
    assert sum(p.numel() for p in model.heads.parameters()) == wanted
    assert sum(p.numel() for p in model.backbone.parameters()) == 23_508_032  # ResNet-50 without its classifier


@pytest.mark.parametrize("columns", ["plain", "centred"])
@pytest.mark.parametrize("refined_pooling", ["mean", "weighted"])
def test_refined_parts_are_loops_over_columns(columns: str, refined_pooling: str) -> None:
    """softmax(Wᵀ f) for each column, and every part a mean of all columns by it."""
    torch.manual_seed(0)
    options = {"num_parts": 3, "reduction": 4, "shared_reduction": True, "neck": "none", "match": "pooled"}
    info = BuildInfo(stages={"last": StageInfo(16, 16)}, input_size=(96, 48), num_classes=5, name="the head")
    head = LocalHead(
        info, **options, dropout=0.5, partition="refined", columns=columns, refined_pooling=refined_pooling
    )
    torch.nn.init.normal_(head.part_classifier.weight)
    head.double().eval()
    grid = torch.randn(2, 16, 6, 3, dtype=torch.float64)
    with torch.no_grad():
        given = head(FeatureMaps({"last": grid}, torch.zeros(2, 3, 96, 48)), {})
    weight = head.part_classifier.weight.detach()
    seen = grid
    if columns == "centred":
        seen = torch.zeros(2, 2, 6, 3, dtype=torch.float64)
        for group in range(2):
            for c in range(8):
                seen[:, group] += grid[:, 8 * group + c] / 8
        for group in range(2):
            seen[:, group] -= seen[:, group].mean((1, 2))[:, None, None]
    for n in range(2):
        places = [(y, x) for y in range(6) for x in range(3)]
        logits = {at: [float(weight[p] @ seen[n, :, at[0], at[1]]) for p in range(3)] for at in places}
        share = {at: torch.tensor(logits[at]).double().exp() for at in places}
        share = {at: value / value.sum() for at, value in share.items()}
        for p in range(3):
            total = sum(float(share[at][p]) for at in places) if refined_pooling == "weighted" else 18 / 3
            wanted = sum((float(share[y, x][p]) * grid[n, :, y, x] for y, x in places), torch.zeros(16).double())
            torch.testing.assert_close(given.embeddings[f"part_{p + 1}"][n], wanted / total)
            for y, x in places:
                assert float(given.maps["parts"][n, p, y, x]) == pytest.approx(float(share[y, x][p]))
    assert head.info.maps["parts"].channels == 3
    uniform = LocalHead(info, **options)
    assert set(head.state_dict()) - set(uniform.state_dict()) == (
        {"part_classifier.weight"} if columns == "plain" else {"part_classifier.weight", "part_classifier.bias"}
    )
    assert not set(uniform.state_dict()) - set(head.state_dict())


def test_what_refined_parts_refuse() -> None:
    with pytest.raises(BuildError, match="refines parts by an average; pooling: max has none"):
        LocalHead(INFO, num_parts=3, pooling="max", partition="refined")
    info = BuildInfo(stages={"last": StageInfo(12, 16)}, input_size=(96, 48), name="the head")
    with pytest.raises(BuildError, match=r"groups of 8 channels, and last has 12. Set columns: plain"):
        LocalHead(info, num_parts=3, partition="refined", columns="centred")
