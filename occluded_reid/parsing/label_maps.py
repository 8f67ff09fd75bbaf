"""The tables that map one label set to another, and the mirror image of a mask."""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack

import numpy as np

from occluded_reid.data.images import merge_classes
from occluded_reid.errors import MaskError
from occluded_reid.options import did_you_mean
from occluded_reid.parsing.label_sets import LABEL_SETS, LabelSet, label_set_named

__all__ = [
    "LABEL_SETS",
    "LabelSet",
    "MapOptions",
    "flip_labels",
    "flip_order",
    "label_set_named",
    "label_table",
    "map_labels",
    "mapping_notes",
    "missing_classes",
    "region_classes",
]

NOWHERE = 255
"""What a table holds for a class that its source does not have; no label set has so many classes."""


class MapOptions(TypedDict, total=False):
    """Where classes go that a clothing label set has and a body has not.

    The places are those of sorn8; in sgam5 the torso belongs to the upper body, the lower leg to the lower body, and
    the foot to the shoes.
    """

    bag: Literal["background", "torso"]
    socks: Literal["foot", "lower_leg"]
    scarf: Literal["torso", "head"]


# Position: class of the source; value: class of sorn8.
_TO_SORN8: dict[str, tuple[int, ...]] = {
    "lip20": (0, 1, 1, 4, 1, 2, 2, 2, 7, 5, 2, 2, 5, 1, 3, 3, 6, 6, 7, 7),
    "atr18": (0, 1, 1, 1, 2, 5, 5, 2, 2, 7, 7, 1, 6, 6, 3, 3, 0, 2),
    "pascal7": (0, 1, 2, 3, 4, 5, 6),
    "densepose14": (0, 2, 4, 4, 7, 7, 5, 5, 6, 6, 3, 3, 4, 4, 1),
    "densepose24": (0, 2, 2, 4, 4, 7, 7, *[5] * 4, *[6] * 4, *[3] * 4, *[4] * 4, 1, 1),
    "bodypix24": (0, 1, 1, *[3] * 4, *[4] * 6, 2, 2, *[5] * 4, *[6] * 4, 7, 7),
    "sorn8": (0, 1, 2, 3, 4, 5, 6, 7),
}
_SORN8_TO_SGAM5 = (0, 1, 2, 2, 2, 3, 3, 4)
# What merged sets still allow: their classes cannot be split again.
_MERGED: dict[tuple[str, str], tuple[int, ...]] = {
    ("sorn5", "sorn2"): (0, 1, 1, 1, 1),
    ("sorn5", "sgam5"): (0, 1, 2, 2, 3),
    ("sgam5", "sorn2"): (0, 1, 1, 1, 1),
}
# Option -> source -> the class it moves, and where each of its values puts it in sorn8; the first is the default.
_MOVED: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "bag": ({"atr18": 16}, {"background": 0, "torso": 2}),
    "socks": ({"lip20": 8}, {"foot": 7, "lower_leg": 6}),
    "scarf": ({"lip20": 11, "atr18": 17}, {"torso": 2, "head": 1}),
}
_NOTES: dict[tuple[str, str], tuple[str, ...]] = {
    ("lip20", "sorn8"): (
        "lip20 does not split arms: the whole arm becomes upper arm, and only gloves lower arm",
        "lip20 does not split legs: pants and skirt become upper leg, bare legs lower leg",
    ),
    ("atr18", "sorn8"): (
        "atr18 does not split arms: the whole arm becomes upper arm",
        "atr18 does not split legs: pants and skirt become upper leg, bare legs lower leg",
    ),
    ("sorn5", "sgam5"): ("sorn5 counts feet among the legs: they become lower_body",),
}
_WHOLE_BODY = "{source} does not split dresses{and_jumpsuits}: they become {torso} down to the hem"


def label_table(source: str, target: str, **options: Unpack[MapOptions]) -> np.ndarray:
    """Return the table that maps the classes of one label set to another.

    Args:
        source: name of the label set of the masks.
        target: name of the label set that is wanted: sorn8, sorn5, sorn2, sgam5, or the source itself.
        **options: see `MapOptions`: `bag` (ATR), `socks` (LIP) and `scarf` (both). Dresses and jumpsuits cover two
            regions, and no table can split them: they are upper body.

    Returns:
        (256,) uint8; 255 stands where the source has no such class.

    Raises:
        UnknownNameError: there is no such label set.
        MaskError: the source is too coarse for the target, or has no class that an option moves.

    Example:
        >>> label_table("lip20", "sgam5")[:20].tolist()
        [0, 1, 1, 2, 1, 2, 2, 2, 4, 3, 2, 2, 3, 1, 2, 2, 3, 3, 4, 4]
        >>> int(label_table("lip20", "sgam5", socks="lower_leg")[8])
        3
    """
    row = _row(label_set_named(source).name, label_set_named(target).name, dict(options))
    table = np.full(256, NOWHERE, dtype=np.uint8)
    table[: len(row)] = row
    return table


def map_labels(labels: np.ndarray, source: str, target: str, **options: Unpack[MapOptions]) -> np.ndarray:
    """Map a mask of one label set to another.

    Args:
        labels: whole numbers of any shape, classes of `source`.
        source, target, **options: as in `label_table`.

    Returns:
        The same shape, uint8, classes of `target`.

    Raises:
        MaskError: the mask holds a class that the source does not have, or as `label_table`.
        UnknownNameError: there is no such label set.

    Example:
        >>> map_labels(np.array([[0, 14, 3]]), "densepose14", "sorn8").tolist()
        [[0, 1, 4]]
    """
    table = label_table(source, target, **options)
    return np.asarray(table[_checked(labels, label_set_named(source))])


def region_classes(source: str, **options: Unpack[MapOptions]) -> dict[str, tuple[int, ...]]:
    """Return which classes of a label set make up each region of SGAM; a region without a class is an empty tuple.

    The probability of a region is the sum over its classes, after a softmax over all classes, background among them.

    Raises:
        MaskError, UnknownNameError: as `label_table`.

    Example:
        >>> region_classes("sorn8")
        {'head': (1,), 'upper_body': (2, 3, 4), 'lower_body': (5, 6), 'shoes': (7,)}
    """
    table = label_table(source, "sgam5", **options)
    return {
        name: tuple(int(k) for k in np.flatnonzero(table == region))
        for region, name in enumerate(LABEL_SETS["sgam5"].names)
        if region
    }


def flip_order(label_set: str) -> tuple[int, ...]:
    """Return, for each class, the class it becomes in the mirror; also the order of mirrored channels.

    Raises:
        UnknownNameError: there is no such label set.

    Example:
        >>> flip_order("lip20")[13:]
        (13, 15, 14, 17, 16, 19, 18)
    """
    known = label_set_named(label_set)
    order = list(range(known.classes))
    for one, other in known.swaps:
        order[one], order[other] = other, one
    return tuple(order)


def flip_labels(labels: np.ndarray, label_set: str) -> np.ndarray:
    """Mirror a mask left to right and let left and right classes change places.

    Args:
        labels: (…, H, W) whole numbers, classes of `label_set`.
        label_set: its name.

    Returns:
        The same shape, uint8.

    Raises:
        MaskError: the mask holds another class.
        UnknownNameError: there is no such label set.

    Example:
        >>> flip_labels(np.array([[14, 0, 0]]), "lip20").tolist()
        [[0, 0, 15]]
    """
    order = np.asarray(flip_order(label_set), dtype=np.uint8)
    return np.ascontiguousarray(order[_checked(labels, label_set_named(label_set))][..., ::-1])


def missing_classes(source: str, target: str, **options: Unpack[MapOptions]) -> tuple[str, ...]:
    """Return the names of the target's classes that no class of the source gives.

    Example:
        >>> missing_classes("pascal7", "sorn8"), missing_classes("atr18", "sorn8")
        (('foot',), ('lower arm',))
    """
    table = label_table(source, target, **options)
    return tuple(name for k, name in enumerate(LABEL_SETS[target].names) if k not in table)


def mapping_notes(source: str, target: str, **options: Unpack[MapOptions]) -> tuple[str, ...]:
    """Return what a mapping loses or leaves out, a sentence each; empty where every class has its own counterpart.

    Example:
        >>> mapping_notes("pascal7", "sgam5")
        ("pascal7 gives no 'shoes': that class stays empty",)
    """
    notes = [
        f"{source} gives no '{name}': that class stays empty" for name in missing_classes(source, target, **options)
    ]
    notes += _NOTES.get((source, target), ())
    if source in ("lip20", "atr18") and target in ("sorn8", "sorn5", "sgam5"):
        torso = "upper_body" if target == "sgam5" else "torso"
        jumpsuits = " and jumpsuits" if source == "lip20" else ""
        notes.append(_WHOLE_BODY.format(source=source, and_jumpsuits=jumpsuits, torso=torso))
    return tuple(notes)


def _row(source: str, target: str, options: dict[str, object]) -> tuple[int, ...]:
    """The class of the target for each class of the source."""
    moves = [_move(source, option, value) for option, value in options.items()]
    if source == target:
        return tuple(range(LABEL_SETS[source].classes))
    if (source, target) in _MERGED:
        return _MERGED[source, target]
    if source not in _TO_SORN8 or target not in ("sorn8", "sorn5", "sorn2", "sgam5"):
        reach = [name for name in ("sorn8", "sorn5", "sorn2", "sgam5") if _reaches(source, name)]
        raise MaskError(
            f"masks of '{source}' cannot become '{target}': merged classes cannot be split, and body parts do not tell "
            f"clothes. From '{source}' can be made: {', '.join(dict.fromkeys([source, *reach]))}."
        )
    row = list(_TO_SORN8[source])
    for place, value in filter(None, moves):
        row[place] = value
    if target == "sgam5":
        return tuple(_SORN8_TO_SGAM5[k] for k in row)
    merged = merge_classes(np.asarray(row, dtype=np.uint8), LABEL_SETS[target].classes)
    return tuple(int(k) for k in merged)


def _reaches(source: str, target: str) -> bool:
    return source == target or source in _TO_SORN8 or (source, target) in _MERGED


def _move(source: str, option: str, value: object) -> tuple[int, int] | None:
    """The class that an option moves, and where to in sorn8."""
    if option not in _MOVED:
        raise MaskError(
            f"label tables take no option '{option}'.{did_you_mean(option, list(_MOVED))} Options: {', '.join(_MOVED)}."
        )
    classes, places = _MOVED[option]
    if value not in places:
        raise MaskError(f"'{option}' was given {value!r}; wanted one of {', '.join(map(repr, places))}.")
    if source not in classes:
        if value == next(iter(places)):
            return None  # the default says nothing
        raise MaskError(
            f"'{source}' has no class '{option}' to move. Leave that option out; it is for {', '.join(classes)}."
        )
    return classes[source], places[str(value)]


def _checked(labels: np.ndarray, known: LabelSet) -> np.ndarray:
    """The labels, all of them classes of this set."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub":
        raise MaskError(f"a mask must hold whole numbers; this one holds {labels.dtype}. Round and cast it.")
    if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < known.classes):
        strange = sorted({int(k) for k in np.unique(labels)} - set(range(known.classes)))
        shown = ", ".join(map(str, strange[:5])) + (", …" if len(strange) > 5 else "")
        raise MaskError(
            f"a mask holds class {shown}, which '{known.name}' does not have (0 … {known.classes - 1}). "
            "Look at which label set the masks are of, or mend them."
        )
    return labels.astype(np.intp, copy=False)
