"""Looking at a data set before anything is trained on it: every file is read once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from occluded_reid.arguments import checked
from occluded_reid.data.counts import CountComparison, compare_counts
from occluded_reid.data.dataset import SPLITS, ReIDData, Sample, Split
from occluded_reid.data.images import open_image, open_mask
from occluded_reid.errors import DataError, ImageError, MaskError

__all__ = ["DatasetReport", "Duplicate", "Finding", "verify_dataset"]

_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """A file and what is wrong with it."""

    name: str
    reason: str


@dataclass(frozen=True)
class Duplicate:
    """Files with the same bytes; `problem` says why that spoils training or evaluation, or is empty."""

    names: tuple[str, ...]
    splits: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True)
class DatasetReport:
    """What `verify_dataset` found.

    Attributes:
        dataset: name of the data set.
        root: its folder.
        images: images of each split.
        identities: identities of each split, distractors not counted.
        cameras: images of each camera of the three splits together; empty where cameras are not known.
        distractors: gallery images of distractors.
        masks: images with a part mask.
        unreadable: images that cannot be read, and why.
        shared_identities: identities that are in training and in queries or gallery.
        duplicates: groups of files with the same bytes.
        single_images: training identities with one image: nothing pulls it towards another.
        unanswerable: queries without a gallery image of the same identity under another camera.
        missing_masks: images without a part mask, where others have one.
        bad_masks: masks that cannot be read, are of another size than the image, or hold unknown classes.
        notes: what the loader said.
        twice: images of one folder whose names differ in the suffix or in capitals only: probably the same picture.
        counts: the comparison with a whole copy of the published data set; None for one's own images.
        camera_names: number -> name of the cameras that have names.
    """

    dataset: str
    root: str
    images: dict[str, int]
    identities: dict[str, int]
    cameras: dict[int, int]
    distractors: int
    masks: int
    unreadable: tuple[Finding, ...]
    shared_identities: tuple[str, ...]
    duplicates: tuple[Duplicate, ...]
    single_images: tuple[str, ...]
    unanswerable: tuple[str, ...]
    missing_masks: tuple[str, ...]
    bad_masks: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    twice: tuple[tuple[str, ...], ...] = ()
    counts: CountComparison | None = None
    camera_names: dict[int, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether training and evaluation can be trusted: there are no problems. Warnings are allowed."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What must be mended, a line each."""
        lines = [
            *(self.counts.problems if self.counts else ()),
            _line(self.unreadable, "images cannot be read", [f"{f.name}: {f.reason}" for f in self.unreadable]),
            _line(self.shared_identities, "identities are in training and in queries or gallery"),
            _line(
                self.unanswerable if len(self.unanswerable) == self.images["query"] else (),
                "queries, which is all of them, have no match under another camera: nothing can be measured without "
                "--no-exclude-same-camera",
            ),
            *(
                _line(group, f"groups of identical files {problem}", _equal(d.names for d in group))
                for problem, group in self._by_problem()
                if problem
            ),
            _line(
                self.twice,
                "images are there twice, under names that differ in suffix or capitals only",
                _equal(self.twice),
            ),
            _line(self.missing_masks, "images have no part mask, although others have"),
            _line(self.bad_masks, "part masks are wrong", [f"{f.name}: {f.reason}" for f in self.bad_masks]),
        ]
        return tuple(line for line in lines if line)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be known, a line each."""
        harmless = next((group for problem, group in self._by_problem() if not problem), [])
        lines = [
            "the training split has one identity: nothing can be told apart by training on it"
            if self.identities["train"] == 1
            else "",
            _line(self.single_images, "training identities have a single image"),
            _line(
                self.unanswerable if len(self.unanswerable) < self.images["query"] else (),
                "queries have no match under another camera, so evaluation skips them",
            ),
            _line(harmless, "groups of identical files do no harm", _equal(d.names for d in harmless)),
        ]
        return tuple(line for line in lines if line)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        cameras = {str(self.camera_names.get(camera, camera)): count for camera, count in self.cameras.items()}
        verdict = {"ok": self.ok, "problems": list(self.problems), "warnings": list(self.warnings)}
        counts = self.counts.to_dict() if self.counts else None
        return {**asdict(replace(self, counts=None)), "cameras": cameras, "counts": counts, **verdict}

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        cameras = ", ".join(
            f"{self.camera_names.get(camera, camera)}: {count}" for camera, count in self.cameras.items()
        )
        return [
            f"{self.dataset} at {self.root}",
            *(f"{s:<8}{self.images[s]:>7} images of {self.identities[s]} identities" for s in SPLITS if self.images[s]),
            *([f"distractors: {self.distractors} gallery images"] if self.distractors else []),
            f"cameras: {len(self.cameras)} ({cameras})" if self.cameras else "cameras: unknown",
            f"part masks: {self.masks} of {sum(self.images.values())} images",
            *(self.counts.lines() if self.counts else ()),
            *(f"note: {note}" for note in self.notes),
            *(f"warning: {warning}" for warning in self.warnings),
            *(f"problem: {problem}" for problem in self.problems),
            # What a problem has no room for: each file is to be mended, so each is named.
            *(f"cannot be read: {found.name}: {found.reason}" for found in self.unreadable[_SHOWN:]),
            *(f"wrong mask: {found.name}: {found.reason}" for found in self.bad_masks[_SHOWN:]),
            "all files can be used"
            if self.ok
            else f"{len(self.problems)} kind{'s' * (len(self.problems) > 1)} of problems",
        ]

    def _by_problem(self) -> Iterator[tuple[str, list[Duplicate]]]:
        for problem in sorted({duplicate.problem for duplicate in self.duplicates}):
            yield problem, [duplicate for duplicate in self.duplicates if duplicate.problem == problem]


@checked(DataError)
def verify_dataset(data: ReIDData, *, progress: Callable[[int, int], None] | None = None) -> DatasetReport:
    """Read every image and mask of a data set and report what is wrong; nothing found is raised.

    Args:
        data: the data set.
        progress: called with (done, total) images.
    """
    placed = [(split, sample) for split in SPLITS for sample in data.split(split)]
    masked = sum(sample.mask is not None for _, sample in placed)
    unreadable: list[Finding] = []
    bad_masks: list[Finding] = []
    same: dict[bytes, list[tuple[Split, Sample]]] = {}
    for done, (split, sample) in enumerate(placed, start=1):
        try:
            size = open_image(sample.path).size
            with sample.path.open("rb") as file:
                same.setdefault(hashlib.file_digest(file, "sha256").digest(), []).append((split, sample))
        except ImageError as error:
            unreadable.append(Finding(sample.name, str(error)))
            size = None
        try:
            if sample.mask is not None:
                open_mask(sample.mask, size, 8)
        except MaskError as error:
            bad_masks.append(Finding(sample.name, str(error)))
        if progress is not None:
            progress(done, len(placed))
    tested = {*data.identities("query"), *data.identities("gallery")}
    images_of = Counter(sample.identity for sample in data.train if sample.identity is not None)
    cameras = Counter(sample.camera for _, sample in placed) if data.cameras_known else Counter[int]()
    return DatasetReport(
        dataset=data.name,
        root=str(data.root),
        images={split: len(data.split(split)) for split in SPLITS},
        identities={split: len(data.identities(split)) for split in SPLITS},
        cameras=dict(sorted(cameras.items())),
        distractors=sum(sample.identity in data.distractors for sample in data.gallery),
        masks=masked,
        unreadable=tuple(unreadable),
        shared_identities=tuple(sorted(tested & set(images_of))),
        duplicates=_duplicates(same.values(), data.cameras_known),
        single_images=tuple(sorted(identity for identity, count in images_of.items() if count == 1)),
        unanswerable=tuple(sample.name for sample in data.unanswerable()),
        missing_masks=tuple(sample.name for _, sample in placed if masked and sample.mask is None),
        bad_masks=tuple(bad_masks),
        notes=data.notes,
        twice=_named_twice(placed),
        counts=compare_counts(data),
        camera_names=dict(data.camera_names),
    )


def _duplicates(groups: Iterable[Sequence[tuple[Split, Sample]]], cameras_known: bool) -> tuple[Duplicate, ...]:
    """Judge what has the same bytes; one file in two splits that does no harm there is no second file to tell of."""
    found = (_duplicate(group, cameras_known) for group in groups if len(group) > 1)
    return tuple(duplicate for duplicate in found if duplicate.problem or len(set(duplicate.names)) > 1)


def _duplicate(group: Sequence[tuple[Split, Sample]], cameras_known: bool) -> Duplicate:
    """Judge files with the same bytes.

    A query that is also in the gallery does no harm where identity and camera agree: evaluation leaves such pairs out
    (1,870 of the 2,210 queries of Occluded-DukeMTMC are of that kind).
    """
    splits = {split for split, _ in group}
    problem = ""
    if len({sample.identity for _, sample in group}) > 1:
        problem = "carry different identities"
    elif "train" in splits and len(splits) > 1:
        problem = "are in training and in queries or gallery"
    elif splits >= {"query", "gallery"} and (not cameras_known or len({s.camera for _, s in group}) > 1):
        problem = "answer a query with itself, under another camera"
    names = tuple(sample.name for _, sample in group)
    return Duplicate(names, tuple(split for split in SPLITS if split in splits), problem)


def _named_twice(placed: Sequence[tuple[Split, Sample]]) -> tuple[tuple[str, ...], ...]:
    """Groups of images in one folder of a split with the same name but for its suffix: such as a converted copy."""
    named: dict[tuple[Split, str], set[str]] = {}
    for split, sample in placed:
        named.setdefault((split, PurePosixPath(sample.name).with_suffix("").as_posix().casefold()), set()).add(
            sample.name
        )
    return tuple(tuple(sorted(names)) for names in named.values() if len(names) > 1)


def _equal(groups: Iterable[Sequence[str]]) -> list[str]:
    return [" = ".join(names) for names in groups]


def _line(found: Sequence[Any], what: str, shown: Sequence[str] | None = None) -> str:
    """One line with the count, what it is, and the first few; empty where nothing was found."""
    if not found:
        return ""
    names = [str(item) for item in (shown if shown is not None else found)]
    more = f" … and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(found)} {what}: {', '.join(names[:_SHOWN])}{more}"
