"""What an evaluation counts, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from occluded_reid.errors import EvaluationError

__all__ = ["MAX_RANK", "Protocol"]

MAX_RANK = 50
"""Length of the CMC curve."""


@dataclass(frozen=True)
class Protocol:
    """The rules behind a report's numbers; printed beside them.

    The default is the rule of Market-1501, DukeMTMC-reID and their occluded successors: a gallery image of the query's
    identity and camera is dropped, and a query without any other image of its identity is skipped (and counted).

    Args:
        dataset: name of the data, for the report.
        name: name of this comparison, for the report: "SORN, 20 % occluded".
        ranks: CMC ranks that the table shows, each 1 … 50.
        ap: average precision by "hits" (mean precision at the hits) or by "trapezoid" (mean of the precision just
            before and at each hit, as the MATLAB evaluation of Market-1501 does).
        exclude_same_camera: drop gallery images of the query's identity and camera.
        bootstrap: resamples of the queries behind the intervals; 0 leaves the intervals out.
        confidence: of the intervals.
        seed: of the resampling.
        tile_rows: gallery rows at a time: changes time and memory, never a number.

    Raises:
        EvaluationError: a value makes no sense.
    """

    dataset: str = ""
    name: str = ""
    ranks: tuple[int, ...] = (1, 5, 10)
    ap: Literal["hits", "trapezoid"] = "hits"
    exclude_same_camera: bool = True
    bootstrap: int = 1000
    confidence: float = 0.95
    seed: int = 0
    tile_rows: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", tuple(self.ranks))
        if not self.ranks or any(not 1 <= rank <= MAX_RANK for rank in self.ranks):
            raise EvaluationError(f"ranks are {self.ranks}; give one or more between 1 and {MAX_RANK}.")
        if self.ap not in ("hits", "trapezoid"):
            raise EvaluationError(f"ap is {self.ap!r}; give 'hits' or 'trapezoid'.")
        if self.bootstrap < 0 or self.tile_rows < 1 or not 0 < self.confidence < 1:
            raise EvaluationError(
                f"bootstrap is {self.bootstrap}, tile_rows {self.tile_rows} and confidence {self.confidence}; "
                "wanted at least 0, at least 1, and between 0 and 1."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return {**asdict(self), "ranks": list(self.ranks)}
