"""A report: the numbers, those of each query, and the protocol they stand on."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from occluded_reid._version import __version__
from occluded_reid.arguments import checked, shown
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import FEW, Comparison, Difference, Interval, bootstrap_means, interval_of
from occluded_reid.evaluation.metrics import cmc
from occluded_reid.evaluation.protocol import CAMERAS_UNKNOWN, MAX_RANK, MOST_DRAWS, Protocol
from occluded_reid.evaluation.ranking.matches import Labelled
from occluded_reid.evaluation.tables import Sheet, Tabular
from occluded_reid.files import read_json, text_bytes, write_json

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LIBRARIES", "ProtocolCard", "Report", "report_of", "require_answers"]

_FORMAT = 1
LIBRARIES = ("torch", "numpy")
"""Whose versions stand beside the numbers, with those of this library and of Python."""


@dataclass(frozen=True)
class ProtocolCard:
    """What the numbers of a report stand on, beside the protocol's rules.

    Attributes:
        queries: images asked for.
        gallery: images searched.
        query_identities: different people among the queries.
        gallery_identities: different identity numbers in the gallery, distractors included.
        excluded_pairs: pairs dropped for having one identity and one camera.
        pairs_without_shared_slot: pairs left in that share no visible slot; they rank last.
        slots: slot name -> width.
        matcher: type and options.
        fingerprint: of the model, or empty.
        version: of this library.
        queries_sha256: hash of the queries' identities, cameras and names, in order.
        gallery_sha256: of the gallery's, in any order.
        reranking: what re-ranked the images before they were counted, with its parameters, or empty.
        tuned: what was chosen on which other data, or empty.
        test_time: what was done beside the model itself, or empty.
        libraries: versions of Python and of the libraries that computed the numbers.
        only_own_camera: queries that were skipped although the gallery shows the person, but under the query's own
            camera alone; None in reports of before they were counted.
    """

    queries: int
    gallery: int
    query_identities: int
    gallery_identities: int
    excluded_pairs: int
    pairs_without_shared_slot: int
    slots: Mapping[str, int]
    matcher: Mapping[str, Any]
    fingerprint: str
    version: str
    queries_sha256: str
    gallery_sha256: str = ""
    reranking: str = ""
    tuned: str = ""
    test_time: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    only_own_camera: int | None = None


@dataclass(frozen=True)
class Report(Tabular):
    """CMC, mAP and mINP with what they stand on.

    Args:
        protocol: the rules.
        card: sizes, exclusions, matcher and model.
        average_precision: (Nq,) float64, NaN for a query that has nothing to find, and where the gallery has a single
            shot of each identity.
        first_match_rank: (Nq,) int64 from 1, 0 for a query that has nothing to find; with single shots (Nq, draws).
        inverse_negative_penalty: (Nq,) float64, matches / rank of the last match, NaN as above.
    """

    protocol: Protocol
    card: ProtocolCard
    average_precision: np.ndarray = field(repr=False)
    first_match_rank: np.ndarray = field(repr=False)
    inverse_negative_penalty: np.ndarray = field(repr=False)

    @property
    def answerable(self) -> np.ndarray:
        """(Nq,) bool: whether the gallery holds something to find; the numbers are means over these queries."""
        return np.asarray(self.first_match_rank.reshape(len(self.first_match_rank), -1)[:, 0] > 0)

    @property
    def unanswerable(self) -> int:
        """Queries that were skipped because there is nothing to find."""
        return int((~self.answerable).sum())

    @cached_property
    def cmc(self) -> np.ndarray:
        """(50,): share of queries with a match among the first 1, 2, …, 50 images."""
        return np.array([self.rank(k) for k in range(1, MAX_RANK + 1)])

    @property
    def mAP(self) -> float:  # noqa: N802 - the name everybody knows
        """Mean of the average precision of the queries."""
        return float(self.average_precision[self.answerable].mean())

    @property
    def mINP(self) -> float:  # noqa: N802 - the name everybody knows
        """Mean of (matches / rank of the last match) of the queries."""
        return float(self.inverse_negative_penalty[self.answerable].mean())

    @checked(EvaluationError)
    def rank(self, k: int) -> float:
        """Return CMC at any rank k: the share of queries with a match among the first k images.

        Raises:
            EvaluationError: k is less than 1.
        """
        if k < 1:
            raise EvaluationError(f"rank {k} was asked for; ranks are counted from 1.")
        return cmc(self.first_match_rank[self.answerable], k)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers by name: "Rank-1", …, "mAP", "mINP"; with single shots the ranks alone."""
        ranks = {f"Rank-{k}": self.rank(k) for k in self.protocol.ranks}
        return ranks if self.protocol.shots == "single" else {**ranks, "mAP": self.mAP, "mINP": self.mINP}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Percentile-bootstrap interval over the queries of each number of `metrics`; empty without resamples."""
        if not self.protocol.bootstrap:
            return {}
        means = bootstrap_means(self._values(), self.protocol.bootstrap, self.protocol.seed)
        return {name: interval_of(means[:, i], self.protocol.confidence) for i, name in enumerate(self.metrics)}

    @checked(EvaluationError)
    def compare(self, other: Report, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95) -> Comparison:
        """Subtract another report over the same queries, with paired bootstrap intervals of the differences.

        Args:
            other: what is subtracted.
            resamples: of the queries, the same draws for both reports.
            seed: of the draws.
            confidence: of the intervals.

        Raises:
            EvaluationError: the reports are of different queries, galleries or rules.
        """
        self.require_same(other)
        if not 1 <= resamples <= MOST_DRAWS:
            raise EvaluationError(f"{shown(resamples)} resamples were asked for; give 1 to {MOST_DRAWS:,}.")
        if seed < 0 or not 0 < confidence < 1:
            raise EvaluationError(
                f"seed is {seed} and confidence {confidence}; wanted at least 0, and between 0 and 1."
            )
        names = list(self.metrics)
        values = self._values() - other._values(self.protocol.ranks)
        means = bootstrap_means(values, resamples, seed)
        differences = {
            name: Difference(float(values[:, i].mean()), interval_of(means[:, i], confidence))
            for i, name in enumerate(names)
        }
        return Comparison(differences, len(values), confidence)

    @checked(EvaluationError)
    def require_same(self, other: Report) -> None:
        """Raise EvaluationError unless another report is of the same queries and gallery, by the same rules."""
        if self.card.queries_sha256 != other.card.queries_sha256 or not np.array_equal(
            self.answerable, other.answerable
        ):
            raise EvaluationError(
                f"the reports are of different queries ({self.card.queries}, {self.unanswerable} of them without a "
                f"match, and {other.card.queries}, {other.unanswerable}); evaluate both on the same sets to pair them."
            )
        if self.card.gallery_sha256 != other.card.gallery_sha256:
            raise EvaluationError(
                f"the reports are of different galleries ({self.card.gallery} and {other.card.gallery} images; "
                "identities, cameras or names differ, or only one of them has names); evaluate both on the same sets "
                "to pair them."
            )
        # With single shots the draws are other galleries.
        drawn = ("draws", "seed") if self.protocol.shots == "single" else ()
        for rule in ("ap", "exclude_same_camera", "shots", *drawn):
            here, there = getattr(self.protocol, rule), getattr(other.protocol, rule)
            if here != there:
                raise EvaluationError(f"{rule} is {here} here and {there} there; evaluate both by the same rules.")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it; a query without a match has None."""
        return {
            "format": _FORMAT,
            "metrics": self.metrics,
            "intervals": {name: [interval.low, interval.high] for name, interval in self.intervals.items()},
            "cmc": self.cmc.tolist(),
            "unanswerable": self.unanswerable,
            "protocol": self.protocol.to_dict(),
            "card": asdict(self.card),
            "per_query": {
                "average_precision": _listed(self.average_precision),
                "first_match_rank": self.first_match_rank.tolist(),
                "inverse_negative_penalty": _listed(self.inverse_negative_penalty),
            },
        }

    @staticmethod
    @checked(EvaluationError)
    def from_dict(content: Mapping[str, Any]) -> Report:
        """Rebuild a report from `to_dict`; its numbers are computed again from those of each query.

        Raises:
            EvaluationError: this is no report, or one of another format.
        """
        if content.get("format") != _FORMAT:
            raise EvaluationError(
                f"this is no report of format {_FORMAT} (its format: {content.get('format')!r}); "
                "write it with to_json()."
            )
        try:
            per_query, rules = content["per_query"], {**content["protocol"]}
            rules.pop("tile_rows", None)  # older versions kept it there, though it changes no number
            return Report(
                Protocol(**{**rules, "ranks": tuple(rules["ranks"])}),
                ProtocolCard(**content["card"]),
                np.array(per_query["average_precision"], dtype=np.float64),
                np.array(per_query["first_match_rank"], dtype=np.int64),
                np.array(per_query["inverse_negative_penalty"], dtype=np.float64),
            )
        except (KeyError, TypeError) as error:
            raise EvaluationError(f"the report is incomplete or changed: {error}. Write it with to_json().") from error

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the report as JSON text, and write it to a file if a path is given."""
        if path is not None:
            write_json(path, self.to_dict(), EvaluationError)
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    @staticmethod
    def from_json(path: str | Path) -> Report:
        """Read what `to_json` has written.

        Raises:
            EvaluationError: the file is missing or holds something else.
        """
        content = read_json(path, EvaluationError)
        if not isinstance(content, dict):
            raise EvaluationError(f"'{path}' holds no report; write one with to_json().")
        try:
            return Report.from_dict(content)
        except EvaluationError as error:
            raise EvaluationError(f"'{path}': {error}") from error

    @property
    def facts(self) -> dict[str, str]:
        """The protocol in words, line by line, as tables and pages print it."""
        protocol, card = self.protocol, self.card
        camera = "dropped" if protocol.exclude_same_camera else "kept"
        options = ", ".join(f"{name}={value}" for name, value in card.matcher.get("options", {}).items() if value != {})
        resampling = (
            f"{protocol.confidence:.0%}, {protocol.bootstrap} resamples of the queries, seed {protocol.seed}"
            if protocol.bootstrap
            else "none"
        )
        if protocol.bootstrap and (asked := len(self.answerable) - self.unanswerable) < FEW:
            resampling += f"; of {asked} quer{'ies' if asked > 1 else 'y'} they say little"
        return {
            "data": protocol.dataset or "unnamed",
            "split": protocol.split or "unnamed",
            "condition": protocol.name or "unnamed",
            "queries": f"{card.queries} images of {card.query_identities} identities; {self._skipped}",
            "gallery": f"{card.gallery} images of {card.gallery_identities} identities",
            "same identity, same camera": f"{camera} ({card.excluded_pairs} pairs excluded)",
            "cameras": "known" if protocol.cameras_known else CAMERAS_UNKNOWN,
            "average precision": "not defined for single shots" if protocol.shots == "single" else f"by {protocol.ap}",
            "gallery shots": f"one random image a person, mean over {protocol.draws} draws, seed {protocol.seed}"
            if protocol.shots == "single"
            else "all images",
            "matcher": f"{card.matcher.get('type', '?')}({options})",
            "re-ranking": card.reranking or "none",
            "test-time extras": card.test_time or "none",
            "tuned": card.tuned or "nothing that was said",
            "slots": ", ".join(f"{name} {width}" for name, width in card.slots.items()),
            "pairs without a common slot": str(card.pairs_without_shared_slot),
            "intervals": resampling,
            "notes on the data": "; ".join(protocol.notes) or "none",
            "model": card.fingerprint or "unnamed",
            "made by": ", ".join([f"occluded_reid {card.version}", *(f"{n} {v}" for n, v in card.libraries.items())]),
        }

    @property
    def _skipped(self) -> str:
        """How many queries were skipped, and whether the gallery does not show the person or only under one camera."""
        skipped, own = self.unanswerable, self.card.only_own_camera
        text = f"{skipped} without anything to find, skipped"
        if not skipped or own is None:
            return text
        return f"{text} ({skipped - own} not in the gallery at all, {own} only under the query's own camera)"

    def sheet(self) -> Sheet:
        """Return the numbers with intervals, and the protocol as facts."""
        interval = f"{self.protocol.confidence:.0%} interval"
        rows = [[name, f"{value:.1%}", str(self.intervals.get(name, "–"))] for name, value in self.metrics.items()]
        return Sheet(("metric", "value", interval), rows, self.facts, self.protocol.name or self.protocol.dataset)

    def records(self) -> list[dict[str, Any]]:
        """Return each number with the bounds of its interval."""
        return [
            {"metric": name, "value": value, **_bounds(self.intervals.get(name))}
            for name, value in self.metrics.items()
        ]

    def table(self) -> Table:
        """Return the numbers with intervals, and the protocol below them, as a rich table."""
        sheet = self.sheet()
        # The protocol's sentences need the room of both columns.
        rows = [(name, f"{value:>6}  {interval}".replace("  –", "")) for name, value, interval in sheet.rows]
        return replace(sheet, header=("metric", "value and interval"), rows=rows, words=2).rich(facts=True)

    def __str__(self) -> str:
        numbers = [
            f"{name:8}{value:7.1%}" + (f"  {self.intervals[name]}" if self.intervals else "")
            for name, value in self.metrics.items()
        ]
        return "\n".join([*numbers, *(f"{key}: {value}" for key, value in self.facts.items())])

    @property
    def query_values(self) -> np.ndarray:
        """(answerable queries, numbers): what the means of `metrics` are taken over, in their order."""
        return self._values()

    def _values(self, ranks: tuple[int, ...] | None = None) -> np.ndarray:
        keep = self.answerable
        first = self.first_match_rank[keep]
        hits = [(first <= k).reshape(len(first), -1).mean(1) for k in ranks or self.protocol.ranks]
        others = [self.average_precision[keep], self.inverse_negative_penalty[keep]]
        return np.stack(hits if self.protocol.shots == "single" else [*hits, *others], axis=1)


def require_answers(answerable: int, query: Labelled, gallery: Labelled, protocol: Protocol) -> None:
    """Raise EvaluationError where no query has anything to find."""
    if answerable:
        return
    shown = int(np.isin(query.identity, gallery.identity).sum())
    if not shown or not protocol.exclude_same_camera:
        raise EvaluationError(
            f"none of the {len(query)} queries has an image of its identity among the {len(gallery)} gallery images. "
            "Are identities numbered alike in both sets?"
        )
    cameras = len(np.unique(np.concatenate([query.camera, gallery.camera])))
    every = "All images are of one camera: " if cameras == 1 else "Are cameras numbered alike in both sets? "
    raise EvaluationError(
        f"none of the {len(query)} queries has an image of its identity from another camera among the {len(gallery)} "
        f"gallery images; {shown} have some of the same camera, which the rule of the benchmarks leaves out. {every}"
        "exclude_same_camera=False (--no-exclude-same-camera) keeps them; numbers then count images of the same moment "
        "too, and look better than they are."
    )


def report_of(
    numbers: tuple[np.ndarray, np.ndarray, np.ndarray],
    query: Labelled,
    gallery: Labelled,
    protocol: Protocol,
    *,
    excluded: int,
    unshared: int,
    slots: Mapping[str, int],
    matcher: Mapping[str, Any],
    fingerprint: str = "",
    reranking: str = "",
    tuned: str = "",
    test_time: str = "",
) -> Report:
    """Return the report of some numbers.

    Args:
        numbers: average precision, rank of the first match and inverse negative penalty of each query.
        query: who was asked for.
        gallery: who was searched.
        protocol: the rules.
        excluded: pairs dropped for having one identity and one camera.
        unshared: pairs without a common slot.
        slots: slot name -> width.
        matcher: type and options.
        fingerprint: of the model.
        reranking: in words.
        tuned: what was chosen on which data, in words.
        test_time: what was done to images or embeddings beside the model itself, in words.
    """
    card = ProtocolCard(
        queries=len(query),
        gallery=len(gallery),
        query_identities=len(np.unique(query.identity)),
        gallery_identities=len(np.unique(gallery.identity)),
        excluded_pairs=excluded,
        pairs_without_shared_slot=unshared,
        slots=slots,
        matcher=matcher,
        fingerprint=fingerprint,
        version=__version__,
        queries_sha256=_digest(query),
        gallery_sha256=_digest(gallery, ordered=False),
        reranking=reranking,
        tuned=tuned,
        test_time=test_time,
        only_own_camera=_only_own_camera(numbers[1], query, gallery),
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    )
    return Report(protocol, card, *numbers)


def _bounds(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _only_own_camera(first_rank: np.ndarray, query: Labelled, gallery: Labelled) -> int:
    """Queries without an answer whose person the gallery shows: all of those images are of the query's camera."""
    unanswered = first_rank.reshape(len(first_rank), -1)[:, 0] == 0
    return int(np.isin(query.identity[unanswered], gallery.identity).sum())


def _digest(images: Labelled, *, ordered: bool = True) -> str:
    """Hash of who the images show, so that only reports over the same images are paired.

    Args:
        images: identities, cameras and names.
        ordered: whether another order is another set of images: numbers of queries are paired by position, but the
            order of a gallery changes nothing.
    """
    names = images.paths or ("",) * len(images)
    lines = [f"{i},{c},{n}" for i, c, n in zip(images.identity, images.camera, names, strict=True)]
    return hashlib.sha256(text_bytes("\n".join(lines if ordered else sorted(lines)))).hexdigest()
