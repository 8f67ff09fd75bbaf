"""One model under several matchings and occlusions: the table that says what visibility is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import ReIDData
from occluded_reid.data.occlusion import Occluders
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import Difference, Interval, bootstrap_means, interval_of
from occluded_reid.evaluation.embed import EmbeddedWithTruth, Occlusion, embed_with_truth
from occluded_reid.evaluation.evaluate import evaluate
from occluded_reid.evaluation.leakage import require_apart, training_note
from occluded_reid.evaluation.protocol import CAMERAS_UNKNOWN, Protocol
from occluded_reid.evaluation.report import Report
from occluded_reid.evaluation.tables import Sheet, Tabular
from occluded_reid.matchers.base import Matcher
from occluded_reid.models import ReIDModel
from occluded_reid.registry import did_you_mean
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MATCHINGS", "Study", "StudyCondition", "evaluate_model", "study"]

MATCHINGS: dict[str, str] = {
    "own": "the model's slots, visibility as predicted",
    "global": "the global slot alone",
    "all_slots": "all slots, visibility ignored",
    "true": "the model's slots, visibility from the true masks (upper bound)",
}


@dataclass(frozen=True)
class StudyCondition:
    """One cell of a study: a matching at a share of occlusion, with one report a seed (one in all when clean)."""

    matching: str
    fraction: float
    reports: tuple[Report, ...]
    covered: float = 0.0

    def values(self) -> np.ndarray:
        """(answerable queries, metrics): each query's numbers, averaged over the seeds."""
        return np.asarray(np.mean([report.query_values for report in self.reports], axis=0))

    @property
    def metrics(self) -> dict[str, float]:
        """Means over queries and seeds, by name."""
        return dict(zip(self.reports[0].metrics, self.values().mean(0).tolist(), strict=True))

    @property
    def intervals(self) -> dict[str, Interval]:
        """Bootstrap intervals over the queries; the seeds of one query stay together."""
        protocol = self.reports[0].protocol
        if not protocol.bootstrap:
            return {}
        means = bootstrap_means(self.values(), protocol.bootstrap, protocol.seed)
        return {name: interval_of(means[:, i], protocol.confidence) for i, name in enumerate(self.metrics)}

    def minus(self, other: StudyCondition) -> dict[str, Difference]:
        """Paired differences to another condition over the same queries."""
        first, second = self.values(), other.values()
        if first.shape != second.shape:
            raise EvaluationError("the two conditions are of different queries; evaluate both on the same sets.")
        protocol = self.reports[0].protocol
        means = bootstrap_means(first - second, protocol.bootstrap or Protocol.bootstrap, protocol.seed)
        return {
            name: Difference(float((first - second)[:, i].mean()), interval_of(means[:, i], protocol.confidence))
            for i, name in enumerate(self.metrics)
        }


@dataclass(frozen=True)
class Study(Tabular):
    """Conditions of one model on one data set, as a table, as JSON, and with paired differences.

    Attributes:
        model: fingerprint of the model.
        dataset: name of the data.
        occluders: what queries were occluded with, in words.
        seeds: of the occlusions.
        conditions: one for each matching and share of occlusion.
        query: the embedded clean queries, visibility as predicted.
        gallery: the embedded gallery, likewise.
        training: whether the model was trained on these people, in words.
    """

    model: str
    dataset: str
    occluders: str
    seeds: tuple[int, ...]
    conditions: tuple[StudyCondition, ...] = field(repr=False)
    query: EmbeddedSet = field(repr=False)
    gallery: EmbeddedSet = field(repr=False)
    training: str = ""

    def get(self, matching: str, fraction: float = 0.0) -> StudyCondition:
        """Return one condition.

        Raises:
            EvaluationError: it was not part of the study.
        """
        for condition in self.conditions:
            if condition.matching == matching and condition.fraction == fraction:
                return condition
        raise EvaluationError(f"the study has no condition '{matching}' at {fraction}; it was not asked for.")

    @property
    def fractions(self) -> tuple[float, ...]:
        """Shares of the body mask that were occluded; 0 is clean."""
        return tuple(dict.fromkeys(c.fraction for c in self.conditions))

    @property
    def matchings(self) -> tuple[str, ...]:
        """Matchings in the order asked for."""
        return tuple(dict.fromkeys(c.matching for c in self.conditions))

    def differences(self, base: str = "all_slots") -> dict[tuple[str, float], dict[str, Difference]]:
        """Paired differences of every other matching to `base`, at each share of occlusion."""
        if base not in self.matchings:
            return {}
        return {
            (c.matching, c.fraction): c.minus(self.get(base, c.fraction)) for c in self.conditions if c.matching != base
        }

    @property
    def headline(self) -> tuple[str, ...]:
        """The numbers that tables show: CMC at the protocol's first rank, and mAP where it is defined."""
        names = tuple(self.conditions[0].metrics)
        return tuple(dict.fromkeys(name for name in (names[0], "mAP") if name in names))

    def rows(self, metrics: Sequence[str] | None = None) -> list[list[str]]:
        """Return header and lines of the table: matching, then metric with interval for each share of occlusion.

        Args:
            metrics: names as in `StudyCondition.metrics`; None shows the headline.
        """
        metrics = self.headline if metrics is None else metrics
        heads = [f"{name} {'clean' if f == 0 else f'{f:.0%}'}" for f in self.fractions for name in metrics]
        lines = [["matching", *heads]]
        for matching in self.matchings:
            line = [matching]
            line += [self._cell(matching, fraction, name) for fraction in self.fractions for name in metrics]
            lines.append(line)
        return lines

    def table(self) -> Table:
        """Return the table for a terminal."""
        shares = ["clean" if fraction == 0 else f"{fraction:.0%} occluded" for fraction in self.fractions]
        rows = [
            [name, matching, *(self._cell(matching, fraction, name, "\n") for fraction in self.fractions)]
            for name in self.headline
            for matching in self.matchings
        ]
        ends = range(len(self.matchings) - 1, len(rows), len(self.matchings))
        return Sheet(["metric", "matching", *shares], rows, title=self._title, words=2, sections=ends).rich()

    @property
    def _title(self) -> str:
        return f"{self.model} on {self.dataset}"

    def sheet(self) -> Sheet:
        """Return the headline numbers of each matching, and what they stand on."""
        header, *rows = self.rows()
        return Sheet(header, rows, self.facts(), self._title, self.warning)

    def records(self) -> list[dict[str, Any]]:
        """Return each number of each matching at each share of occlusion, with the bounds of its interval."""
        return [
            {
                "matching": condition.matching,
                "occluded": condition.fraction,
                "metric": name,
                "value": value,
                "low": (interval := condition.intervals.get(name)) and interval.low,
                "high": interval and interval.high,
            }
            for condition in self.conditions
            for name, value in condition.metrics.items()
        ]

    def _cell(self, matching: str, fraction: float, metric: str, between: str = " ") -> str:
        condition = self.get(matching, fraction)
        interval = f"{between}{condition.intervals[metric]}" if condition.intervals else ""
        return f"{condition.metrics[metric]:.1%}{interval}"

    @property
    def warning(self) -> str:
        """What must be known before any number is read; empty where there is nothing."""
        return "" if self.conditions[0].reports[0].protocol.cameras_known else CAMERAS_UNKNOWN

    def facts(self) -> dict[str, str]:
        """Return what the numbers stand on, by name."""
        facts = dict(self.conditions[0].reports[0].facts)
        for one in ("condition", "pairs without a common slot"):  # of the first condition alone
            facts.pop(one, None)
        # Of the first condition, which may be a matching that uses one slot only.
        facts["slots"] = ", ".join(f"{name} {width}" for name, width in self.query.embeddings.widths.items())
        facts |= {"training": self.training} if self.training else {}
        if len(self.fractions) > 1:
            facts["occlusion"] = (
                f"share of each query's body mask, random place and kind, {self.occluders}; "
                f"mean over seeds {', '.join(map(str, self.seeds))}"
            )
        return facts

    def card(self) -> str:
        """Return protocol, matchings and paired differences in lines."""
        lines = [f"{key}: {value}" for key, value in self.facts().items()]
        lines += [f"matching '{name}': {MATCHINGS[name]}" for name in self.matchings]
        for (matching, fraction), names in self.differences().items():
            shown = ", ".join(f"{name} {names[name]}" for name in self.headline)
            lines.append(f"{matching} − all_slots at {'clean' if not fraction else f'{fraction:.0%}'}: {shown}")
        return "\n".join(lines)

    def save_reports(self, folder: str | Path) -> list[Path]:
        """Write each report with the numbers of every query, for `compare`, and return the files.

        They are named after matching and share: ``own_clean.json``, ``own_35_seed0.json`` (35 % occluded, seed 0).

        Raises:
            EvaluationError: the folder cannot be written.
        """
        written = []
        for condition in self.conditions:
            for seed, report in zip(self.seeds, condition.reports, strict=False):
                share = f"{condition.fraction * 100:g}_seed{seed}" if condition.fraction else "clean"
                written.append(Path(folder) / f"{condition.matching}_{share}.json")
                report.to_json(written[-1])
        return written

    def to_dict(self) -> dict[str, Any]:
        """Return the study as JSON knows it."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "occluders": self.occluders,
            "seeds": list(self.seeds),
            "training": self.training,
            "warning": self.warning,
            "conditions": [
                {
                    "matching": c.matching,
                    "fraction": c.fraction,
                    "covered": c.covered,
                    "metrics": c.metrics,
                    "intervals": {name: [i.low, i.high] for name, i in c.intervals.items()},
                    "protocol": c.reports[0].facts,
                }
                for c in self.conditions
            ],
            "differences_to_all_slots": [
                {
                    "matching": m,
                    "fraction": f,
                    "metric": name,
                    "value": d.value,
                    "low": d.interval.low,
                    "high": d.interval.high,
                }
                for (m, f), names in self.differences().items()
                for name, d in names.items()
            ],
        }


@checked(EvaluationError)
def study(
    model: ReIDModel,
    data: ReIDData,
    *,
    matchings: Sequence[str] = ("own",),
    fractions: Sequence[float] = (),
    occluders: Occluders | None = None,
    seeds: Iterable[int] = (0,),
    protocol: Protocol | None = None,
    rerank: KReciprocal | None = None,
    tuned: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Evaluate a model on a data set's queries, clean and with a share of each body mask occluded.

    Memory: the embeddings of gallery and queries, one tile of distances.

    Args:
        model: the model; its own matcher is used.
        data: queries and gallery; occlusion and "true" need part masks.
        matchings: any of `MATCHINGS`, each once.
        fractions: shares of the body mask to occlude, 0 … 1; the clean queries always come first, so 0 adds nothing.
        occluders: what to occlude with; generated shapes by default.
        seeds: one occlusion of every query for each.
        protocol: what counts; None is what the data set's benchmark counts.
        rerank: re-rank each condition by k-reciprocal encodings over all its queries; see `evaluate`.
        tuned: what was chosen on which other people, in words, for the reports: `Tuned.text`.
        progress: called with (images embedded, images to embed).

    Raises:
        EvaluationError: a person is both in training and in queries or gallery, an unknown matching, a share outside
            0 … 1, no seed, no queries or gallery, or a matching that the model cannot do.
        MaskError: a part mask that occlusion or "true" needs is missing.
    """
    require_apart(data)
    matchings = tuple(dict.fromkeys(matchings))
    if not matchings:
        raise EvaluationError(f"no matching is given; give at least one. There are: {', '.join(MATCHINGS)}.")
    if unknown := next((m for m in matchings if m not in MATCHINGS), None):
        hint = did_you_mean(unknown, list(MATCHINGS))
        raise EvaluationError(f"there is no matching '{unknown}'.{hint} There are: {', '.join(MATCHINGS)}.")
    if outside := [f for f in fractions if not 0 <= f <= 1]:
        raise EvaluationError(f"the share of the body to occlude is {outside[0]}; give 0 … 1: 0.35 means 35 %.")
    fractions = tuple(dict.fromkeys(f for f in fractions if f))
    if "global" in matchings and "global" not in model.slots:
        raise EvaluationError(f"'{model.name}' has no slot 'global' (it has {', '.join(model.slots)}).")
    named = Protocol.of(data)
    protocol = protocol or named
    lower = () if model.precision == "float32" else (f"embeddings are computed in {model.precision}",)
    protocol = replace(
        protocol,
        dataset=protocol.dataset or named.dataset,
        split=protocol.split or named.split,
        cameras_known=data.cameras_known,
        notes=(*named.notes, *model.cautions, *lower),
    )
    things = occluders or Occluders.generated(0)
    seeds = tuple(dict.fromkeys(seeds)) if fractions else (0,)
    if not seeds:
        raise EvaluationError("there is no seed to occlude with; give at least one.")
    truth = "true" in matchings
    total = len(data.gallery) + len(data.query) * (1 + len(fractions) * len(seeds))
    done = 0

    def embed(samples: Sequence[Any], occlusion: Occlusion | None) -> EmbeddedWithTruth:
        nonlocal done
        result = embed_with_truth(
            model,
            data,
            samples,
            occlusion=occlusion,
            truth=truth,
            progress=None if progress is None else lambda n, _: progress(done + n, total),
        )
        done += len(samples)
        return result

    gallery = embed(data.gallery, None)
    fingerprint = model.fingerprint
    clean = gallery.embedded
    conditions: dict[tuple[str, float], list[tuple[Report, float]]] = {}
    for fraction in (0.0, *fractions):
        for seed in seeds if fraction else (0,):
            query = embed(data.query, Occlusion(fraction, things, seed) if fraction else None)
            hidden = (
                f"{fraction:.0%} of each body occluded by {things.description}, seed {seed}" if fraction else "clean"
            )
            clean = query.embedded if not fraction else clean
            for matching in matchings:
                report = evaluate(
                    _seen(query, matching),
                    _seen(gallery, matching),
                    _matcher(model, matching),
                    replace(protocol, name=f"{model.name}, {matching} ({MATCHINGS[matching]}), {hidden}"),
                    rerank=rerank,
                    fingerprint=fingerprint,
                    tuned=tuned,
                )
                conditions.setdefault((matching, fraction), []).append((report, query.covered))
    ordered = tuple(
        StudyCondition(m, f, tuple(r for r, _ in conditions[m, f]), float(np.mean([c for _, c in conditions[m, f]])))
        for m in matchings
        for f in (0.0, *fractions)
    )
    training = training_note(model, data)
    return Study(fingerprint, protocol.dataset, things.description, seeds, ordered, clean, gallery.embedded, training)


@checked(EvaluationError)
def evaluate_model(
    model: ReIDModel,
    data: ReIDData,
    *,
    protocol: Protocol | None = None,
    rerank: KReciprocal | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Evaluate a model on a data set's queries and gallery: `study` of the clean queries with the model's own matcher.

    Args:
        model: the model; its own matcher and visibility are used.
        data: queries and gallery.
        protocol: what counts; None is what the data set's benchmark counts.
        rerank: see `evaluate`.
        progress: called with (images embedded, images to embed).

    Raises:
        EvaluationError: a person is both in training and in queries or gallery, or there are no queries or no gallery.

    Example:
        ``evaluate_model(load_model("oreid_lite"), load_dataset("market1501", "market/", holdout=100))``
    """
    (condition,) = study(model, data, protocol=protocol, rerank=rerank, progress=progress).conditions
    return condition.reports[0]


def _seen(rows: EmbeddedWithTruth, matching: str) -> EmbeddedSet:
    """The rows as a matching sees them."""
    embedded = rows.embedded
    if matching == "global":
        return embedded.select(["global"])
    if matching == "all_slots":
        ones = torch.ones_like(embedded.embeddings.visibility)
        return replace(embedded, embeddings=embedded.embeddings.with_visibility(ones))
    if matching == "true":
        if rows.truth is None:
            raise EvaluationError("true visibility was not computed.")
        return replace(embedded, embeddings=embedded.embeddings.with_visibility(rows.truth))
    return embedded


def _matcher(model: ReIDModel, matching: str) -> Matcher:
    """The model's own matcher; with one slot left, the weights of the others would be unknown names."""
    options: Mapping[str, Any] = getattr(model.matcher, "weights", {})
    if matching != "global" or not set(options) - {"global"}:
        return model.matcher
    from occluded_reid.registry import MATCHERS

    config = model.matcher.config
    return MATCHERS.create(config["type"], **{**config["options"], "weights": {}})
