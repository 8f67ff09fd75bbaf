"""What a person has decided about pairs of tracks: a log that later runs respect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from occluded_reid.arguments import shown
from occluded_reid.errors import AssociationError
from occluded_reid.files import read_json, write_json

__all__ = ["Decision", "Decisions", "Verdict"]

FORMAT = "occluded_reid.decisions"
Verdict = Literal["same", "different", "withdrawn"]


class Decision(BaseModel):
    """One decision about two tracks.

    Attributes:
        first: name of a track.
        second: name of another one.
        verdict: "same" person (must-link), "different" people (cannot-link), or "withdrawn": nothing is
            decided any more.
        when: date and time, ISO 8601.
        by: who decided, or "".
        note: why, or "".
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    first: str = Field(min_length=1)
    second: str = Field(min_length=1)
    verdict: Verdict
    when: str
    by: str = ""
    note: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        """Both names, sorted."""
        return (self.first, self.second) if self.first <= self.second else (self.second, self.first)


@dataclass
class Decisions:
    """A log of decisions, oldest first; of several about one pair the last one holds, and none is ever taken out.

    Example:
        >>> log = Decisions()
        >>> _ = log.decide("c1-17", "c2-4", "same", by="Ada")
        >>> _ = log.decide("c2-4", "c1-17", "different", note="other shoes")
        >>> list(log.pairs("same")), list(log.pairs("different"))
        ([], [('c1-17', 'c2-4')])
    """

    log: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.log, list) or not all(isinstance(each, Decision) for each in self.log):
            raise AssociationError(f"log is {shown(self.log)}; give a list of Decision, or nothing.")

    def __len__(self) -> int:
        return len(self.log)

    def decide(self, first: str, second: str, verdict: Verdict, *, by: str = "", note: str = "") -> Decision:
        """Add a decision to the log.

        Raises:
            AssociationError: both are one track, or the verdict is none.
        """
        if first == second:
            raise AssociationError(f"a decision names the track {first!r} twice; give two tracks.")
        try:
            made = Decision(
                first=first,
                second=second,
                verdict=verdict,
                when=datetime.now(UTC).isoformat(timespec="seconds"),
                by=by,
                note=note,
            )
        except ValidationError as cause:
            wrong = cause.errors()[0]
            raise AssociationError(
                f"a decision cannot be kept: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}. Give two names of "
                "tracks and 'same', 'different' or 'withdrawn'."
            ) from cause
        self.log.append(made)
        return made

    def pairs(self, verdict: Verdict) -> Iterator[tuple[str, str]]:
        """Yield the pairs of names, sorted, about which this holds now."""
        holds = {decision.pair: decision.verdict for decision in self.log}
        return (pair for pair in sorted(holds) if holds[pair] == verdict)

    def without(self, names: Sequence[str]) -> Decisions:
        """Return the log without what is about these tracks, for those whose tracks are erased."""
        gone = set(names)
        return Decisions([decision for decision in self.log if not gone & {decision.first, decision.second}])

    def save(self, path: str | Path) -> None:
        """Write the log as JSON, whole or not at all.

        Raises:
            AssociationError: the file cannot be written.
        """
        content = {"format": FORMAT, "format_version": 1, "decisions": [d.model_dump(mode="json") for d in self.log]}
        write_json(path, content, AssociationError)

    @staticmethod
    def load(path: str | Path) -> Decisions:
        """Read what `save` has written.

        Raises:
            AssociationError: the file is missing, damaged, or something else.
        """
        content = read_json(path, AssociationError)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise AssociationError(f"'{path}' holds no decisions; write them with Decisions.save().")
        if content.get("format_version") != 1 or not isinstance(content.get("decisions"), list):
            raise AssociationError(f"the decisions '{path}' are damaged, or of a newer library. Update or restore.")
        try:
            return Decisions([Decision.model_validate(each) for each in content["decisions"]])
        except ValidationError as cause:
            wrong = cause.errors()[0]
            raise AssociationError(
                f"the decisions '{path}' are damaged: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}. Restore them "
                "from a copy."
            ) from cause
