"""What a reduction of the embeddings costs: two reports over the same queries, and what is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import ReIDData
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import Comparison
from occluded_reid.evaluation.embed import embed_samples
from occluded_reid.evaluation.evaluate import evaluate
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.report import Report
from occluded_reid.evaluation.tables import Sheet, Tabular
from occluded_reid.matchers.base import Matcher
from occluded_reid.models import ReIDModel
from occluded_reid.search.projection import Reduction

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["FIT_IMAGES", "ReductionLoss", "fit_on_training", "reduction_loss"]

FIT_IMAGES = 8192
"""A reduction is fitted on at most so many training images, spread evenly over all of them."""


@dataclass(frozen=True)
class ReductionLoss(Tabular):
    """Reports with full and with reduced embeddings, paired by query.

    Attributes:
        full: report of the embeddings as they are.
        reduced: report of the reduced ones.
        difference: reduced minus full, with paired intervals.
        reduction: what was done to them.
        fitted_on: what it was fitted on, in words.
    """

    full: Report
    reduced: Report
    difference: Comparison
    reduction: Reduction
    fitted_on: str

    @property
    def facts(self) -> dict[str, str]:
        """What the numbers stand on, by name."""
        before, after = self.reduction.bytes_per_image()
        kept = ", ".join(
            f"{name} {self.reduction.slots_in[name]} to {self.reduction.slots_out[name]} ({share:.1%} of the energy)"
            for name, share in self.reduction.explained.items()
        )
        return {
            "reduction": f"{self.reduction.fingerprint}: {kept}",
            "fitted on": self.fitted_on,
            "bytes of an image, float16": f"{before} to {after} ({after / before:.1%})",
        }

    def sheet(self) -> Sheet:
        """Return the numbers side by side."""
        rows = [
            [name, f"{value:.1%}", f"{self.reduced.metrics[name]:.1%}", str(self.difference[name])]
            for name, value in self.full.metrics.items()
        ]
        header = ("metric", "full", "reduced", "reduced − full")
        return Sheet(header, rows, self.facts, "what the reduction costs", words=4)

    def records(self) -> list[dict[str, Any]]:
        """Return each number with and without the reduction, and the paired difference."""
        return [
            {
                "metric": name,
                "full": value,
                "reduced": self.reduced.metrics[name],
                "difference": (found := self.difference[name]).value,
                "low": found.interval.low,
                "high": found.interval.high,
            }
            for name, value in self.full.metrics.items()
        ]

    def table(self) -> Table:
        """Return the numbers side by side for a terminal, and what they stand on below them."""
        return self.sheet().rich(facts=True)

    def __str__(self) -> str:
        lines = [
            f"{name:8}{value:7.1%} full {self.reduced.metrics[name]:7.1%} reduced  {self.difference[name]}"
            for name, value in self.full.metrics.items()
        ]
        return "\n".join([*lines, *(f"{key}: {fact}" for key, fact in self.facts.items())])

    def to_dict(self) -> dict[str, Any]:
        """Return the loss as JSON knows it."""
        before, after = self.reduction.bytes_per_image()
        return {
            "fingerprint": self.reduction.fingerprint,
            "slots_in": dict(self.reduction.slots_in),
            "slots_out": dict(self.reduction.slots_out),
            "explained": dict(self.reduction.explained),
            "fitted_on": self.fitted_on,
            "float16_bytes_per_image": {"full": before, "reduced": after},
            "full": {"metrics": self.full.metrics},
            "reduced": {"metrics": self.reduced.metrics},
            "difference": {
                name: {"value": d.value, "low": d.interval.low, "high": d.interval.high}
                for name, d in self.difference.differences.items()
            },
        }


def reduction_loss(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    reduction: Reduction,
    protocol: Protocol | None = None,
    *,
    fingerprint: str = "",
    fitted_on: str = "unsaid",
) -> ReductionLoss:
    """Evaluate the same queries with full and with reduced embeddings.

    Memory: both sets a second time, reduced, and one tile of distances.

    Args:
        query: labelled rows with the full widths.
        gallery: likewise.
        matcher: the distance of both.
        reduction: fitted on other images than these.
        protocol: what counts; its bootstrap settings serve the paired difference too.
        fingerprint: of the model, for the reports.
        fitted_on: what the reduction was fitted on, in words, for the report.

    Raises:
        EvaluationError: the sets do not make an evaluation.
        EmbeddingError: the reduction does not fit the embeddings or the matcher.
    """
    protocol = protocol or Protocol()
    reduction.require(matcher=matcher, model=fingerprint or None)
    full = evaluate(query, gallery, matcher, protocol, fingerprint=fingerprint)
    queries, images = (replace(rows, embeddings=reduction.apply(rows.embeddings)) for rows in (query, gallery))
    name = f"{protocol.name}, reduced by {reduction.fingerprint}".removeprefix(", ")
    reduced = evaluate(queries, images, matcher, replace(protocol, name=name), fingerprint=fingerprint)
    difference = reduced.compare(
        full,
        resamples=protocol.bootstrap or Protocol.bootstrap,
        seed=protocol.seed,
        confidence=protocol.confidence,
    )
    return ReductionLoss(full, reduced, difference, reduction, fitted_on)


@checked(EvaluationError)
def fit_on_training(
    model: ReIDModel,
    data: ReIDData,
    widths: Mapping[str, int],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Reduction, str]:
    """Fit a reduction on the training split, and say in words what it was fitted on.

    Memory: the embeddings of at most 8,192 images.

    Args:
        model: embeds, and gives matcher and fingerprint.
        data: with a training split, which shares no identity with queries and gallery.
        widths: slot -> width.
        progress: called with (images embedded, images to embed).

    Raises:
        EvaluationError: there are no training images, or a person is both in training and among the queries.
        EmbeddingError: the widths do not fit the slots or the number of images.
    """
    if not data.train:
        raise EvaluationError(
            f"'{data.name}' has no training images to fit a reduction on, and the test images are not for fitting. "
            "Give a data set with a training split."
        )
    if both := set(data.identities("train")) & set(data.identities("query")):
        raise EvaluationError(
            f"{len(both)} people of '{data.name}', such as '{min(both)}', are both in training and asked for; a "
            "reduction fitted on them would flatter itself. Split people, or hold some out."
        )
    chosen = np.unique(np.linspace(0, len(data.train) - 1, FIT_IMAGES).round().astype(int))
    samples = [data.train[i] for i in chosen]
    sample = embed_samples(model, data, samples, progress=progress)
    people = len({image.identity for image in samples})
    reduction = Reduction.fit(sample.embeddings, widths, matcher=model.matcher, model=model.fingerprint)
    return reduction, f"{len(samples)} of the {len(data.train)} training images of '{data.name}', {people} people"
