"""What tuning has chosen, what it stands on, and how a model takes it over."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from occluded_reid._version import __version__
from occluded_reid.errors import EvaluationError, ShapeError
from occluded_reid.evaluation.bootstrap import Difference, Interval
from occluded_reid.evaluation.tables import Sheet, Tabular
from occluded_reid.files import read_json, write_json
from occluded_reid.registry import MATCHERS
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

if TYPE_CHECKING:
    from occluded_reid.models import ReIDModel

__all__ = ["Setting", "Trial", "Tuned", "winner"]

FORMAT = "occluded_reid.tuned"
FORMAT_VERSION = 1

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Setting(BaseModel):
    """What a candidate consists of, as a file holds it.

    Attributes:
        matcher: type and options.
        head: the head whose threshold is set, or None.
        threshold: τ of that head, or None.
        rerank: fields of `KReciprocal`, or None where nothing is re-ranked.
    """

    model_config = _STRICT

    matcher: dict[str, Any]
    head: str | None = None
    threshold: float | None = Field(default=None, ge=0, le=1)
    rerank: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Setting:
        if set(self.matcher) != {"type", "options"} or not isinstance(self.matcher["options"], dict):
            raise ValueError("a matcher is a type and options")
        if (self.head is None) != (self.threshold is None):
            raise ValueError("a head and its threshold come together")
        if self.rerank is not None:
            try:
                KReciprocal(**self.rerank)
            except (ShapeError, TypeError) as error:
                raise ValueError(f"re-ranking: {error}") from error
        return self


class Trial(BaseModel):
    """One candidate and its number.

    Attributes:
        name: of the candidate.
        setting: what it consists of.
        value: the metric on the validation side.
        interval: bounds of its bootstrap interval over the queries.
        difference: value minus that of the default, over the same queries.
        difference_interval: bounds of the paired bootstrap interval of that difference.
    """

    model_config = _STRICT

    name: str = Field(min_length=1)
    setting: Setting
    value: float = Field(ge=0, le=1)
    interval: list[float] = Field(min_length=2, max_length=2)
    difference: float
    difference_interval: list[float] = Field(min_length=2, max_length=2)


class Tuned(BaseModel, Tabular):
    """The best of some candidates on people who are neither trained on nor tested on, as `tune` finds it.

    The chosen candidate is the best one on these very queries, so its number here is on the bright side. What is worth
    reporting is its number on the test side.

    Attributes:
        format: marks the file as ours.
        format_version: raised when older libraries could no longer read the file.
        version: of this library.
        model: fingerprint of the model whose embeddings were compared, or None.
        data: name of the data.
        part: what of it was tuned on, in words.
        identities: the people tuned on, by name, sorted.
        trained_on: how many of them the model was trained on; None where that is not recorded.
        queries: images asked for.
        gallery: images searched.
        seed: of the resampling.
        resamples: of the queries, behind the intervals.
        confidence: of the intervals.
        metric: what decided.
        default: name of the candidate that stands for "nothing tuned".
        chosen: name of the best one; of equals the default, then the first.
        trials: all of them, in order.
    """

    model_config = _STRICT

    format: Literal["occluded_reid.tuned"] = "occluded_reid.tuned"
    format_version: int = FORMAT_VERSION
    version: str = __version__
    model: str | None = None
    data: str = Field(min_length=1)
    part: str = ""
    identities: list[str] = Field(min_length=1)
    trained_on: int | None = Field(default=None, ge=0)
    queries: int = Field(ge=1)
    gallery: int = Field(ge=1)
    seed: int
    resamples: int = Field(ge=1)
    confidence: float = Field(gt=0, lt=1)
    metric: str
    default: str
    chosen: str
    trials: list[Trial] = Field(min_length=1)

    @model_validator(mode="after")
    def _belongs_together(self) -> Tuned:
        names = [trial.name for trial in self.trials]
        if len(set(names)) != len(names) or self.default not in names:
            raise ValueError(f"the candidates are {names}, each once, with the default '{self.default}' among them")
        if self.identities != sorted(set(self.identities)):
            raise ValueError("identities are sorted, each once")
        best = winner({trial.name: trial.value for trial in self.trials}, self.default)
        if self.chosen != best:
            raise ValueError(f"'{self.chosen}' is chosen, but the numbers choose '{best}'")
        return self

    @property
    def choice(self) -> Trial:
        """The chosen candidate."""
        return next(trial for trial in self.trials if trial.name == self.chosen)

    @property
    def difference(self) -> Difference:
        """The chosen candidate minus the default, with the paired interval."""
        low, high = self.choice.difference_interval
        return Difference(self.choice.difference, Interval(low, high))

    @property
    def rerank(self) -> KReciprocal | None:
        """The chosen re-ranking, or None."""
        chosen = self.choice.setting.rerank
        return None if chosen is None else KReciprocal(**chosen)

    @property
    def text(self) -> str:
        """One line for a report: what was chosen, out of how many, by what, on whom."""
        people = f"{len(self.identities)} people of '{self.data}'"
        where = f"{people} ({self.part})" if self.part else people
        return f"{self.chosen}; best {self.metric} of {len(self.trials)} on {where}"

    @property
    def warning(self) -> str:
        """What is wrong with these people, in words; empty where nothing is."""
        if self.trained_on is None:
            return "not known whether the model was trained on these people: the numbers may be too good"
        if self.trained_on:
            return (
                f"the model was trained on {self.trained_on} of these {len(self.identities)} people: the numbers are "
                "too good, and what is best on them may not be best on others"
            )
        return ""

    def apply(self, model: ReIDModel) -> ReIDModel:
        """Return a copy of the model with the chosen matcher and threshold; re-ranking is for the caller (`rerank`).

        Another threshold changes what `embed` returns, and so the fingerprint. Another matcher does not: reports name
        it. The copy can be saved like any model; its recipe's notes say what was tuned.

        Memory: the model a second time.

        Raises:
            EvaluationError: the model is not the one that was tuned, or has not that head.
        """
        self.require_model(model.fingerprint)
        setting = self.choice.setting
        changes: dict[str, Any] = {}
        if setting.head is not None:
            head = model.parts.get(setting.head)
            now = getattr(head, "threshold", None)
            if not isinstance(now, int | float) or model.recipe.model.heads[setting.head].type.startswith("object:"):
                raise EvaluationError(
                    f"the threshold of head '{setting.head}' was tuned, and '{model.name}' has no such head by name, "
                    "or one without a threshold. Apply it to the model that was tuned."
                )
            if now != setting.threshold:
                changes[f"model.heads.{setting.head}.options.threshold"] = setting.threshold
        if setting.matcher != model.matcher.config:
            changes["model.matcher"] = setting.matcher
        if not changes:
            return model
        tuned = copy.deepcopy(model)
        notes = f"{model.recipe.notes}\ntuned: {self.text}".strip()
        tuned.recipe = model.recipe.override({**changes, "notes": notes})
        if "model.matcher" in changes:
            tuned.matcher = MATCHERS.create(setting.matcher["type"], **setting.matcher["options"])
        if setting.head is not None:
            tuned.parts[setting.head].threshold = setting.threshold  # type: ignore[assignment]
        return tuned

    def require_model(self, fingerprint: str) -> None:
        """Refuse another model than the one that was tuned.

        Raises:
            EvaluationError: the fingerprints differ; both are named.
        """
        if self.model is not None and fingerprint != self.model:
            raise EvaluationError(
                f"these settings were tuned for the model {self.model}; this one is {fingerprint}. What is best for "
                "one model says nothing of another: tune again."
            )

    def sheet(self) -> Sheet:
        """Return the candidates, the chosen one strong."""
        rows = []
        for trial in self.trials:
            minus = str(Difference(trial.difference, Interval(*trial.difference_interval)))
            value = f"{trial.value:.1%} {Interval(*trial.interval)}"
            rows.append([trial.name, value, "the default" if trial.name == self.default else minus])
        title = f"{self.metric} on {self.part or self.data}"
        chosen = tuple(n for n, trial in enumerate(self.trials) if trial.name == self.chosen)
        header = ("candidate", self.metric, "minus the default")
        return Sheet(header, rows, {"tuned": self.text}, title, self.warning, strong=chosen)

    def records(self) -> list[dict[str, Any]]:
        """Return the candidates, each with its number and its difference to the default."""
        return [
            {
                "candidate": trial.name,
                "chosen": trial.name == self.chosen,
                self.metric: trial.value,
                **dict(zip(("low", "high"), trial.interval, strict=True)),
                "difference": trial.difference,
                **dict(zip(("difference low", "difference high"), trial.difference_interval, strict=True)),
            }
            for trial in self.trials
        ]

    def __str__(self) -> str:
        lines = [
            f"{trial.name}: {trial.value:.1%} {Interval(*trial.interval)}" + (" *" if trial.name == self.chosen else "")
            for trial in self.trials
        ]
        minus = f"chosen minus default: {self.difference}"
        return "\n".join([self.text, *lines, minus, *([self.warning] if self.warning else [])])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        return self.model_dump(mode="json")

    def save(self, path: str | Path) -> None:
        """Write the result as JSON, whole or not at all.

        Raises:
            EvaluationError: the file cannot be written.
        """
        write_json(path, self.to_dict(), EvaluationError)

    @staticmethod
    def load(path: str | Path) -> Tuned:
        """Read what `save` has written.

        Raises:
            EvaluationError: the file is missing, damaged, of a newer library, or something else.
        """
        content = read_json(path, EvaluationError)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise EvaluationError(f"'{path}' holds no tuned settings; write them with `occluded-reid tune`.")
        version = content.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise EvaluationError(
                f"the tuned settings '{path}' have format {version}; this library reads formats up to "
                f"{FORMAT_VERSION}. Update it: pip install --upgrade occluded_reid."
            )
        try:
            return Tuned.model_validate(content)
        except ValidationError as cause:
            first = cause.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            said = first["msg"].removeprefix("Value error, ")
            said = said[:1].lower() + said[1:]
            raise EvaluationError(f"the tuned settings '{path}' are damaged: {where}: {said}. Tune again.") from cause


def winner(values: dict[str, float], default: str) -> str:
    """Return the name with the greatest value; of equal ones (to 1e-12) the default, then the first.

    Example:
        >>> winner({"a": 0.5, "b": 0.7, "c": 0.7}, default="c")
        'c'
    """
    best = default
    for name, value in values.items():
        if round(value, 12) > round(values[best], 12):
            best = name
    return best
