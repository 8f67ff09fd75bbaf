"""Choosing settings on a validation side: every candidate on the same queries, the best one with its difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.evaluate import evaluate
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.report import Report
from occluded_reid.evaluation.studies.tuned import Setting, Trial, Tuned, winner
from occluded_reid.matchers.base import Matcher
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

if TYPE_CHECKING:
    from occluded_reid.models import ReIDModel

__all__ = ["Candidate", "StripeThreshold", "at_threshold", "stripe_threshold", "tune", "without_threshold"]


@dataclass(frozen=True)
class StripeThreshold:
    """τ of a head: from which share of body on a slot counts as visible (SORN Eq. 12).

    Attributes:
        head: its name in the model.
        slots: the slots that it gives a visibility.
        value: τ.
    """

    head: str
    slots: tuple[str, ...]
    value: float


@dataclass(frozen=True)
class Candidate:
    """Settings that are tried together.

    Attributes:
        matcher: the distance.
        threshold: what turns shares of body into visibility; needs embeddings made `without_threshold`. None takes the
            visibility as it is.
        rerank: re-ranking by k-reciprocal encodings, or None.
    """

    matcher: Matcher
    threshold: StripeThreshold | None = None
    rerank: KReciprocal | None = None

    @property
    def setting(self) -> Setting:
        """The candidate as a file holds it."""
        return Setting(
            matcher=self.matcher.config,
            head=None if self.threshold is None else self.threshold.head,
            threshold=None if self.threshold is None else float(self.threshold.value),
            rerank=None if self.rerank is None else asdict(self.rerank),
        )


@checked(EvaluationError)
def tune(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    candidates: Mapping[str, Matcher | Candidate],
    *,
    data: str,
    identities: Sequence[str],
    metric: str = "mAP",
    default: str | None = None,
    protocol: Protocol | None = None,
    part: str = "",
    fingerprint: str | None = None,
    trained_on: int | None = None,
    tile_rows: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Try candidates on a validation side and choose the best; of equals the default, then the first.

    Memory: that of one evaluation, and for each candidate a few numbers.

    Args:
        query: Nq labelled rows of people who will not be tested on.
        gallery: Ng labelled rows of the same people.
        candidates: name -> matcher, or matcher with threshold and re-ranking.
        data: name of the data.
        identities: the people among the rows, by name: numbers change with what else is loaded.
        metric: "mAP", "mINP" or "Rank-1", …
        default: the candidate that stands for "nothing tuned"; None is the first.
        protocol: what counts; its bootstrap settings make the intervals.
        part: what of the data this is, in words.
        fingerprint: of the model.
        trained_on: how many of these people the model was trained on; None where that is not known.
        tile_rows: gallery rows at a time: changes time and memory, never a number.
        progress: called with (candidates done, candidates in all).

    Raises:
        EvaluationError: there are no candidates, no such default or metric, too few names for the people, or a
            candidate cannot be evaluated.

    Example:
        >>> import torch
        >>> from occluded_reid.embeddings import PartEmbeddings
        >>> from occluded_reid.matchers import PlainMatcher
        >>> rows = PartEmbeddings(("a", "b"), (torch.eye(2), torch.eye(2).flip(0)), torch.ones(2, 2))
        >>> turned = PartEmbeddings(("a", "b"), (torch.eye(2), torch.eye(2)), torch.ones(2, 2))
        >>> query, gallery = EmbeddedSet(rows, [0, 1], [0, 0]), EmbeddedSet(turned, [1, 0], [1, 1])
        >>> found = tune(
        ...     query,
        ...     gallery,
        ...     {"both": PlainMatcher(), "b": PlainMatcher(weights={"a": 0})},
        ...     data="toy",
        ...     identities=["x", "y"],
        ... )
        >>> found.chosen, found.choice.value
        ('b', 1.0)
    """
    named = {name: c if isinstance(c, Candidate) else Candidate(c) for name, c in candidates.items()}
    default = next(iter(named), "") if default is None else default
    if default not in named:
        raise EvaluationError(
            f"the default candidate is '{default}'; there are: {', '.join(named) or 'none'}. Name one of them."
        )
    people = len(np.unique(query.identity))
    if len(set(identities)) < people:
        raise EvaluationError(
            f"{len(set(identities))} names are given for {people} people; name everybody who is tuned on, so that "
            "none of them is tested on: data.identities('query')."
        )
    protocol = _protocol(protocol or Protocol(), metric)
    order = [default, *(name for name in named if name != default)]
    base: Report | None = None
    trials: dict[str, Trial] = {}
    for done, name in enumerate(order, 1):
        report = _report(query, gallery, named[name], protocol, fingerprint, tile_rows)
        base = report if base is None else base
        minus = report.compare(
            base, resamples=protocol.bootstrap, seed=protocol.seed, confidence=protocol.confidence
        ).differences[metric]
        interval = report.intervals[metric]
        trials[name] = Trial(
            name=name,
            setting=named[name].setting,
            value=report.metrics[metric],
            interval=[interval.low, interval.high],
            difference=minus.value,
            difference_interval=[minus.interval.low, minus.interval.high],
        )
        if progress is not None:
            progress(done, len(order))
    return Tuned(
        model=fingerprint or None,
        data=data,
        part=part,
        identities=sorted(set(identities)),
        trained_on=trained_on,
        queries=len(query),
        gallery=len(gallery),
        seed=protocol.seed,
        resamples=protocol.bootstrap,
        confidence=protocol.confidence,
        metric=metric,
        default=default,
        chosen=winner({name: trials[name].value for name in named}, default),
        trials=[trials[name] for name in named],
    )


def at_threshold(rows: EmbeddedSet, threshold: StripeThreshold) -> EmbeddedSet:
    """Turn shares of body into visibility as the head does: 1 from τ on, 0 below; other slots stay.

    Args:
        rows: embedded `without_threshold`.
        threshold: head, slots and τ.
    """
    embeddings = rows.embeddings
    columns = [embeddings.names.index(slot) for slot in threshold.slots]
    visibility = embeddings.visibility.clone()
    visibility[:, columns] = (visibility[:, columns] >= threshold.value).to(visibility.dtype)
    return replace(rows, embeddings=embeddings.with_visibility(visibility))


def stripe_threshold(model: ReIDModel) -> StripeThreshold | None:
    """Return the threshold of the head that has one; None where visibility is soft, or no head gives any.

    Raises:
        EvaluationError: several heads have one.
    """
    values = {
        name: getattr(head, "threshold", None)
        for name, head in model.parts.items()
        if hasattr(head, "visibility_of_foreground")
    }
    found = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    if len(found) > 1:
        raise EvaluationError(
            f"the heads {', '.join(found)} of '{model.name}' each have a threshold; only one can be tuned at a time. "
            "Make the visibility of the others soft."
        )
    for name, value in found.items():
        slots = tuple(slot for slot in model.parts[name].info.visibility_of if slot in model.slots)
        return StripeThreshold(name, slots, value)
    return None


@contextmanager
def without_threshold(model: ReIDModel) -> Iterator[None]:
    """Let the model give shares of body instead of their indicator, for as long as the block lasts.

    One embedding then serves every τ: `at_threshold` gives what the model gives at that τ, bit by bit. The model must
    not be used elsewhere meanwhile.
    """
    found = stripe_threshold(model)
    if found is None:
        yield
        return
    head: Any = model.parts[found.head]
    before = head.threshold
    head.threshold = None
    try:
        yield
    finally:
        head.threshold = before


def _report(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    candidate: Candidate,
    protocol: Protocol,
    fingerprint: str | None,
    tile_rows: int,
) -> Report:
    sides = (query, gallery)
    if candidate.threshold is not None:
        sides = (at_threshold(query, candidate.threshold), at_threshold(gallery, candidate.threshold))
    options: dict[str, Any] = {"fingerprint": fingerprint or "", "tile_rows": tile_rows}
    return evaluate(*sides, candidate.matcher, protocol, rerank=candidate.rerank, **options)


def _protocol(protocol: Protocol, metric: str) -> Protocol:
    """The protocol with the rank that is asked for, and with resamples."""
    rank = re.fullmatch(r"Rank-([1-9]\d*)", metric)
    defined = metric in ("mAP", "mINP") and protocol.shots == "multi"
    if rank is None and not defined:
        raise EvaluationError(
            f"the metric is '{metric}'; give mAP, mINP (not with single shots), or Rank-1, Rank-5, …."
        )
    ranks = protocol.ranks if rank is None else (int(rank[1]),)
    return replace(protocol, ranks=ranks, bootstrap=protocol.bootstrap or Protocol.bootstrap)
