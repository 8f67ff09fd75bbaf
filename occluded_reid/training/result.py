"""What training leaves behind: one record an epoch, and where things are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["EpochRecord", "TrainResult"]


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
