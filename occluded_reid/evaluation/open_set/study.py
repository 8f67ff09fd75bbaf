"""Everything that is measured of open sets, together: identification, verification, reliability, and the promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occluded_reid.arguments import checked
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.pair_counts import count_pairs
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import PeopleResampling
from occluded_reid.evaluation.open_set.identification import Identification, evaluate_identification
from occluded_reid.evaluation.open_set.reliability import Reliability, evaluate_reliability
from occluded_reid.evaluation.open_set.threshold import OpenSetReport, evaluate_open_set
from occluded_reid.evaluation.open_set.verification import Verification, evaluate_verification
from occluded_reid.evaluation.tables import markdown_table
from occluded_reid.files import write_json, write_text
from occluded_reid.matchers.base import Matcher

if TYPE_CHECKING:
    from rich.table import Table

    from occluded_reid.visualize import LineChart

__all__ = ["OpenSetStudy", "open_set_study"]

_WALKS = 4  # of the counts two, of the searches one, of the promise one
_DRAWN_FROM = 100  # matches


@dataclass(frozen=True)
class OpenSetStudy:
    """What a model does where people may not be in the gallery.

    Attributes:
        identification: searches for known and unknown people.
        verification: pairs.
        reliability: of the calibration's match probability.
        promise: what the calibration's threshold does: the only threshold here that may be deployed.
        notes: how people and images came about, in words.
    """

    identification: Identification
    verification: Verification
    reliability: Reliability
    promise: OpenSetReport
    notes: Mapping[str, str] = field(default_factory=dict)

    def tables(self) -> tuple[Table, ...]:
        """Return the numbers for a terminal."""
        return tuple(part.table() for part in (self.identification, self.verification, self.reliability, self.promise))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        calibration = self.reliability.calibration
        return {
            "identification": self.identification.to_dict(),
            "verification": self.verification.to_dict(),
            "reliability": self.reliability.to_dict(),
            "promise": {"calibrated": calibration.promise, **self.promise.to_dict()},
            "notes": dict(self.notes),
        }

    def markdown(self, title: str = "Open set") -> str:
        """Return a page: numbers, what they stand on, and the pictures that `write` puts beside it."""
        calibration = self.reliability.calibration
        rows = [
            ["unknown person answered, per search", str(self.promise.unknown_answered)],
            ["known person found, per search", str(self.promise.known_found)],
            ["two people taken for one, per comparison", f"{self.promise.false_match_rate:.4%}"],
        ]
        lines = [
            f"# {title}",
            "",
            *(f"- {name}: {note}" for name, note in self.notes.items()),
            "",
            "## The calibrated threshold",
            "",
            f"Made on other people, with the promise that {calibration.promise}. It is the only threshold of this page "
            "that may be deployed; test it on your own cameras first.",
            "",
            markdown_table(["on people it was not made with", "share"], rows),
            "",
            "## Known and unknown people",
            "",
            f"![{_CHARTS[0][1]}]({_CHARTS[0][0]})",
            "",
            self.identification.to_markdown().rstrip(),
            "",
            "## One person or two",
            "",
            f"![{_CHARTS[1][1]}]({_CHARTS[1][0]})",
            "",
            self.verification.to_markdown().rstrip(),
            "",
            "## Match probability",
            "",
            f"![{_CHARTS[2][1]}]({_CHARTS[2][0]})",
            "",
            self.reliability.to_markdown().rstrip(),
        ]
        return "\n".join(lines) + "\n"

    def charts(self) -> tuple[LineChart, LineChart, LineChart]:
        """Return DIR over FAR, FNMR over FMR, and the reliability diagram."""
        from occluded_reid.visualize.plots import detection_curves, error_curves, reliability_curves

        ranks = list(dict.fromkeys(point.rank for point in self.identification.points))
        detection = {f"rank {rank}": self.identification.best(rank) for rank in ranks}
        rate, missed = self.verification.thinned()
        # A line through a few pairs a bin would show chance.
        drawn = [group for group in self.reliability.groups if group.matches >= _DRAWN_FROM and group.bins]
        groups = [self.reliability.everything, *drawn]
        return (
            detection_curves({name: (x.tolist(), y.tolist()) for name, (x, y) in detection.items()}),
            error_curves({"all comparisons": (rate.tolist(), missed.tolist())}),
            reliability_curves({g.name: ([b.predicted for b in g.bins], [b.observed for b in g.bins]) for g in groups}),
        )

    def write(self, folder: str | Path, *, title: str = "Open set") -> tuple[Path, ...]:
        """Write open_set.json, open_set.md and three pictures into a folder, each whole or not at all.

        Returns:
            Their paths.

        Raises:
            EvaluationError: a file cannot be written.
        """
        from occluded_reid.visualize.saving import save_picture

        root = Path(folder)
        paths = [root / "open_set.json", root / "open_set.md", *(root / name for name, _ in _CHARTS)]
        write_json(paths[0], self.to_dict(), EvaluationError)
        write_text(paths[1], self.markdown(title), EvaluationError)
        for path, chart in zip(paths[2:], self.charts(), strict=True):
            save_picture(chart.image(), path)
        return tuple(paths)


_CHARTS = (
    ("dir_far.png", "known people found over unknown searches answered"),
    ("fnmr_fmr.png", "false non-matches over false matches"),
    ("reliability.png", "pairs that match over the probability said"),
)


@checked(EvaluationError)
def open_set_study(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    calibration: Calibration,
    *,
    ranks: Sequence[int] = (1, 5),
    resampling: PeopleResampling | None = None,
    data: str = "",
    people: Sequence[str] = (),
    fingerprint: str = "",
    notes: Mapping[str, str] | None = None,
    tile_rows: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> OpenSetStudy:
    """Measure all of it on people that the calibration was not made with; matches of one camera as it has them.

    Memory and time: see `count_pairs`, `evaluate_identification` and `evaluate_open_set`; four walks over all pairs.

    Args:
        query: Nq labelled rows.
        gallery: Ng labelled rows.
        matcher: the distance.
        calibration: made with other people.
        ranks: of the DIR-FAR curves.
        resampling: of people, behind the intervals.
        data: name of the data.
        people: names of the people within it; of those calibrated with, no person may come again.
        fingerprint: of the model.
        notes: how people and images came about, in words, for the report.
        tile_rows: gallery rows at a time: changes time and memory, never a number.
        progress: called with (gallery rows done, gallery rows in all walks).

    Raises:
        EvaluationError: people of the calibration are among these, or there is nothing to measure.
        CalibrationError: the calibration was made for another model, matcher or other slots.
    """
    resampling = resampling or PeopleResampling()
    done = 0

    def move(now: int, total: int) -> None:
        nonlocal done
        if progress is not None:
            # What takes fewer walks than foreseen ends where it would have ended.
            progress(done + now, _WALKS * len(gallery))
            done += total if now == total else 0

    promise = evaluate_open_set(
        query,
        gallery,
        matcher,
        calibration,
        data=data,
        people=people,
        exclude_same_camera=calibration.exclude_same_camera,
        resamples=resampling.resamples,
        confidence=resampling.confidence,
        seed=resampling.seed,
        tile_rows=tile_rows,
        progress=move,
    )
    identification = evaluate_identification(
        query,
        gallery,
        matcher,
        ranks=ranks,
        exclude_same_camera=calibration.exclude_same_camera,
        resampling=resampling,
        data=data,
        fingerprint=fingerprint,
        tile_rows=tile_rows,
        progress=move,
    )
    counts = count_pairs(
        query,
        gallery,
        matcher,
        exclude_same_camera=calibration.exclude_same_camera,
        tile_rows=tile_rows,
        progress=move,
    )
    return OpenSetStudy(
        identification,
        evaluate_verification(counts, resampling=resampling, data=data, fingerprint=fingerprint),
        evaluate_reliability(counts, calibration, data=data, people=people, fingerprint=fingerprint or None),
        promise,
        dict(notes or {}),
    )
