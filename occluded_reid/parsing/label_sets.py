"""The label sets of human parsers: what their classes are called, and which change places in a mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from occluded_reid.errors import UnknownNameError
from occluded_reid.options import did_you_mean

__all__ = ["LABEL_SETS", "LabelSet", "label_set_named"]


@dataclass(frozen=True)
class LabelSet:
    """The classes of one kind of mask.

    Attributes:
        name: as `LABEL_SETS` knows it.
        names: of the classes, in the order of their ids; 0 is background.
        swaps: pairs of ids that change places when an image is mirrored.
    """

    name: str
    names: tuple[str, ...]
    swaps: tuple[tuple[int, int], ...] = ()

    @property
    def classes(self) -> int:
        """How many there are, background among them."""
        return len(self.names)


def _set(name: str, names: str, *swaps: tuple[int, int]) -> LabelSet:
    return LabelSet(name, tuple(part.strip() for part in names.split(",")), swaps)


def _pairs(*lefts: int) -> tuple[tuple[int, int], ...]:
    """Neighbours (n, n + 1)."""
    return tuple((left, left + 1) for left in lefts)


LABEL_SETS: Mapping[str, LabelSet] = MappingProxyType(
    {
        each.name: each
        for each in (
            _set(
                "lip20",
                "background, hat, hair, glove, sunglasses, upper clothes, dress, coat, socks, pants, jumpsuits, scarf, "
                "skirt, face, left arm, right arm, left leg, right leg, left shoe, right shoe",
                *_pairs(14, 16, 18),
            ),
            _set(
                "atr18",
                "background, hat, hair, sunglasses, upper clothes, skirt, pants, dress, belt, left shoe, right shoe, "
                "face, left leg, right leg, left arm, right arm, bag, scarf",
                *_pairs(9, 12, 14),
            ),
            _set("pascal7", "background, head, torso, upper arms, lower arms, upper legs, lower legs"),
            _set(
                "densepose14",
                "background, torso, right hand, left hand, left foot, right foot, right upper leg, left upper leg, "
                "right lower leg, left lower leg, left upper arm, right upper arm, left lower arm, right lower arm, "
                "head",
                *_pairs(2, 4, 6, 8, 10, 12),
            ),
            # Each limb has two halves; 1 and 2 are the back and the front of the torso, so mirroring keeps them.
            _set(
                "densepose24",
                "background, torso back, torso front, right hand, left hand, left foot, right foot, "
                "right upper leg 1, left upper leg 1, right upper leg 2, left upper leg 2, "
                "right lower leg 1, left lower leg 1, right lower leg 2, left lower leg 2, "
                "left upper arm 1, right upper arm 1, left upper arm 2, right upper arm 2, "
                "left lower arm 1, right lower arm 1, left lower arm 2, right lower arm 2, right head, left head",
                *_pairs(*range(3, 24, 2)),
            ),
            # BodyPix counts its 24 parts from 0 and has the background apart: here they are 1 … 24.
            _set(
                "bodypix24",
                "background, left face, right face, left upper arm front, left upper arm back, "
                "right upper arm front, right upper arm back, left lower arm front, left lower arm back, "
                "right lower arm front, right lower arm back, left hand, right hand, torso front, torso back, "
                "left upper leg front, left upper leg back, right upper leg front, right upper leg back, "
                "left lower leg front, left lower leg back, right lower leg front, right lower leg back, "
                "left foot, right foot",
                *((1, 2), (3, 5), (4, 6), (7, 9), (8, 10), (11, 12)),
                *((15, 17), (16, 18), (19, 21), (20, 22), (23, 24)),
            ),
            _set("sorn8", "background, head, torso, upper arm, lower arm, upper leg, lower leg, foot"),
            _set("sorn5", "background, head, torso, arm, leg"),
            _set("sorn2", "background, body"),
            _set("sgam5", "background, head, upper_body, lower_body, shoes"),
        )
    }
)
"""Every label set by name; the number counts its classes, in the sets of DensePose and BodyPix without background."""


def label_set_named(name: str) -> LabelSet:
    """Return a label set.

    Raises:
        UnknownNameError: there is none of that name; the message suggests the closest.
    """
    if name not in LABEL_SETS:
        known = list(LABEL_SETS)
        raise UnknownNameError(f"no label set is named '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return LABEL_SETS[name]
