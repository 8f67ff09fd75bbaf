from __future__ import annotations

import errno
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from occluded_reid.contracts import Batch, HeadInfo, HeadOutput
from occluded_reid.data.dataset import ReIDData
from occluded_reid.errors import (
    BuildError,
    CheckpointError,
    DataError,
    MaskError,
    MissingExtraError,
    NonFiniteLossError,
    RecipeError,
    TrainingError,
)
from occluded_reid.files import read_safetensors
from occluded_reid.heads.base import Head
from occluded_reid.models import build_model, load_model
from occluded_reid.training import Trainer, train


@pytest.fixture
def data(tiny: ModuleType, data_folder: Path) -> ReIDData:
    made: ReIDData = tiny.make_data(data_folder)
    return made


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_safetensors(folder / "model.safetensors")[0]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert not different


def naive_run(tiny: ModuleType, data: ReIDData, epochs: int, **overrides: Any) -> tuple[Any, list[float]]:
    """The same training written out: no accelerator, no checkpoints, no averages kept along the way."""
    recipe = tiny.tiny_recipe(**{"optim.epochs": epochs, **overrides})
    model = tiny.make_model(recipe).to(memory_format=torch.channels_last)
    loader = tiny.make_loader(data, recipe)
    rate = recipe.optim.lr
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=recipe.optim.weight_decay)
    totals = []
    for epoch in range(1, epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.1 if epoch == 1 else 1.0)  # two epochs of warm-up
        model.train()
        of_epoch = []
        for batch in loader.batches(epoch):
            values = model.criterion(model(batch.images, batch.targets), batch.targets)
            optimizer.zero_grad()
            values.total.backward()
            if recipe.optim.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip_norm)
            optimizer.step()
            of_epoch.append(float(values.total.detach()))
        totals.append(sum(of_epoch) / len(of_epoch))
    return model, totals


@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_loop_is_the_plain_loop(tiny: ModuleType, data: ReIDData, tmp_path: Path, clip: float | None) -> None:
    recipe = tiny.tiny_recipe(**{"optim.epochs": 2, "optim.clip_norm": clip})
    result = Trainer(tiny.make_model(recipe), data, tmp_path, show=False).fit()
    model, totals = naive_run(tiny, data, 2, **{"optim.clip_norm": clip})
    assert_same(
        {k: v.contiguous() for k, v in model.state_dict().items()},
        dict(load_model(result.model, num_classes=4).state_dict()),
    )
    assert [record.losses["total"] for record in result.history] == pytest.approx(totals, rel=1e-6)
    for record in result.history:
        weighted = sum(recipe.model.losses[n].weight * v for n, v in record.losses.items() if n != "total")
        assert record.losses["total"] == pytest.approx(weighted, rel=1e-5)
    assert [record.lr for record in result.history] == pytest.approx([1e-4, 1e-3])


def test_what_a_run_leaves(
    tiny: ModuleType, data: ReIDData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores 0.2, 0.9, 0.4: the second epoch is the best; the history is on disk and on stderr."""
    scores = iter([0.2, 0.9, 0.4])
    fingerprints, records = [], []

    def evaluate(model: Any) -> dict[str, float]:
        fingerprints.append(model.fingerprint)
        return {"Rank-1": 0.5, "mAP": next(scores)}

    before = torch.get_rng_state()
    result = train(
        tiny.tiny_recipe(), data, tmp_path / "run", evaluate=evaluate, evaluate_every=1, on_epoch=records.append
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert result.best is not None
    assert (result.best.epoch, result.best_by) == (2, "mAP")
    assert load_model(tmp_path / "run" / "best").fingerprint == fingerprints[1]
    assert load_model(result.model).fingerprint == fingerprints[2]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best", "last", "log.jsonl", "model"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines == [record.to_dict() for record in result.history] == [record.to_dict() for record in records]
    assert [line["scores"]["mAP"] for line in lines] == [0.2, 0.9, 0.4]
    assert set(lines[0]["losses"]) == {"total", "local", "global", "spc", "segmentation"}
    assert result.curves()["score/mAP"] == ([1, 2, 3], [0.2, 0.9, 0.4])
    assert "best mAP 0.9000 in epoch 2" in result.summary()
    assert json.loads(json.dumps(result.to_dict()))["epochs"] == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("images/s") == 3
    assert "segmentation" in shown.err


def test_same_seed_same_weights_and_another_seed_others(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    recipe = tiny.tiny_recipe(**{"optim.epochs": 1})
    states = [
        state_of(train(recipe, data, tmp_path / str(n), seed=seed, show=False).model)
        for n, seed in enumerate((0, 0, 1))
    ]
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["heads.global.project.0.weight"], states[2]["heads.global.project.0.weight"])


def test_evaluation_every_second_epoch_and_the_last(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    result = Trainer(
        tiny.make_model(tiny.tiny_recipe()),
        data,
        tmp_path,
        evaluate=lambda model: {"accuracy": float("nan") if model.training else 0.5},
        evaluate_every=2,
        show=False,
    ).fit()
    assert [bool(record.scores) for record in result.history] == [False, True, True]
    assert result.best_by == "accuracy"
    assert result.best is None  # the model was in training mode: NaN is never the best


def test_unknown_score(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    trainer = Trainer(
        tiny.make_model(tiny.tiny_recipe()),
        data,
        tmp_path,
        evaluate=lambda _: {"a": 1.0},
        evaluate_every=1,
        best_by="b",
    )
    with pytest.raises(TrainingError, match="returned a; best_by is 'b'"):
        trainer.fit()


class Poisoned:
    """A loader whose batch number `step` of epoch 1 is changed."""

    def __init__(self, loader: Any, step: int, change: Any) -> None:
        self.loader, self.step, self.change = loader, step, change
        self.samples, self.steps_per_epoch = loader.samples, loader.steps_per_epoch

    def batches(self, epoch: int, skip: int = 0) -> Any:
        for step, batch in enumerate(self.loader.batches(epoch, skip), start=skip):
            if (epoch, step) == (1, self.step):
                self.wanted = batch.targets.path
                batch = self.change(batch)
            yield batch


def test_nan_names_the_losses_and_the_files(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    recipe = tiny.tiny_recipe(**{"optim.lr": 0.5})
    loader = Poisoned(tiny.make_loader(data, recipe), 2, lambda b: Batch(b.images * float("nan"), b.targets))
    model = tiny.make_model(recipe)
    trainer = Trainer(model, loader, tmp_path / "poisoned", show=False, checkpoint_steps=1)
    with pytest.raises(NonFiniteLossError) as error:
        trainer.fit()
    message = str(error.value)
    assert "'segmentation' is nan" in message
    assert "'local' is nan" in message
    assert all(path in message for path in loader.wanted)
    # The weights are those after two steps, in memory and in the checkpoint.
    saved = state_of(tmp_path / "poisoned" / "last")
    assert json.loads((tmp_path / "poisoned/last/checkpoint.json").read_text())["progress"]["place"]["step"] == 2
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, saved[name]), name
        assert torch.isfinite(parameter).all()


class RootHead(Head):
    """√x at 0: a finite loss with an infinite gradient."""

    def __init__(self, info: Any) -> None:
        super().__init__(info)
        self.scale = torch.nn.Parameter(torch.zeros(1))
        self.info = HeadInfo(slots={"root": 1})

    def forward(self, features: Any, context: Any, targets: Any = None) -> HeadOutput:
        zeros = self.scale.sqrt().expand(len(features.images), 4)
        return HeadOutput(embeddings={"root": zeros[:, :1]}, logits={"root": zeros})


def test_infinite_gradient_of_a_finite_loss(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    recipe = tiny.tiny_recipe(**{"model.losses.root": {"type": "identity", "on": "root"}})
    model = build_model(recipe, num_classes=4, heads={"root": RootHead})
    with pytest.raises(NonFiniteLossError, match=r"gradient is not.*0000_"):
        Trainer(model, data, tmp_path, show=False).fit()
    assert model.heads["root"].scale.item() == 0.0


class MemoryHead(Head):
    """A training-only head with a memory that one pass over the data fills, as FED's does."""

    def __init__(self, info: Any) -> None:
        super().__init__(info)
        self.register_buffer("memory", torch.zeros(4, 3))
        self.info = HeadInfo(training_only=True)

    def prepare_training(self, model: Any, loader: Any) -> None:
        self.memory: torch.Tensor
        self.memory += 1
        for batch in loader.batches(1):
            for identity, image in zip(batch.targets.identity, batch.images, strict=True):
                self.memory[identity] += image.mean((1, 2))

    def forward(self, features: Any, context: Any, targets: Any = None) -> HeadOutput:
        return HeadOutput()


def test_a_head_prepares_itself_once_and_is_not_exported(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    def run(epochs: int, resume: bool) -> Any:
        recipe = tiny.tiny_recipe(**{"optim.epochs": epochs})
        return train(recipe, data, tmp_path, heads={"memory": MemoryHead}, resume=resume, show=False)

    run(1, False)
    memory = state_of(tmp_path / "last")["heads.memory.memory"]
    assert (memory.abs().sum(1) > 0).all()
    result = run(2, True)
    assert torch.equal(state_of(tmp_path / "last")["heads.memory.memory"], memory)
    assert not any("memory" in key for key in state_of(result.model))


def test_idle_parameters_are_named(
    tiny: ModuleType, data: ReIDData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.tiny_recipe(**{"model.losses.segmentation": None, "optim.epochs": 1})
    train(recipe, data, tmp_path)
    assert "no loss reaches" in (shown := capsys.readouterr().err)
    assert "heads.semantic" in shown
    assert "heads.global" not in shown


def test_a_loss_that_begins_later(
    tiny: ModuleType, data: ReIDData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = {"model.losses.global.from_epoch": 2, "model.losses.spc.from_epoch": 9, "model.losses.segmentation": None}
    result = train(tiny.tiny_recipe(**waits), data, tmp_path)
    first, second, third = result.history
    assert first.losses["total"] == pytest.approx(first.losses["local"])
    for later in (second, third):
        assert later.losses["total"] == pytest.approx(later.losses["local"] + 0.75 * later.losses["global"])
        assert later.losses["spc"] > 0
    assert "loss 'spc' begins after the last epoch" in capsys.readouterr().err


def test_what_is_wrong_before_the_first_step_leaves_the_folder_free(
    tiny: ModuleType, data: ReIDData, tmp_path: Path
) -> None:
    views = {"model.losses.same": {"type": "consistency", "on": "global"}, "optim.epochs": 1}
    with pytest.raises(BuildError, match="clean_and_occluded"):
        train(tiny.tiny_recipe(**views), data, tmp_path, show=False)
    assert not (tmp_path / "last").exists()
    assert train(tiny.tiny_recipe(**{"optim.epochs": 1}), data, tmp_path, show=False).history


def test_no_loss_at_all(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    losses = {f"model.losses.{name}": None for name in ("local", "global", "spc", "segmentation")}
    with pytest.raises(TrainingError, match="no loss that reaches a parameter"):
        train(tiny.tiny_recipe(**losses), data, tmp_path, show=False)


def test_folder_of_another_run(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    recipe = tiny.tiny_recipe(**{"optim.epochs": 1})
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        train(recipe, data, tmp_path, resume=True)
    first = train(recipe, data, tmp_path, show=False)
    state = state_of(first.model)
    with pytest.raises(TrainingError, match="holds a run already"):
        train(recipe, data, tmp_path)
    with pytest.raises(CheckpointError, match=r"seed: 0 then, 3 now"):
        train(recipe, data, tmp_path, resume=True, seed=3)
    with pytest.raises(CheckpointError, match=r"recipe\.optim\.lr: 0\.001 then, 0\.5 now"):
        train(tiny.tiny_recipe(**{"optim.epochs": 1, "optim.lr": 0.5}), data, tmp_path, resume=True)
    fewer = replace(data, train=data.train[:-1])
    with pytest.raises(CheckpointError, match=r"training images: 32, \w+ then, 31, \w+ now"):
        train(recipe, fewer, tmp_path, resume=True)
    again = train(recipe, data, tmp_path, resume=True, show=False)  # it is complete: nothing is left to do
    assert again.history == first.history
    assert_same(state_of(again.model), state)


def test_prolonged_by_resuming(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    train(tiny.tiny_recipe(**{"optim.epochs": 1}), data, tmp_path / "a", show=False)
    prolonged = train(tiny.tiny_recipe(**{"optim.epochs": 3}), data, tmp_path / "a", resume=True, show=False)
    whole = train(tiny.tiny_recipe(**{"optim.epochs": 3}), data, tmp_path / "b", show=False)
    assert_same(state_of(prolonged.model), state_of(whole.model))
    cosine = {"optim.cosine_end": 0.1}
    train(tiny.tiny_recipe(**{"optim.epochs": 1, **cosine}), data, tmp_path / "c", show=False)
    with pytest.raises(CheckpointError, match=r"optim\.epochs: 1 then, 3 now"):  # another curve
        train(tiny.tiny_recipe(**{"optim.epochs": 3, **cosine}), data, tmp_path / "c", resume=True)


def test_disk_full_keeps_the_checkpoint_before(
    tiny: ModuleType, data: ReIDData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the second epoch is saved; with room again, the run goes on to the same weights."""
    whole = train(tiny.tiny_recipe(), data, tmp_path / "whole", show=False)
    write, full = Path.write_bytes, False

    def fill(path: Path, content: bytes) -> int:
        if full:
            write(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    def fill_up(record: Any) -> None:
        nonlocal full
        full = True

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(CheckpointError, match="No space left on device"):
        train(tiny.tiny_recipe(), data, tmp_path / "run", show=False, on_epoch=fill_up)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["last", "log.jsonl"]
    full = False
    resumed = train(tiny.tiny_recipe(), data, tmp_path / "run", resume=True, show=False)
    assert_same(state_of(resumed.model), state_of(whole.model))


def test_output_that_cannot_be_written(
    tiny: ModuleType, data: ReIDData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"run' cannot be made: Not a directory"):
        train(tiny.tiny_recipe(), data, tmp_path / "file" / "run", show=False)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(TrainingError, match=r"could not be written: Permission denied.*folder that may be written to"):
        train(tiny.tiny_recipe(), data, tmp_path / "run", show=False)
    assert not list((tmp_path / "run").iterdir())


def test_bad_data(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    recipe = tiny.tiny_recipe()
    one = replace(data, train=tuple(s for s in data.train if s.identity == "0000"))
    unmasked = replace(data, train=tuple(replace(s, mask=None) for s in data.train))
    for broken, error, message in (
        (replace(data, train=()), DataError, "empty"),
        (one, DataError, "at least two"),
        (unmasked, MaskError, "have no part mask"),
        (replace(data, train=data.train[:1] + data.train[-1:]), DataError, "do not fill one batch"),
    ):
        with pytest.raises(error, match=message):
            train(recipe, broken, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"data\.masks is 5, but head 'semantic' predicts 8"):
        train(tiny.tiny_recipe(**{"data.masks": 5}), data, tmp_path / "run")
    with pytest.raises(TrainingError, match="has 4 training identities; the model classifies 9"):
        Trainer(tiny.make_model(recipe, num_classes=9), data, tmp_path / "run")
    with pytest.raises(BuildError, match="built for inference"):
        Trainer(build_model(recipe), data, tmp_path / "run")
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="fp16, which needs a GPU"):
            train(tiny.tiny_recipe(**{"optim.precision": "fp16"}), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bf16_then_float32_in_one_process(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    dtypes = {}

    def watch(model: Any) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            dtypes["inside"] = output.dtype

        model.heads["global"].project[0].register_forward_hook(hook)
        model.criterion.register_forward_pre_hook(
            lambda m, inputs: dtypes.update(losses=inputs[0]["global"].maps["aggregation"].dtype)
        )
        return model

    for precision, wanted in (("bf16", torch.bfloat16), ("no", torch.float32)):
        recipe = tiny.tiny_recipe(**{"optim.precision": precision, "optim.epochs": 1})
        result = train(watch(tiny.make_model(recipe)), data, tmp_path / precision, show=False)
        assert dtypes == {"inside": wanted, "losses": torch.float32}
        assert math.isfinite(result.history[-1].losses["total"])
        assert all(v.dtype in (torch.float32, torch.int64) for v in state_of(result.model).values())


def test_the_trained_model_embeds_as_the_loaded_one(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    model = tiny.make_model(tiny.tiny_recipe(**{"optim.epochs": 1}))
    result = train(model, data, tmp_path, show=False)
    assert not model.training
    images = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    first, second = model.embed(images), load_model(result.model).embed(images)
    assert all(torch.equal(a, b) for a, b in zip(first.embeddings, second.embeddings, strict=True))


def test_tensorboard(tiny: ModuleType, data: ReIDData, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(
        tiny.tiny_recipe(**{"optim.epochs": 2}),
        data,
        tmp_path,
        tensorboard=True,
        show=False,
        evaluate=lambda _: {"mAP": 0.5},
        evaluate_every=2,
    )
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss/total", "loss/spc", "learning_rate", "score/mAP"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2]


def test_tensorboard_missing(tiny: ModuleType, data: ReIDData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'occluded-reid\[tracking\]'"):
        Trainer(tiny.make_model(tiny.tiny_recipe()), data, tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
