"""The indexes of a gallery: what lies in its folder `indexes/`, and how their rows stand in a version of the table.

An index is derived from the table and can always be built again. It holds a copy of all rows side by side, to score
candidates from, and for each slot an index over the rows that show it. Rows never change under their number (a replaced
image gets a new one), so an index serves every version: what it lacks is scored exhaustively, and what a version no
longer has is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.files import inside, read_json
from occluded_reid.gallery.search.efforts import assured
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.gallery.storage import checksums
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.matchers import Matcher, SlotMatcher
from occluded_reid.registry import INDEXES
from occluded_reid.search.index.base import DamagedIndexError, SlotIndex, state_of
from occluded_reid.search.index.packed_rows import PACKED_ROWS, PackedRows

__all__ = [
    "CURRENT",
    "DESCRIPTION",
    "FOLDER",
    "NOT_USED",
    "NUMBERS",
    "EffortEntry",
    "GalleryIndex",
    "IndexDescription",
    "IndexedRows",
    "SlotEntry",
    "lost",
    "require_slot_matcher",
]

FOLDER = "indexes"
CURRENT = "current.json"
DESCRIPTION = "index.json"
NUMBERS = "numbers.npy"
NOT_USED = (
    "The index of the gallery '%s' is not used, and searches compare with every image, until the next write builds it "
    "again, or build_index() does: %s"
)
"""What the log says of an index that is damaged or missing."""


_seen: set[tuple[str, tuple[int, ...]]] = set()  # checksums and states of files that this process has compared

_log = logging.getLogger("occluded_reid")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SlotEntry(_Strict):
    """The index of one slot.

    Attributes:
        slot: its name.
        rows: rows that show the slot.
        file: its file in the folder of the build.
        notes: what was built otherwise than asked for, and why.
    """

    slot: str
    rows: int
    file: str
    notes: list[str] = []


class EffortEntry(_Strict):
    """What an effort has found of the exact answer, measured on a sample of the gallery's own rows.

    Attributes:
        candidates: rows that each slot proposes.
        effort: of the slots' indexes; see `SlotIndex.efforts`.
        best: share of the queries whose nearest row was found.
        topk: share of the rows of the exact lists that were found.
        true_matches: of the true matches in the exact lists, those found; None where identities are not known.
        queries: size of the sample.
    """

    candidates: int
    effort: int
    best: float
    topk: float
    true_matches: float | None
    queries: int

    def recall(self, *, whole: bool) -> float:
        """Return the share that counts: of best hits, and of whole lists, or of true matches where they are known.

        It is what was measured, less one standard error.
        """
        share = min(self.best, self.topk if whole or self.true_matches is None else self.true_matches)
        return assured(share, self.queries)

    def __str__(self) -> str:
        matches = "" if self.true_matches is None else f", true matches {self.true_matches:.1%}"
        return (
            f"{self.candidates} candidates a slot, effort {self.effort}: best hit {self.best:.1%}{matches}, "
            f"whole list {self.topk:.1%}"
        )


class IndexDescription(_Strict):
    """Content of index.json.

    Attributes:
        type: registered kind of index.
        options: what it was made with.
        rows: rows of the copy.
        trained: rows that the gallery had when the slots were trained.
        matcher: whose visibility and metric the slots were indexed by.
        slots: one entry for each slot.
        efforts: measured, the cheapest first.
        version: of the table that it was built from.
        built: time, ISO 8601.
        seed: of samples and training.
    """

    format: Literal["occluded_reid.index"] = "occluded_reid.index"
    format_version: Literal[1] = 1
    type: str
    options: dict[str, Any]
    rows: int
    trained: int
    matcher: dict[str, Any]
    slots: list[SlotEntry]
    efforts: list[EffortEntry] = []
    version: int
    built: str
    seed: int


class GalleryIndex:
    """An opened index; its files are mapped into memory, so that opening takes no time and pages are the system's.

    Args:
        folder: of a build.
        manifest: of the gallery.
        device: where slots are looked through, as `SlotIndex.load` takes it.
        sealed: whether the build is finished, and its files have checksums.

    Raises:
        GalleryError: a file is missing or damaged.

    Attributes:
        folder: of this build.
        description: content of its index.json.
        slots: slot -> its index.
        packed: a copy of all its rows.
        numbers: the number of each of them in the table's column `row`, ascending.
    """

    def __init__(self, folder: Path, manifest: Manifest, device: str = "cpu", *, sealed: bool = True) -> None:
        self.folder = folder
        if sealed:
            _require_as_written(folder, lambda name: name == DESCRIPTION)
        self.description = _read_description(folder)
        kind = cast(type[SlotIndex], INDEXES.get(self.description.type))
        if sealed:
            # Rows are hashed as they are read, and a kind that checks its own files does so when it is loaded.
            trusted = (*PACKED_ROWS, *(f"{e.file}/" for e in self.description.slots if kind.checked))
            _require_as_written(folder, lambda name: not name.startswith(trusted) or name.endswith(".json"))
        self.slots: dict[str, SlotIndex] = {
            entry.slot: kind.load(folder / entry.file, device=device) for entry in self.description.slots
        }
        self.packed = PackedRows(folder)
        try:
            self.numbers: np.ndarray = np.load(folder / NUMBERS, mmap_mode="r")
        except (OSError, ValueError) as cause:
            raise GalleryError(f"'{folder / NUMBERS}' could not be read: {cause}. Build the index again.") from cause
        if not len(self.packed) == len(self.numbers) == self.description.rows or self.packed.slots != manifest.slots:
            raise GalleryError(
                f"the index '{folder}' does not fit its own description; build it again with build_index()."
            )

    def __len__(self) -> int:
        return len(self.numbers)

    @staticmethod
    def current(gallery: Path) -> Path | None:
        """Return the folder of the newest build; None where nothing was built, or what names it is damaged."""
        try:
            return _named(gallery)
        except GalleryError:  # `lost` tells, once, and `verify`; the next write builds anew
            return None

    def require_matcher(self, matcher: Matcher) -> None:
        """Refuse a matcher that sees or compares slots otherwise than the one that they were indexed by.

        Weights may differ: they count when candidates are scored.

        Raises:
            GalleryError: both are named.
        """
        mine, other = (
            {**config, "options": {k: v for k, v in config["options"].items() if k != "weights"}}
            for config in (self.description.matcher, matcher.config)
        )
        missing = set(require_slot_matcher(matcher).used(tuple(self.packed.slots))) - set(self.slots)
        if mine != other or missing:
            raise GalleryError(
                f"the index was built for the matcher {self.description.matcher}, and this one is {matcher.config}. "
                "Build it again with build_index(), or search with effort='exact'."
            )

    def effort_for(self, recall: float, *, whole: bool = False) -> EffortEntry | None:
        """Return the cheapest effort that has found this share of the exact answer; None where none has.

        Args:
            recall: 0 … 1.
            whole: of all rows of the exact answer, not of its best hits and true matches alone.
        """
        return next((e for e in self.description.efforts if e.recall(whole=whole) >= recall), None)

    def over(self, rows: TableRows) -> IndexedRows:
        """Return the rows of a version with what this index knows of them.

        Where its copy has no hashes to compare with, as older releases have left it, all rows are read from the table.
        """
        return IndexedRows(rows, self.numbers, self.packed)


class IndexedRows:
    """Rows of a version, read from the index's copy where it has them.

    Attributes:
        positions: for each row of the index its position in this version, -1 where the version does not have it.
        extra: positions that the index does not have, ascending.
    """

    def __init__(self, rows: TableRows, numbers: np.ndarray, packed: PackedRows) -> None:
        self._rows, self._packed = rows, packed
        place = np.searchsorted(rows.numbers, numbers)
        found = place < len(rows)
        found[found] = rows.numbers[place[found]] == numbers[found]
        self.positions = np.where(found, place, -1)
        self._copy = np.full(len(rows), -1, dtype=np.int64)
        self._copy[self.positions[found]] = np.flatnonzero(found)
        self.extra = np.flatnonzero(self._copy < 0)
        if not packed.checked:
            self._copy[:] = -1
        self._whole = len(packed) == len(rows) and np.array_equal(self._copy, np.arange(len(rows)))

    def __len__(self) -> int:
        return len(self._rows)

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield (position of the first row, at most `rows` rows) in order; each may be used until the next."""
        if self._whole:
            yield from self._packed.tiles(rows)
            return
        for start in range(0, len(self), rows):
            yield start, self.take(np.arange(start, min(start + rows, len(self))))

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return the rows at these positions, in the order asked for."""
        wanted = np.asarray(positions, dtype=np.int64)
        copies = self._copy[wanted]
        lacking = np.flatnonzero(copies < 0)
        if not len(lacking):
            return self._packed.take(copies)
        if len(lacking) == len(wanted):
            return self._rows.take(wanted)
        known = np.flatnonzero(copies >= 0)
        both = PartEmbeddings.cat([self._packed.take(copies[known]), self._rows.take(wanted[lacking])])
        return both[torch.from_numpy(np.argsort(np.concatenate([known, lacking]), kind="stable"))]


def require_slot_matcher(matcher: Matcher) -> SlotMatcher:
    """Refuse a matcher whose distance does not go slot by slot.

    Raises:
        GalleryError: it is no `SlotMatcher`.
    """
    if isinstance(matcher, SlotMatcher):
        return matcher
    raise GalleryError(
        f"indexes propose rows slot by slot, and {type(matcher).__name__} does not compare so; derive the matcher "
        "from SlotMatcher, or search with effort='exact'."
    )


def lost(gallery: Path, *, wanted: bool) -> bool:
    """Whether a gallery should have an index and what names it is missing or damaged; if so, the log says it.

    Args:
        gallery: its folder.
        wanted: whether it is to have one.
    """
    try:
        missing = _named(gallery) is None and wanted
        cause: object = f"'{gallery / FOLDER / CURRENT}', which names it, is missing"
    except GalleryError as error:
        missing, cause = True, error
    if missing:
        _log.warning(NOT_USED, gallery, cause)
    return missing


def _named(gallery: Path) -> Path | None:
    pointer = gallery / FOLDER / CURRENT
    if not pointer.exists():
        return None
    return inside(gallery / FOLDER, str(checksums.unseal(pointer)["build"]), GalleryError)


def _require_as_written(folder: Path, chosen: Callable[[str], bool]) -> None:
    """Compare the chosen files of a build with their checksums, before anything in them is believed.

    Raises:
        GalleryError: one is missing or damaged.
    """
    listed = checksums.unseal(folder / checksums.FOLDER_FILE)["files"]
    for name, (size, mark) in sorted(listed.items()):
        if not chosen(name) or (seen := (mark, state_of(folder / name))) in _seen:
            continue
        for _, what in checksums.compare(folder, {name: (int(size), str(mark))}).items():
            raise DamagedIndexError(f"'{folder / name}' {what}. Build the index again with build_index().")
        _seen.add(seen)


def _read_description(folder: Path) -> IndexDescription:
    try:
        return IndexDescription.model_validate(read_json(folder / DESCRIPTION, GalleryError))
    except ValidationError as cause:
        raise GalleryError(
            f"'{folder / DESCRIPTION}' is damaged, or of another release: {cause.errors()[0]['msg']}. "
            "Build the index again with build_index()."
        ) from cause
