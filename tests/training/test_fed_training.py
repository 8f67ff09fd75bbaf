"""FED in training: what the memory starts from, what the losses add up to, resume, several processes, export."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from occluded_reid import ReIDModel, build_model, load_model
from occluded_reid.contracts import Batch
from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import TrainingError
from occluded_reid.files import read_safetensors
from occluded_reid.functional import occlusion_stripes
from occluded_reid.training import Trainer, TrainResult

FED: dict[str, Any] = {
    "model.heads": {
        "token": {"type": "class_token", "options": {"token": "pool", "inference": False}},
        "erasing": {"type": "occlusion_erasing", "options": {"parts": 2}},
        "memory": {"type": "memory", "options": {"source": "erasing"}},
        "diffusion": {"type": "feature_diffusion", "options": {"neighbours": 2, "heads": 2}},
        "diffused_memory": {"type": "memory", "options": {"source": "diffusion", "start": "erasing"}},
    },
    "model.losses": {
        "scores": {"type": "occlusion_scores", "on": "erasing"},
        "erased": {"type": "identity", "on": "erasing"},
        "diffused": {"type": "identity", "on": "diffusion"},
        "token": {"type": "identity", "on": "token"},
        "memory": {"type": "memory_contrast", "on": "memory", "options": {"clean": 1.0, "occluded": 0.3}},
        "diffused_memory": {
            "type": "memory_contrast",
            "on": "diffused_memory",
            "options": {"clean": 0.5, "occluded": 0.5},
        },
    },
    "model.matcher": "plain",
    "data": {
        "batch": 8,
        "sampler": "pk",
        "instances": 2,
        "views": "clean_and_occluded",
        "augment": ["flip", "npo"],
    },
    "optim.type": "sgd",
    "optim.lr": 0.01,
    "optim.epochs": 2,
}


def fed(tiny: ModuleType, seed: int = 0, **overrides: Any) -> ReIDModel:
    model: ReIDModel = tiny.make_model(tiny.tiny_recipe(**{**FED, **overrides}), seed=seed)
    return model


def one_batch(tiny: ModuleType, model: ReIDModel, data: ReIDData) -> Batch:
    batch: Batch = next(iter(tiny.make_loader(data, model.recipe).batches(1)))
    return batch


def banks(model: ReIDModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if name.endswith(".bank")}


@torch.no_grad()
def means_by_loops(model: ReIDModel, data: ReIDData) -> Tensor:
    """Image by image: the mean over each identity of [BN_p(F_p)], without scores."""
    head: Any = model.eval().heads["erasing"]
    collected: dict[str, list[Tensor]] = {}
    for sample in data.train:
        grid = model.backbone(model.preprocess([sample.path]))["stage4"]
        rows, parts = grid.shape[2] // 2, []
        for p, norm in enumerate(head.norms.norms):
            pooled = grid[0, :, p * rows : (p + 1) * rows].mean((1, 2))
            scaled = (pooled - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
            parts.append(scaled * norm.weight)
        collected.setdefault(sample.identity, []).append(torch.cat(parts).double())
    return torch.stack([torch.stack(rows).mean(0) for _, rows in sorted(collected.items())]).float()


@pytest.fixture(scope="module")
def data(tiny: ModuleType, data_folder: Path) -> ReIDData:
    made: ReIDData = tiny.make_data(data_folder)
    return made


def test_the_memory_starts_at_the_means_of_the_plain_images(tiny: ModuleType, data: ReIDData) -> None:
    model = fed(tiny)
    for norm in model.heads["erasing"].norms.norms:  # type: ignore[union-attr]
        norm.running_mean.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(1))
        norm.running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(2))
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items() if not k.endswith(".bank")}
    loader = tiny.make_loader(data, model.recipe)
    for name in ("memory", "diffused_memory"):
        model.heads[name].prepare_training(model, loader)  # type: ignore[operator]
    assert model.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items()), "nothing else has changed"
    expected = means_by_loops(model, data)
    assert len({tuple(row.tolist()) for row in expected}) == 4
    for bank in banks(model).values():
        torch.testing.assert_close(bank, expected, rtol=1e-4, atol=1e-5)


def test_the_memory_starts_from_images_as_a_model_in_use_sees_them(tiny: ModuleType, data: ReIDData) -> None:
    """FED's released code trains on bicubic images and starts the bank from bilinear ones."""
    model = fed(tiny, **{"data": {**FED["data"], "resample": "bicubic"}})
    loader = tiny.make_loader(data, model.recipe)
    assert (loader.images.resample, model.recipe.model.input.resample) == ("bicubic", "bilinear")
    model.train()
    model.heads["memory"].prepare_training(model, loader)  # type: ignore[operator]
    expected = means_by_loops(model, data)
    torch.testing.assert_close(banks(model)["heads.memory.bank"], expected, rtol=1e-4, atol=1e-5)


class Foreign:
    """A loader of somebody else's, which keeps no decoded images."""

    steps_per_epoch = 4

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        yield from self.loader.batches(epoch, skip)


def test_of_another_loader_the_clean_views_are_taken(tiny: ModuleType, data: ReIDData) -> None:
    model = fed(tiny, **{"data.augment": ["npo"], "data.batch": 32, "data.instances": 8})
    loader = tiny.make_loader(data, model.recipe)
    model.heads["memory"].prepare_training(model, Foreign(loader))  # type: ignore[operator]
    torch.testing.assert_close(banks(model)["heads.memory.bank"], means_by_loops(model, data), rtol=1e-4, atol=1e-5)


def test_a_loader_with_other_identities_is_refused(tiny: ModuleType, data: ReIDData) -> None:
    model = fed(tiny)
    loader = tiny.make_loader(data, model.recipe)
    loader.classes = dict(list(loader.classes.items())[:3])
    with pytest.raises(TrainingError, match="shows 3 identities; the model classifies 4"):
        model.heads["memory"].prepare_training(model, loader)  # type: ignore[operator]


def test_weights_that_are_broken_are_said_before_training(tiny: ModuleType, data: ReIDData) -> None:
    model = fed(tiny)
    model.heads["erasing"].norms.norms[0].weight.data[0] = math.nan  # type: ignore[union-attr, index]
    with pytest.raises(TrainingError, match="the memory 'memory' starts from are not finite"):
        model.heads["memory"].prepare_training(model, tiny.make_loader(data, model.recipe))  # type: ignore[operator]


def test_every_identity_term_starts_at_ln_c(tiny: ModuleType, data: ReIDData) -> None:
    model = fed(tiny).train()
    batch = one_batch(tiny, model, data)
    named = model.criterion(model(batch.images, batch.targets), batch.targets).named
    for name in ("erased", "diffused", "token"):
        assert float(named[name].detach()) == pytest.approx(math.log(4), abs=0.05), name


def test_the_total_is_the_sum_of_the_paper(tiny: ModuleType, data: ReIDData) -> None:
    """L of FED, written out, from what the heads gave."""
    model = fed(tiny).train()
    loader = tiny.make_loader(data, model.recipe)
    for name in ("memory", "diffused_memory"):
        model.heads[name].prepare_training(model, loader)  # type: ignore[operator]
    batch = one_batch(tiny, model, data)
    targets = batch.targets
    assert targets.view is not None
    assert targets.occlusion_mask is not None
    assert targets.view.tolist() == [0] * 8 + [1] * 8
    with torch.no_grad():
        before = banks(model)
        output = model(batch.images, targets)
        total = model.criterion(output, targets).total
        clean, occluded = targets.view == 0, targets.view == 1

        def entropy(logits: Tensor) -> float:
            def one(view: Tensor) -> float:
                log_p = logits[view].log_softmax(1)
                return -float(log_p[torch.arange(8), targets.identity[view]].mean())

            return 0.5 * (one(clean) + one(occluded))

        def contrast(embeddings: Tensor, bank: Tensor, view: Tensor) -> float:
            similar = torch.nn.functional.cosine_similarity(embeddings[view][:, None], bank[None], dim=2)
            p = (similar / 0.05).softmax(1)[torch.arange(8), targets.identity[view]]
            return -float((p + 1e-6).log().mean())

        scores = output["erasing"].maps["scores"][:, :, 0, 0]
        visible = occlusion_stripes(targets.occlusion_mask, 2, rows=4)
        z, rho = output["erasing"].embeddings["erased"], output["diffusion"].embeddings["diffused"]
        first, second = before["heads.memory.bank"], before["heads.diffused_memory.bank"]
        expected = (
            float((scores[clean] - 1).square().mean() + (scores[occluded] - visible[occluded]).square().mean())
            + entropy(output["erasing"].logits["erased"])
            + entropy(output["diffusion"].logits["diffused"])
            + entropy(output["token"].logits["global"])
            + contrast(z, first, clean)
            + 0.3 * contrast(z, first, occluded)
            + 0.5 * (contrast(rho, second, clean) + contrast(rho, second, occluded))
        )
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_a_step_moves_each_bank_by_its_clean_embeddings(tiny: ModuleType, data: ReIDData) -> None:
    model = fed(tiny).train()
    batch = one_batch(tiny, model, data)
    output = model(batch.images, batch.targets)
    bank = banks(model)
    model.criterion(output, batch.targets).total.backward()
    given = {
        "heads.memory.bank": output["erasing"].embeddings["erased"],
        "heads.diffused_memory.bank": output["diffusion"].embeddings["diffused"],
    }
    for name, rows in given.items():
        for i in range(8):
            y = int(batch.targets.identity[i])
            bank[name][y] = 0.2 * bank[name][y] + 0.8 * rows[i].detach()
        torch.testing.assert_close(banks(model)[name], bank[name])


def test_every_parameter_gets_a_gradient(tiny: ModuleType, data: ReIDData) -> None:
    model = fed(tiny, **{"model.heads.diffusion.options.norm": "separate"}).train()
    batch = one_batch(tiny, model, data)
    model.criterion(model(batch.images, batch.targets), batch.targets).total.backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(tiny: ModuleType, data: ReIDData, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result: TrainResult = Trainer(fed(tiny), data, tmp_path_factory.mktemp("fed"), show=False).fit()
    torch.set_num_threads(threads)
    return result


def state_of(folder: Path) -> dict[str, Tensor]:
    return read_safetensors(folder / "last" / "model.safetensors")[0]


def test_resume_keeps_the_bank_bit_for_bit(
    tiny: ModuleType, data: ReIDData, tmp_path: Path, unbroken: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fed(tiny)
    loader = tiny.make_loader(data, model.recipe)
    stopping = tiny.Stopping(loader, 2, 1, signal.SIGINT)
    stopping.images, stopping.classes = loader.images, loader.classes  # what a memory is filled from
    with pytest.raises(KeyboardInterrupt):
        Trainer(model, stopping, tmp_path, show=False).fit()
    half = state_of(tmp_path)
    again = fed(tiny, seed=9)
    monkeypatch.setattr(type(again.heads["memory"]), "prepare_training", None)  # a run that goes on does not start anew
    Trainer(again, loader, tmp_path, show=False).fit(resume=True)
    first, second = state_of(tmp_path), state_of(unbroken.output)
    assert first.keys() == second.keys()
    assert not [key for key in first if not torch.equal(first[key], second[key])]
    for name in ("heads.memory.bank", "heads.diffused_memory.bank"):
        assert not torch.equal(half[name], second[name])


def test_what_is_exported_knows_neither_memory_nor_diffusion(tiny: ModuleType, unbroken: TrainResult) -> None:
    whole = fed(tiny)
    whole.load_state_dict(state_of(unbroken.output))
    whole.eval()
    folder = unbroken.output / "model"
    assert {key.split(".")[1] for key in whole.inference_state() if key.startswith("heads.")} == {"erasing"}
    kept = {key.split(".")[1] for key in read_safetensors(folder / "model.safetensors")[0] if key.startswith("heads.")}
    assert kept == {"token", "erasing"}, "classifiers are kept, so that training can go on"
    exported = load_model(folder)
    assert list(exported.heads) == ["token", "erasing"]
    assert exported.slots == {"erased": 128}
    assert exported.fingerprint == whole.fingerprint
    assert set(exported.state_dict()) == set(whole.inference_state())
    images = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(exported.embed(images).slot("erased"), whole.embed(images).slot("erased"))
    exported.train()(images)  # heads that exist in training only are gone, not merely passed over


def test_it_is_built_without_classes_as_with_them(tiny: ModuleType) -> None:
    recipe = tiny.tiny_recipe(**FED)
    trained, bare = build_model(recipe, num_classes=4), build_model(recipe)
    assert set(trained.heads) - set(bare.heads) == {"memory", "diffusion", "diffused_memory"}
    bare.load_state_dict(trained.inference_state())


def test_the_released_code_shares_one_bank(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    shared = {"type": "memory", "options": {"source": "diffusion", "share_with": "memory"}}
    model = fed(tiny, **{"model.heads.diffused_memory": shared, "optim.epochs": 1})
    assert list(banks(model)) == ["heads.memory.bank"]
    result = Trainer(model, data, tmp_path, show=False).fit()
    assert math.isfinite(result.history[-1].losses["total"])
    assert float(banks(model)["heads.memory.bank"].norm(dim=1).min()) > 0


def test_two_processes_keep_the_banks_of_one(
    tiny: ModuleType, data_folder: Path, data: ReIDData, tmp_path: Path, run_script: Any
) -> None:
    """Each process holds half of every batch, and every bank must see all of it, in the order of the whole."""
    done = run_script(
        {"data": data_folder, "output": tmp_path / "two", "overrides": FED, "frozen_statistics": True}, processes=2
    )
    assert (tmp_path / "two" / "model").exists(), done.stderr
    model = fed(tiny)
    tiny.keep_statistics(model)
    Trainer(model, data, tmp_path / "one", show=False).fit()
    first, second, start = state_of(tmp_path / "two"), state_of(tmp_path / "one"), fed(tiny).state_dict()
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=1e-4, atol=1e-4, msg=key)
    moved = max(float((second[k] - start[k]).abs().max()) for k in second if not k.endswith((".bank", "tracked")))
    assert moved > 1e-2
