"""What is known about a published data set before there is a copy of it: its protocol, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from occluded_reid.data.dataset import Split

__all__ = ["Benchmark", "Counts", "Layout", "all_benchmarks", "benchmark_of", "described"]

F = TypeVar("F", bound=Callable[..., Any])


class Counts(NamedTuple):
    """How many images a split has once junk is dropped, and of how many people.

    Attributes:
        images: all of them, distractors too.
        identities: people, without distractors.
        distractors: identities of the gallery that are never asked for, beside those; 0 where none has a number.
    """

    images: int
    identities: int
    distractors: int = 0

    def __str__(self) -> str:
        more = f" + {self.distractors} distractors" if self.distractors else ""
        return f"{self.identities:,} people{more} / {self.images:,} images"


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Attributes:
        name: what errors and notes call it: "as downloaded".
        folders: split -> the folders that its images are read from, relative to the root.
        files: lists and the like that it needs beside them, relative to the root.
        example: name of an image as this layout has it.
        optional: splits whose folders may be missing.
    """

    name: str
    folders: Mapping[Split, tuple[str, ...]]
    files: tuple[str, ...] = ()
    example: str = ""
    optional: tuple[Split, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Folders and files without which this layout cannot be read, each once."""
        folders = [folder for split, some in self.folders.items() if split not in self.optional for folder in some]
        return tuple(dict.fromkeys([*folders, *self.files]))

    @property
    def tree(self) -> str:
        """Its folders and files in one line."""
        folders = dict.fromkeys(folder for some in self.folders.values() for folder in some)
        shown = ", ".join([*(f"{folder}/" for folder in folders), *self.files])
        return f"{self.name}: {shown}" + (f" (images such as {self.example})" if self.example else "")


@dataclass(frozen=True)
class Benchmark:
    """A published data set and how it is evaluated.

    Attributes:
        name: as registered: "occluded_duke".
        title: as papers write it: "Occluded-DukeMTMC".
        layouts: all known trees of folders, the usual one first.
        identity_rule: where the identity of an image comes from.
        camera_rule: where its camera comes from, and what is dropped because of it.
        cameras: how many there are; numbers made up by the protocol count.
        first_camera: the number of the first: 1 where file names count from 1, 0 where the protocol makes numbers up.
        counts: variant -> split -> what a whole copy holds; the variant is "" where there is only one.
        trained_on: data sets that models are trained on for it, by convention; itself first where it has a split.
        pattern: regular expression of file names, empty where lists or folders say everything.
        distractors: which gallery images match no query, or empty.
        junk: which images are left out everywhere, or empty.
        ranks: CMC ranks that papers report.
        metrics: names of the numbers that papers report.
        shots: "multi" searches all gallery images; "single" one random image for each identity, several times.
        exclude_same_camera: whether images of the query's identity and camera are dropped.
        licence: terms, as far as they are known.
        withdrawn: what the authors said when they took the data back, or empty.
        citation: what to cite.
        traps: what goes wrong in practice, a line each.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    identity_rule: str
    camera_rule: str
    cameras: int
    counts: Mapping[str, Mapping[Split, Counts]]
    trained_on: tuple[str, ...]
    pattern: str = ""
    first_camera: int = 0
    distractors: str = ""
    junk: str = ""
    ranks: tuple[int, ...] = (1, 5, 10)
    metrics: tuple[str, ...] = ("Rank-1", "mAP")
    shots: Literal["multi", "single"] = "multi"
    exclude_same_camera: bool = True
    licence: str = ""
    withdrawn: str = ""
    citation: str = ""
    traps: tuple[str, ...] = field(default=(), repr=False)

    @property
    def facts(self) -> dict[str, str]:
        """Everything in words, by name, as `occluded-reid data show` prints it."""
        facts = {"data set": self.title}
        for variant, splits in self.counts.items():
            shown = ", ".join(f"{split} {counts}" for split, counts in splits.items())
            facts[f"counts ({variant})" if variant else "counts"] = shown
        facts |= {"cameras": str(self.cameras), "identity": self.identity_rule, "camera": self.camera_rule}
        facts |= {"file names": self.pattern} if self.pattern else {}
        facts |= {"distractors": self.distractors} if self.distractors else {}
        facts |= {"junk": self.junk} if self.junk else {}
        facts |= {"trained on": ", ".join(self.trained_on), "usual numbers": ", ".join(self.metrics)}
        facts |= {"shots": "one gallery image for each identity"} if self.shots == "single" else {}
        facts |= {f"layout {number}": layout.tree for number, layout in enumerate(self.layouts, start=1)}
        facts |= {"licence": self.licence or "not known; ask its authors"}
        facts |= {"withdrawn": self.withdrawn} if self.withdrawn else {}
        facts |= {"cite": self.citation} if self.citation else {}
        return facts | {f"trap {number}": trap for number, trap in enumerate(self.traps, start=1)}


def described(benchmark: Benchmark) -> Callable[[F], F]:
    """Return a decorator that ties a loader to the benchmark it reads, for `benchmark_of`."""

    def tie(loader: F) -> F:
        loader.__dict__["benchmark"] = benchmark
        return loader

    return tie


def all_benchmarks() -> list[Benchmark]:
    """Return all published data sets that are registered, by name; plug-ins that cannot be loaded are left out."""
    from occluded_reid.errors import RegistryError
    from occluded_reid.registry import DATASETS

    found: list[Benchmark] = []
    for name in DATASETS.names():
        try:
            benchmark = benchmark_of(name)
        except RegistryError:
            continue  # the registry has warned of it by name
        found += [benchmark] if benchmark is not None else []
    return found


def benchmark_of(name: str) -> Benchmark | None:
    """Return what is known about a registered data set, or None for a plain layout such as "folder".

    Raises:
        UnknownNameError: no data set of that name is registered; the message suggests the closest ones.
    """
    from occluded_reid.registry import DATASETS

    found = getattr(DATASETS.get(name), "benchmark", None)
    return found if isinstance(found, Benchmark) else None
