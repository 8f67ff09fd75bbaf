"""Evaluation during training, and which epoch is the best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from occluded_reid.errors import TrainingError
from occluded_reid.models import ReIDModel
from occluded_reid.training.processes import Processes
from occluded_reid.training.state import EpochRecord

__all__ = ["Scoring"]


class Scoring:
    """Evaluates every n epochs, in the main process, and compares epochs by one score.

    Args:
        evaluate: returns scores of the model, higher is better; None for never.
        every: epochs between evaluations; 0 for never.
        last: the last epoch, which is evaluated in any case.
        best_by: the score that decides; None takes "mAP", or the first one where there is no "mAP".
        processes: all get the scores of the main one.
    """

    def __init__(
        self,
        evaluate: Callable[[ReIDModel], dict[str, float]] | None,
        every: int,
        last: int,
        best_by: str | None,
        processes: Processes,
    ) -> None:
        self.evaluate, self.every, self.last, self.processes = evaluate, every, last, processes
        self.best_by = best_by

    def scores(self, model: ReIDModel, epoch: int) -> dict[str, float]:
        """Return the scores after an epoch, or nothing where it is not evaluated.

        Raises:
            TrainingError: the score that decides is not among them.
        """
        if self.evaluate is None or not self.every or (epoch % self.every and epoch != self.last):
            return {}
        mine: dict[str, float] = {}
        if self.processes.is_main:
            mine = {name: float(value) for name, value in self.evaluate(model).items()}
        scores: dict[str, float] = json.loads(self.processes.tell(json.dumps(mine)))
        if self.best_by is None:
            self.best_by = "mAP" if "mAP" in scores else next(iter(scores), None)
        if self.best_by not in scores:
            raise TrainingError(
                f"the evaluation returned {', '.join(scores) or 'no scores'}; best_by is '{self.best_by}'. "
                "Let it return that score, or set best_by to one of these."
            )
        return scores

    def is_better(self, record: EpochRecord, best: EpochRecord | None) -> bool:
        """Return whether a record beats the best one so far; one without scores, or with NaN, never does."""
        if self.best_by is None or self.best_by not in record.scores or math.isnan(record.scores[self.best_by]):
            return False
        return best is None or record.scores[self.best_by] > best.scores[self.best_by]
