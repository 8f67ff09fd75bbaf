"""A person: the build, hair, clothes and carried things that all pictures of one identity share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occluded_reid.data.synthetic.options import Difficulty, generator
from occluded_reid.data.synthetic.textures import PATTERNS, Colour, Material

UPPER: tuple[Colour, ...] = (
    (40, 42, 50), (225, 222, 214), (178, 44, 42), (44, 82, 150), (128, 132, 130), (58, 118, 74), (214, 168, 60),
    (126, 66, 128),
)  # fmt: skip
LOWER: tuple[Colour, ...] = (
    (36, 38, 46),
    (52, 72, 116),
    (148, 128, 98),
    (108, 112, 114),
    (92, 64, 48),
    (200, 196, 188),
)
SHOES: tuple[Colour, ...] = ((30, 30, 32), (232, 230, 226), (120, 78, 48), (170, 40, 44))
SKIN: tuple[Colour, ...] = ((242, 206, 178), (224, 178, 144), (190, 138, 102), (142, 96, 66), (98, 64, 46))
HAIR: tuple[Colour, ...] = ((28, 22, 22), (74, 48, 32), (132, 88, 48), (206, 170, 104), (150, 146, 144))
BAGS: tuple[Colour, ...] = ((46, 44, 52), (156, 52, 44), (62, 92, 84), (166, 124, 72))

HAIR_STYLES = ("short", "bald", "long", "bun", "bob", "ponytail", "afro", "cap", "beanie", "hood")
TOPS = ("t_shirt", "long_sleeve", "sleeveless", "open_jacket", "coat", "crop")
BOTTOMS = ("trousers", "shorts", "skirt", "long_skirt", "wide", "capri")
LOWER_PATTERNS = ("side_stripe", "cuffs", "knees", "stripes", "checks", "plaid", "camouflage")
LOGOS = ("none", "disc", "box", "bar", "cross")


@dataclass(frozen=True)
class Person:
    """Everything that stays the same between two pictures of one person; lengths in body heights."""

    shoulders: float
    hips: float
    legs: float
    girth: float
    head: float
    skin: Material
    hair_style: str
    hair: Material
    top: str
    upper: Material
    sleeve: Material
    inner: Material
    logo: str
    logo_back: str
    logo_colour: Material
    bottom: str
    lower: Material
    lower_detail: str
    detail: Material
    belt: Material | None
    shoe: Material
    sock: Material
    boot: float
    backpack: Material | None
    shoulder_bag: Material | None
    hand_bag: Material | None
    scarf: Material | None


def make_person(seed: int, identity: int, difficulty: Difficulty) -> Person:
    """Draw the person behind an identity number.

    Colours come from small palettes that all identities share, so that texture, cut, build and accessories, in
    every part of the body, have to tell people apart.

    Args:
        seed: seed of the data set.
        identity: number of the person.
        difficulty: palette sizes and shares.

    Returns:
        The person; equal arguments give an equal person.
    """
    rng = generator(seed, "person", (identity,))
    uppers, lowers = UPPER[: difficulty.upper_colours], LOWER[: difficulty.lower_colours]

    def shade(colours: tuple[Colour, ...]) -> Colour:
        base = colours[rng.integers(len(colours))]
        red, green, blue = (float(np.clip(c + rng.normal(0, difficulty.colour_jitter), 12, 246)) for c in base)
        return red, green, blue

    def other(colours: tuple[Colour, ...], than: Colour) -> Colour:
        # An accent has to be visible: the least similar of a few draws.
        draws = [shade(colours) for _ in range(2)]
        return max(draws, key=lambda c: sum(abs(a - b) for a, b in zip(c, than, strict=True)))

    def cloth(colours: tuple[Colour, ...], patterns: tuple[str, ...]) -> Material:
        base = shade(colours)
        kind = "plain" if rng.random() < difficulty.plain_share else str(rng.choice(patterns))
        period, duty, phase = rng.uniform(0.035, 0.10), rng.uniform(0.25, 0.65), rng.random()
        return Material(base, other(colours, base), kind, float(period), float(duty), float(phase))

    def maybe(share: float, material: Material) -> Material | None:
        return material if rng.random() < share else None

    upper = cloth(uppers, PATTERNS[1:])
    lower = cloth(lowers, LOWER_PATTERNS)
    sleeve = (
        upper if rng.random() < 0.6 else Material(other(uppers, upper.base), upper.base, "band", phase=rng.random())
    )
    carried = rng.choice(4, p=[1 - difficulty.carrying, *(difficulty.carrying * np.array([0.5, 0.25, 0.25]))])
    detail = lower.pattern if lower.pattern in LOWER_PATTERNS[:3] else "none"
    hair_style = str(rng.choice(HAIR_STYLES))
    hair = (
        Material(shade(HAIR))
        if hair_style not in HAIR_STYLES[-3:]
        else Material(shade(uppers), shade(uppers), "stripes")
    )
    skin = Material(shade(SKIN))
    bag = Material(shade(BAGS), shade(UPPER), "stripes" if rng.random() < 0.5 else "plain", 0.08, 0.35)
    return Person(
        shoulders=float(rng.uniform(0.092, 0.130)),
        hips=float(rng.uniform(0.068, 0.100)),
        legs=float(rng.uniform(0.44, 0.52)),
        girth=float(rng.uniform(0.82, 1.3)),
        head=float(rng.uniform(0.9, 1.15)),
        skin=skin,
        hair_style=hair_style,
        hair=hair,
        top=str(rng.choice(TOPS)),
        upper=upper,
        sleeve=sleeve,
        inner=Material(other(uppers, upper.base), upper.base, "stripes" if rng.random() < 0.4 else "plain"),
        logo=str(rng.choice(LOGOS)) if upper.pattern in ("plain", "two_tone", "band") else "none",
        logo_back=str(rng.choice(LOGOS)) if upper.pattern in ("plain", "two_tone", "band") else "none",
        logo_colour=Material(other(uppers, upper.base)),
        bottom=str(rng.choice(BOTTOMS, p=[0.4, 0.16, 0.14, 0.08, 0.12, 0.1])),
        lower=lower,
        lower_detail=detail,
        detail=Material(lower.accent),
        belt=maybe(0.3, Material(shade(SHOES))),
        shoe=Material(shade(SHOES)),
        sock=Material(shade(SHOES), shade(UPPER), "stripes" if rng.random() < 0.5 else "plain", 0.03),
        boot=float(rng.choice([0.0, 0.0, 0.25, 0.6])),
        backpack=bag if carried == 1 else None,
        shoulder_bag=bag if carried == 2 else None,
        hand_bag=bag if carried == 3 else None,
        scarf=maybe(0.15, Material(shade(UPPER), shade(UPPER), "stripes", 0.03)),
    )
