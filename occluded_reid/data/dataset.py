"""What a data set is: samples in three splits, with the rules that evaluation needs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.data.benchmark import Benchmark
from occluded_reid.data.partition import Partition
from occluded_reid.errors import DataError, MaskError
from occluded_reid.files import absolute, is_file, is_folder
from occluded_reid.registry import DATASETS, check_options

__all__ = ["NO_CAMERAS", "SPLITS", "ReIDData", "Sample", "Split", "load_dataset", "require_folder"]

NO_CAMERAS = "cameras are not known"
"""What the note of a loader begins with where nothing says which camera took an image."""

Split = Literal["train", "query", "gallery"]
SPLITS: tuple[Split, ...] = ("train", "query", "gallery")


@dataclass(frozen=True)
class Sample:
    """One image of one person.

    Attributes:
        name: posix path relative to the root: the key of the image within its data set.
        path: the file.
        identity: who it is, as the data set writes it; None where it is unknown: such images can be kept in a gallery
            and searched, and are refused by training and evaluation.
        camera: number of the camera, as the data set counts: c5 is camera 5. Cameras that it names have a number too:
            see `ReIDData.camera_names`.
        mask: part mask, a single-channel PNG.
        occlusion: true occluder mask, where the data set has one.
        time: seconds, where known.
        track: name of the tracklet, where known.
    """

    name: str
    path: Path
    identity: str | None
    camera: int
    mask: Path | None = None
    occlusion: Path | None = None
    time: float | None = None
    track: str | None = None

    @property
    def person(self) -> str:
        """The identity, where one is needed.

        Raises:
            DataError: its identity is unknown.
        """
        if self.identity is None:
            raise DataError(
                f"the image '{self.name}' has no identity, which is needed here. Give sub-folders named after people, "
                "or a CSV file with the column identity."
            )
        return self.identity


@dataclass(frozen=True, repr=False)
class ReIDData:
    """A data set with its training images, queries and gallery.

    Attributes:
        name: of the data set.
        root: its folder.
        train: images to learn from.
        query: images to ask for.
        gallery: images to search.
        distractors: identities that match no query and are never a query ("0000" of Market-1501).
        licence: terms of the data, shown where it is used.
        citation: what to cite.
        notes: what a user should know, a line each.
        cameras_known: False where nothing says which camera took an image. Each image then has a camera number of its
            own, so that the same-camera rule of evaluation excludes nothing.
        benchmark: the published data set that this is a copy of; None for one's own images.
        variant: which of its variants was loaded: "labeled"; empty where there is only one.
        partitions: how people were set aside, the last one made the queries and the gallery; empty where the data
            set has its own.
        camera_names: number -> name of the cameras that the data set names, for this data set alone.

    Example:
        >>> samples = [Sample(f"{i}.png", Path(f"{i}.png"), identity, i % 2) for i, identity in enumerate("baab")]
        >>> data = ReIDData("toy", Path("."), train=(), query=tuple(samples[:2]), gallery=tuple(samples[2:]))
        >>> data.identities("gallery"), [sample.name for sample in data.unanswerable()]
        (['a', 'b'], [])
        >>> data.labels(data.query)[0].tolist()
        [1, 0]
    """

    name: str
    root: Path
    train: tuple[Sample, ...]
    query: tuple[Sample, ...] = ()
    gallery: tuple[Sample, ...] = ()
    distractors: frozenset[str] = frozenset()
    licence: str = ""
    citation: str = ""
    notes: tuple[str, ...] = ()
    cameras_known: bool = True
    benchmark: Benchmark | None = None
    variant: str = ""
    partitions: tuple[Partition, ...] = ()
    camera_names: Mapping[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Counts, for a data set of a hundred thousand images."""
        counts = ", ".join(f"{name}=<{self._counted(name)}>" for name in SPLITS)
        return f"ReIDData({self.name!r}, root={str(self.root)!r}, {counts}, part={self.part!r})"

    @property
    def part(self) -> str:
        """What of it the queries are, for reports: "test", or what a hold-out made."""
        return self.partitions[-1].name if self.partitions else "test"

    def split(self, name: Split) -> tuple[Sample, ...]:
        """Return the samples of a split.

        Raises:
            DataError: there is no such split.
        """
        if not isinstance(name, str) or name not in SPLITS:
            raise DataError(f"there is no split '{name}'; a data set has {', '.join(SPLITS)}.")
        return {"train": self.train, "query": self.query, "gallery": self.gallery}[name]

    def identities(self, name: Split) -> list[str]:
        """Return the sorted identities of a split; distractors are left out."""
        known = {sample.identity for sample in self.split(name) if sample.identity is not None}
        return sorted(known - self.distractors)

    def train_classes(self) -> dict[str, int]:
        """Return identity -> class index of the training split; sorted, so the same everywhere.

        Raises:
            DataError: an image of the split, or of a data set without one, has no identity.
        """
        self.require_identities(self.train, "training")
        return {identity: index for index, identity in enumerate(self.identities("train"))}

    def camera_label(self, camera: int) -> str | int | None:
        """Return a camera as people know it: by name, or by number; None where cameras are not known."""
        return self.camera_names.get(camera, camera) if self.cameras_known else None

    def require_identities(self, samples: Sequence[Sample], purpose: str) -> None:
        """Refuse images of unknown people.

        Args:
            samples: that are needed; where there are none, all images of the data set are looked at.
            purpose: what needs to know who is on them, for the message.

        Raises:
            DataError: an image has no identity; they are counted and the first is named.
        """
        looked_at = samples or tuple(self._samples())
        unknown = [sample.name for sample in looked_at if sample.identity is None]
        if unknown:
            raise DataError(
                f"{len(unknown)} of {len(looked_at)} images of '{self.name}' have no identity, such as '{unknown[0]}': "
                f"{purpose} needs to know who is on each. Give sub-folders named after people, or a CSV file with the "
                "column identity. Without identities images can be indexed and searched."
            )

    @checked(DataError)
    def labels(self, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """Return identities and cameras of some samples as numbers; equal numbers mean the same in every split.

        Args:
            samples: samples of this data set, or with identities of it.

        Returns:
            Identities (N,) and cameras (N,), both int64.

        Raises:
            DataError: an image has no identity, or one that does not occur in this data set.
        """
        self.require_identities(samples, "evaluation")
        strange = [sample for sample in samples if sample.identity not in self._numbers]
        if strange:
            raise DataError(
                f"identity '{strange[0].identity}' of '{strange[0].name}' is not in '{self.name}'. "
                "Give samples of this data set."
            )
        identity = np.array([self._numbers[sample.person] for sample in samples], dtype=np.int64)
        return identity, np.array([sample.camera for sample in samples], dtype=np.int64)

    def unanswerable(self) -> tuple[Sample, ...]:
        """Return the queries without a gallery image of the same identity under another camera."""
        cameras: dict[str, set[int]] = {}
        for sample in self.gallery:
            if sample.identity is not None:
                cameras.setdefault(sample.identity, set()).add(sample.camera)
        return tuple(s for s in self.query if not cameras.get(s.identity or "", set()) - {s.camera})

    def with_masks(self, folder: str | Path) -> ReIDData:
        """Attach part masks from a folder that mirrors the images' tree, with .png for the suffix.

        Images without a mask there have none afterwards; `verify_dataset` counts them.

        Raises:
            MaskError: the folder does not exist, or no image has a mask there.
        """
        folder = absolute(folder, MaskError)
        if not is_folder(folder, MaskError):
            raise MaskError(f"the folder of masks '{folder}' does not exist. Look at the path, or leave masks out.")
        masked = replace(
            self,
            train=tuple(replace(sample, mask=mirrored(folder, sample.name)) for sample in self.train),
            query=tuple(replace(sample, mask=mirrored(folder, sample.name)) for sample in self.query),
            gallery=tuple(replace(sample, mask=mirrored(folder, sample.name)) for sample in self.gallery),
        )
        every = list(masked._samples())
        if not any(sample.mask for sample in every):
            example = folder / Path(every[0].name).with_suffix(".png") if every else folder
            raise MaskError(
                f"'{folder}' holds no mask for any of the {len(every)} images of '{self.name}'; the first was looked "
                f"for at '{example}'. The folder must mirror the images' tree."
            )
        return masked

    def format_card(self) -> str:
        """Return counts, cameras, masks, licence, citation and notes in lines."""
        counts = ", ".join(
            f"{name} {len(self.split(name))} images of {len(self.identities(name))} identities" for name in SPLITS
        )
        lines = [f"{self.name} at {self.root}: {counts}"]
        every = list(self._samples())
        cameras = str(len({sample.camera for sample in every})) if self.cameras_known else "unknown"
        masked = sum(sample.mask is not None for sample in every)
        lines.append(f"cameras: {cameras}; part masks: {masked} of {len(every)} images")
        lines += [f"licence: {self.licence}"] if self.licence else []
        lines += [f"cite: {self.citation}"] if self.citation else []
        return "\n".join([*lines, *self.notes])

    def _counted(self, name: Split) -> str:
        cameras = len({sample.camera for sample in self.split(name)}) if self.cameras_known else "unknown"
        return f"{len(self.split(name))} images, {len(self.identities(name))} identities, {cameras} cameras"

    def _samples(self) -> Iterator[Sample]:
        for name in SPLITS:
            yield from self.split(name)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        known = {sample.identity for sample in self._samples() if sample.identity is not None}
        return {identity: number for number, identity in enumerate(sorted(known))}


@checked(DataError, but=("name",))  # the registry has words for it
def load_dataset(
    name: str,
    root: str | Path,
    *,
    masks: str | Path | None = None,
    holdout: int = 0,
    validation: int = 0,
    seed: int = 0,
    skip_unreadable: bool = False,
    **options: Any,
) -> ReIDData:
    """Load a data set by the name of its layout.

    Args:
        name: a name in `DATASETS`: "market1501", "folder", "synthetic", …
        root: its folder.
        masks: folder of part masks that mirrors the images' tree.
        holdout: set this many identities of the training split aside as queries and gallery.
        validation: take so many of those that are left as queries and gallery instead, to choose settings or the best
            epoch by; the identities of the hold-out are then in no split. See `validation_side`.
        seed: chooses them.
        skip_unreadable: read every image once, and leave out those that cannot be read; a note counts and names them.
            They are left out last, so that who is held out does not change by it.
        **options: of that layout.

    Raises:
        DataError: the folder is not what the layout promises; the message says what was found.
        UnknownNameError: no layout of that name is registered.
        UnknownOptionError: that layout takes no such option.
    """
    loader = DATASETS.get(name)
    data = loader(absolute(root, DataError), **check_options(loader, options, f"dataset '{name}'", skip=1))
    if not isinstance(data, ReIDData):
        raise DataError(f"the data set '{name}' gave {type(data).__name__}; its loader must return ReIDData.")
    if masks is not None:
        data = data.with_masks(masks)
    if holdout:
        # Here, because that module is about data sets and so imports this one.
        from occluded_reid.data.holdout import holdout as set_aside

        data = set_aside(data, holdout, seed)
    if validation:
        from occluded_reid.data.holdout import validation_side

        data = validation_side(data, validation, seed)
    if skip_unreadable:
        from occluded_reid.data.readable import without_unreadable

        data = without_unreadable(data)
    return data


def mirrored(folder: Path, name: str) -> Path | None:
    """Return the PNG of an image in a tree that mirrors the images', or None where there is none."""
    path = folder / Path(name.lstrip("/")).with_suffix(".png")  # a name that is a whole path stays below the folder
    return path if is_file(path, MaskError) else None


def require_folder(root: str | Path) -> Path:
    """Return a data set's root as a path.

    Raises:
        DataError: it does not exist, is no folder, is empty, or may not be read.
    """
    folder = absolute(root, DataError)
    if not is_folder(folder, DataError):
        what = "is a file" if is_file(folder, DataError) else "does not exist"
        raise DataError(f"'{folder}' {what}; wanted the folder of a data set. Look at the path.")
    try:
        if not os.access(folder, os.X_OK):  # names may be readable where nothing else is
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        empty = not any(folder.iterdir())
    except OSError as cause:
        raise DataError(
            f"the folder '{folder}' cannot be read: {cause.strerror or cause}. Look at its permissions."
        ) from cause
    if empty:
        raise DataError(f"the folder '{folder}' is empty; wanted images. Look at the path, or copy the data set again.")
    return folder
