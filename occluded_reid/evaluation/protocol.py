"""What an evaluation counts, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from occluded_reid.arguments import check_fields, is_several, shown
from occluded_reid.data.dataset import NO_CAMERAS, ReIDData
from occluded_reid.errors import EvaluationError

__all__ = ["CAMERAS_UNKNOWN", "MAX_RANK", "MOST_DRAWS", "Protocol"]

CAMERAS_UNKNOWN = (
    "which camera took an image is not known: other images of the same moment count as matches, so Rank-1 and mAP look "
    "better than they are"
)
"""Said first of all, wherever numbers are shown that no camera rule stands behind."""

MAX_RANK = 50
"""Length of the CMC curve in pictures and files; `Report.rank` answers for any rank."""


MOST_DRAWS = 10_000_000
"""Resamples, or galleries, that are drawn: what still fits into memory."""


@dataclass(frozen=True)
class Protocol:
    """The rules behind a report's numbers; printed beside them.

    The default is the rule of Market-1501, DukeMTMC-reID and their occluded successors: a gallery image of the query's
    identity and camera is dropped, and a query without any other image of its identity is skipped (and counted).

    Args:
        dataset: name of the data, for the report.
        split: which part of it, for the report: "test", "hold-out of 100 training identities, seed 0".
        name: name of this comparison, for the report: "SORN, 20 % occluded".
        ranks: CMC ranks that the table shows, each at least 1.
        ap: average precision by "hits" (mean precision at the hits) or by "trapezoid" (mean of the precision just
            before and at each hit, as the MATLAB evaluation of Market-1501 does).
        exclude_same_camera: drop gallery images of the query's identity and camera. Where all images are of one camera
            nothing would be left to find: False keeps them (and near-duplicates with them).
        shots: "multi" ranks all gallery images. "single" ranks one random image of each identity, as CUHK03's first
            protocol does; CMC is the mean over the draws, and mAP and mINP are not defined.
        draws: how often "single" draws a gallery.
        bootstrap: resamples of the queries behind the intervals; 0 leaves the intervals out.
        confidence: of the intervals.
        seed: of the resampling, and of the draws of "single".
        cameras_known: False where nothing says which camera took an image, so that the rule drops nothing.
        notes: what the loader of the data said, for the report.

    Raises:
        EvaluationError: a value makes no sense.
    """

    dataset: str = ""
    split: str = ""
    name: str = ""
    ranks: tuple[int, ...] = (1, 5, 10)
    ap: Literal["hits", "trapezoid"] = "hits"
    exclude_same_camera: bool = True
    shots: Literal["multi", "single"] = "multi"
    draws: int = 10
    bootstrap: int = 1000
    confidence: float = 0.95
    seed: int = 0
    cameras_known: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ranks", "notes"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if is_several(value) else value)
        check_fields(self, EvaluationError)
        if not self.ranks or any(rank < 1 for rank in self.ranks):
            raise EvaluationError(f"ranks are {self.ranks}; give one or more, each at least 1.")
        if self.ap not in ("hits", "trapezoid"):
            raise EvaluationError(f"ap is {self.ap!r}; give 'hits' or 'trapezoid'.")
        if self.shots not in ("multi", "single") or self.draws < 1:
            raise EvaluationError(
                f"shots is {self.shots!r} with {self.draws} draws; give 'multi' or 'single', and at least 1 draw."
            )
        if self.seed < 0:
            raise EvaluationError(f"the seed is {self.seed}; give 0 or more.")
        if max(self.bootstrap, self.draws) > MOST_DRAWS:
            raise EvaluationError(
                f"bootstrap is {shown(self.bootstrap)} and draws {shown(self.draws)}; give at most {MOST_DRAWS:,}."
            )
        if self.bootstrap < 0 or not 0 < self.confidence < 1:
            raise EvaluationError(
                f"bootstrap is {self.bootstrap} and confidence {self.confidence}; wanted at least 0, and between 0 and "
                "1."
            )

    @staticmethod
    def of(data: ReIDData, **changes: Any) -> Protocol:
        """Return the protocol of a data set: the rules of its benchmark, and what it is called.

        Args:
            data: the data set; own images have the common rule.
            **changes: of other fields, or of the same.

        Raises:
            EvaluationError: a change makes no sense.
        """
        known: dict[str, Any] = {
            "dataset": data.name + (f" ({data.variant})" if data.variant else ""),
            "split": data.part,
            "cameras_known": data.cameras_known,
            "notes": tuple(note for note in data.notes if not note.startswith(NO_CAMERAS)),  # the field says it
        }
        if data.benchmark is not None:
            known |= {
                "ranks": data.benchmark.ranks,
                "exclude_same_camera": data.benchmark.exclude_same_camera,
                "shots": data.benchmark.shots,
            }
        try:
            return Protocol(**{**known, **changes})
        except TypeError as error:
            raise EvaluationError(f"a protocol has no such rule: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return {**asdict(self), "ranks": list(self.ranks), "notes": list(self.notes)}
