"""The kinds of occlusion that a sweep measures: from below, from a side, from above, any object, a person in front."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import Sample
from occluded_reid.data.occlusion.occluders import SUFFIXES, Occluders
from occluded_reid.data.occlusion.pins import Place
from occluded_reid.data.occlusion.stock import open_occluders, take_slice
from occluded_reid.errors import DataError
from occluded_reid.registry import did_you_mean

__all__ = ["OCCLUSION_KINDS", "OcclusionKind", "open_kinds"]

OCCLUSION_KINDS: Mapping[str, Place] = MappingProxyType(
    {"bottom": "bottom", "side": "side", "top": "top", "object": "anywhere", "pedestrian": "standing"}
)
"""Kind -> where its occluder comes from; "pedestrian" takes people of the gallery, the others share one stock."""


@dataclass(frozen=True)
class OcclusionKind:
    """One kind of occlusion.

    Attributes:
        name: one of `OCCLUSION_KINDS`.
        place: where the occluder comes from.
        occluders: what is pasted.
        stock: what `occluders` holds, in words that settle it: two kinds of one name, place and stock occlude alike.
    """

    name: str
    place: Place
    occluders: Occluders
    stock: str


@checked(DataError)
def open_kinds(
    names: Sequence[str] = tuple(OCCLUSION_KINDS),
    *,
    occluders: str | Path = "generated",
    people: Sequence[Sample] = (),
    take: Literal["all", "even", "odd"] = "all",
    seed: int = 0,
) -> tuple[OcclusionKind, ...]:
    """Return kinds of occlusion by name, ready to be used by any number of models.

    Args:
        names: any of `OCCLUSION_KINDS`, in the order wanted; what comes twice is taken once.
        occluders: what occludes from below, a side, above or anywhere: "generated", or a folder of cut-outs with
            transparency.
        people: whom to cut out for "pedestrian", usually the gallery. Nobody is occluded by himself.
        take: of a folder, all cut-outs, or those at even or odd positions.
        seed: of generated occluders.

    Raises:
        DataError: an unknown kind, none at all, no such folder, nothing in it, or nobody to cut out.
        ImageError: a cut-out cannot be read.
        MaskError: a person's mask is missing or does not fit.

    Example:
        >>> [(kind.name, kind.place, kind.stock) for kind in open_kinds(["bottom", "object"])]
        [('bottom', 'bottom', 'generated (240), seed 0'), ('object', 'anywhere', 'generated (240), seed 0')]
    """
    wanted = tuple(dict.fromkeys(names))
    unknown = next((name for name in wanted if name not in OCCLUSION_KINDS), None)
    if unknown is not None or not wanted:
        hint = "" if unknown is None else did_you_mean(unknown, list(OCCLUSION_KINDS))
        asked = "no kind was asked for" if unknown is None else f"there is no kind of occlusion '{unknown}'"
        raise DataError(f"{asked}.{hint} There are: {', '.join(OCCLUSION_KINDS)}.")
    if str(occluders) == "pedestrians":
        raise DataError(
            "pedestrians stand in front of people and do not grow from borders; they are the kind 'pedestrian'. "
            "Give 'generated' or a folder of cut-outs as occluders."
        )
    stocks: dict[bool, tuple[Occluders, str]] = {}
    for name in wanted:
        person = name == "pedestrian"
        if person not in stocks:
            stock = open_occluders("pedestrians" if person else occluders, people=people, take=take, seed=seed)
            words = (
                f"{len(people)} images, whose pictures stay in the gallery"
                if person
                else _settled(occluders, take, seed)
            )
            stocks[person] = stock, f"{stock.description}{' of ' if person else ', '}{words}"
    return tuple(OcclusionKind(name, OCCLUSION_KINDS[name], *stocks[name == "pedestrian"]) for name in wanted)


def _settled(source: str | Path, take: Literal["all", "even", "odd"], seed: int) -> str:
    """What settles a stock beside its name and size: the seed, or the content of the files."""
    if str(source) == "generated":
        return f"seed {seed}"
    digest = hashlib.sha256()
    paths = sorted(path for path in Path(source).iterdir() if path.suffix.lower() in SUFFIXES)
    for path in paths[take_slice(take)]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"positions: {take}, SHA-256 {digest.hexdigest()[:12]}"
