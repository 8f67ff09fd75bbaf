"""A pose: where the joints of a walking person are in one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occluded_reid.data.synthetic.canvas import Point
from occluded_reid.data.synthetic.options import Difficulty
from occluded_reid.data.synthetic.person import Person

NECK, SHOULDER = 0.145, 0.185
"""Heights of neck and shoulder below the top of the head, in body heights."""


@dataclass(frozen=True)
class Limb:
    """Three joints of an arm (shoulder, elbow, wrist) or a leg (hip, knee, ankle) and the end of hand or foot."""

    first: Point
    middle: Point
    last: Point
    tip: Point


@dataclass(frozen=True)
class Pose:
    """Joints in body heights; x to the right from the body's axis, y down from the top of the head.

    Args:
        yaw: direction of walking in radians; 0 towards the camera, π away from it, π/2 to the right.
        lean: x of the shoulders against the hips.
        nod: x of the face against the head.
        arms: far arm, near arm.
        legs: far leg, near leg.
    """

    yaw: float
    lean: float
    nod: float
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]

    @property
    def side(self) -> float:
        """How much of the side is seen: the sine of the yaw, negative when walking to the left."""
        return float(np.sin(self.yaw))

    @property
    def front(self) -> float:
        """How much of the front is seen: the cosine of the yaw, negative from behind."""
        return float(np.cos(self.yaw))

    def width(self, half_width: float, half_depth: float) -> float:
        """Half the apparent width of an elliptic body section."""
        return float(np.hypot(half_width * self.front, half_depth * self.side))


def make_pose(person: Person, heading: float, difficulty: Difficulty, rng: np.random.Generator) -> Pose:
    """Draw one moment of walking.

    Args:
        person: whose limbs to place.
        heading: direction of walking that the camera prefers; the opposite one is as likely.
        difficulty: spread of directions and swing of the legs.
        rng: the picture's generator.

    Returns:
        The pose, its lowest foot at y = 1.
    """
    yaw = heading + np.pi * rng.integers(2) + rng.normal(0, difficulty.view_spread)
    side, front = float(np.sin(yaw)), float(np.cos(yaw))
    phase, stride = rng.uniform(0, 2 * np.pi), difficulty.swing * rng.uniform(0.25, 1.0)
    lean = 0.02 * side + rng.normal(0, 0.006)
    flex, bend, spread = rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.22)
    raised = int(rng.integers(8))  # 0 or 1: that arm holds something up, a telephone perhaps
    near = -1 if side > 0 else 1
    arms: list[Limb] = []
    legs: list[Limb] = []
    upper_leg = 0.5 * person.legs
    lower_leg = person.legs - upper_leg - 0.035
    hip = 1 - person.legs
    for order, lateral in enumerate((-near, near)):
        swing = lateral * stride * np.sin(phase)
        root = (lateral * person.hips * 0.55 * front, hip)
        knee = (root[0] + upper_leg * np.sin(swing) * side, root[1] + upper_leg * np.cos(swing))
        shin = swing - flex * max(0.0, lateral * np.cos(phase))
        ankle = (knee[0] + lower_leg * np.sin(shin) * side, knee[1] + lower_leg * np.cos(shin))
        toe = (ankle[0] + 0.075 * side + lateral * 0.02 * front, ankle[1] + 0.020 + 0.010 * max(front, 0.0))
        legs.append(Limb(root, knee, ankle, toe))

        swing = -0.8 * swing + 0.1
        shoulder = (lean + lateral * person.shoulders * front, SHOULDER)
        out = lateral * spread * front
        elbow = (shoulder[0] + 0.165 * (np.sin(swing) * side + out), shoulder[1] + 0.165 * np.cos(swing))
        fore = swing + bend
        if raised == order:
            fore, out = 2.5, -0.25 * lateral * front
        wrist = (elbow[0] + 0.14 * (np.sin(fore) * side + out), elbow[1] + 0.14 * np.cos(fore))
        hand = (wrist[0] + 0.03 * (np.sin(fore) * side + out), wrist[1] + 0.03 * np.cos(fore))
        arms.append(Limb(shoulder, elbow, wrist, hand))
    drop = 0.965 - max(leg.last[1] for leg in legs)  # the standing foot carries the body
    return Pose(
        yaw=float(yaw),
        lean=lean,
        nod=float(np.clip(0.6 * side + rng.normal(0, 0.15), -1, 1)),
        arms=(arms[0], arms[1]),
        legs=(_lower(legs[0], drop), _lower(legs[1], drop)),
    )


def _lower(limb: Limb, drop: float) -> Limb:
    # Spread over the joints below the hip, so that trunk and hip stay where they are.
    first, middle, last, tip = limb.first, limb.middle, limb.last, limb.tip
    return Limb(first, (middle[0], middle[1] + drop / 2), (last[0], last[1] + drop), (tip[0], tip[1] + drop))
