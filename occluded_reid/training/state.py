"""The state of a run: what it was started with, where it is, and what it leaves behind."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from occluded_reid.files import text_bytes
from occluded_reid.models import ReIDModel
from occluded_reid.parsing.network import hash_weights
from occluded_reid.training.batches import Batches

__all__ = ["EpochRecord", "Place", "TrainResult", "describe_run", "differences"]


@dataclass
class Place:
    """`step` steps of `epoch` are done; what they took, and the sums of each loss over them.

    Attributes:
        epoch: counted from 1.
        step: steps of this epoch that are done.
        seconds: spent on them, over all interruptions.
        images: seen in them, over all processes.
        sums: loss by name, summed over them.
    """

    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    @property
    def losses(self) -> dict[str, float]:
        """Mean of each loss over the steps so far."""
        return {name: value / self.step for name, value in self.sums.items()}

    @property
    def images_per_second(self) -> float:
        """Over the steps so far."""
        return self.images / max(self.seconds, 1e-9)

    def add(self, losses: dict[str, float], images: int) -> None:
        """Count one more step."""
        self.step += 1
        self.images += images
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: a line of ``log.jsonl``.

    Attributes:
        epoch: counted from 1.
        lr: learning rate of the new parameters, before any group's own scale.
        seconds: spent on training steps, without evaluation.
        images_per_second: over all processes.
        losses: "total", as it was minimised, and every named part before its weight; means over the epoch.
        scores: what `evaluate` returned after this epoch; empty where it was not called.
    """

    epoch: int
    lr: float
    seconds: float
    images_per_second: float
    losses: Mapping[str, float]
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON knows it."""
        return asdict(self)


@dataclass(frozen=True)
class TrainResult:
    """History and places of a training run.

    Attributes:
        output: the run's folder: ``model/`` is the trained model, ``best/`` the best one where it was evaluated,
            ``last/`` the checkpoint, ``log.jsonl`` the history.
        history: one record an epoch.
        best: the record with the best score, or None without evaluation.
        best_by: the score that decides it, or None without evaluation.
    """

    output: Path
    history: tuple[EpochRecord, ...] = field(repr=False)
    best: EpochRecord | None = None
    best_by: str | None = None

    @property
    def model(self) -> Path:
        """Folder of the trained model, for `load_model`."""
        return self.output / "model"

    @property
    def best_model(self) -> Path | None:
        """Folder of the best model, for `load_model`; None without evaluation."""
        return None if self.best is None else self.output / "best"

    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Return name -> (epochs, values) of the rate, of every loss ("loss/…") and of every score ("score/…").

        Example:
            >>> record = EpochRecord(1, 0.1, 2.0, 30.0, {"total": 4.5}, {"mAP": 0.3})
            >>> TrainResult(Path("run"), (record,)).curves()["loss/total"]
            ([1], [4.5])
        """
        found: dict[str, tuple[list[int], list[float]]] = {}
        for record in self.history:
            values = {"lr": record.lr}
            values |= {f"loss/{name}": value for name, value in record.losses.items()}
            values |= {f"score/{name}": value for name, value in record.scores.items()}
            for name, value in values.items():
                epochs, line = found.setdefault(name, ([], []))
                epochs.append(record.epoch)
                line.append(value)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON knows it."""
        return {
            "output": str(self.output),
            "model": str(self.model),
            "best_model": None if self.best_model is None else str(self.best_model),
            "epochs": len(self.history),
            "seconds": sum(record.seconds for record in self.history),
            "best": None if self.best is None else self.best.to_dict(),
            "best_by": self.best_by,
            "history": [record.to_dict() for record in self.history],
        }

    def summary(self) -> str:
        """Return one line: epochs, time, last loss, best score, and where the model is."""
        if not self.history:
            return f"no epoch was trained; {self.output}"
        minutes = sum(record.seconds for record in self.history) / 60
        text = f"{len(self.history)} epochs in {minutes:.1f} min, loss {self.history[-1].losses['total']:.3f}"
        if self.best is not None and self.best_by is not None:
            text += f", best {self.best_by} {self.best.scores[self.best_by]:.4f} in epoch {self.best.epoch}"
        return f"{text} → {self.model}"


def describe_run(model: ReIDModel, loader: Batches, seed: int, processes: int) -> dict[str, Any]:
    """Return everything that decides the weights of a run, as plain JSON.

    Where first weights came from is left out: they are in the checkpoint. A parser that crops has decided what is
    learnt from before the checkpoint is read, so its weights must be those of before.
    """
    recipe = model.recipe.model_dump(mode="json")
    for key in ("weights", "weights_match"):
        for part in (recipe["model"], recipe["model"]["backbone"], recipe["model"].get("parser") or {}):
            part.pop(key, None)
    parser = getattr(getattr(model, "preprocess", None), "parser", None)
    digest = hashlib.sha256()
    samples = getattr(loader, "samples", ())
    for sample in samples:
        digest.update(text_bytes(f"{sample.name}\0{sample.identity}\0"))
    return {
        "recipe": {key: recipe[key] for key in ("model", "data", "optim")},
        "seed": seed,
        "num_classes": model.num_classes,
        "processes": processes,
        "training images": f"{len(samples)}, {digest.hexdigest()[:12]}",
        **({} if parser is None else {"parser": hash_weights(parser)[:12]}),
    }


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing in which a saved run differs from the one that is asked for.

    More epochs are no difference where the schedule has steps: the epochs that were trained are the same.

    Example:
        >>> differences({"seed": 0, "processes": 1}, {"seed": 1, "processes": 1})
        ['seed: 0 then, 1 now']
    """
    then, now = _flat(saved), _flat(wanted)
    lines = []
    for key in sorted({*then, *now}):
        before, after = then.get(key), now.get(key)
        prolonged = key == "recipe.optim.epochs" and now.get("recipe.optim.cosine_end") is None
        if before != after and not (
            prolonged and isinstance(after, int) and isinstance(before, int) and after > before
        ):
            lines.append(f"{key}: {before} then, {after} now")
    return lines


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
