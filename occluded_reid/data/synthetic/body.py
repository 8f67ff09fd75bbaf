"""Drawing a person in a pose: limbs, garments, hair and carried things, each shape with its mask class."""

from __future__ import annotations

from dataclasses import dataclass

from occluded_reid.data.synthetic.canvas import Canvas, Point
from occluded_reid.data.synthetic.person import Person
from occluded_reid.data.synthetic.pose import NECK, SHOULDER, Limb, Pose
from occluded_reid.data.synthetic.textures import Material

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG, FOOT = range(1, 8)
_WHITE, _DARK = Material((236.0, 232.0, 226.0)), Material((30.0, 26.0, 26.0))


def draw_person(canvas: Canvas, person: Person, pose: Pose) -> None:
    """Lay a person on a canvas whose unit is the body height and whose origin is the top of the head.

    Args:
        canvas: receives the shapes.
        person: who.
        pose: how.
    """
    _Figure(canvas, person, pose).draw()


@dataclass(frozen=True)
class _Figure:
    canvas: Canvas
    person: Person
    pose: Pose

    def draw(self) -> None:
        front, side = self.pose.front, self.pose.side
        turned = abs(side) > 0.35
        self._pack_behind()
        if turned:
            self._arm(self.pose.arms[0], 0.82)
        self._leg(self.pose.legs[0], 0.86 if turned else 0.97)
        self._leg(self.pose.legs[1], 1.0)
        self._skirt()
        if self.person.hair_style == "long" and front > 0:
            self._long_hair(0.9)
        self._torso()
        if not turned:
            self._arm(self.pose.arms[0], 0.96)
        self._head()
        self._pack_in_front()
        self._arm(self.pose.arms[1], 1.0)
        self._hand_bag()

    @property
    def hip(self) -> float:
        return 1 - self.person.legs

    def _leg(self, leg: Limb, light: float) -> None:
        person, canvas, girth = self.person, self.canvas, self.person.girth
        bare = person.bottom in ("shorts", "skirt")
        wide = 1.35 if person.bottom == "wide" else 1.0
        thigh, knee, ankle = 0.052 * girth, 0.034 * girth * wide, 0.023 * girth
        upper = person.skin if person.bottom == "skirt" else person.lower
        lower = person.skin if bare or person.bottom in ("capri", "long_skirt") else person.lower
        hem = ankle if lower is person.skin else max(ankle * 1.15, 0.030 * wide * girth)
        canvas.limb(leg.middle, leg.last, (knee, hem), lower, LOWER_LEG, light)
        if person.bottom == "capri":
            canvas.limb(leg.middle, _between(leg.middle, leg.last, 0.45), (knee, 0.033), person.lower, LOWER_LEG, light)
        shaft = max(person.boot, 0.14 if lower is person.skin else 0.0)
        if shaft:
            material = person.shoe if person.boot else person.sock
            canvas.limb(
                _between(leg.last, leg.middle, shaft), leg.last, (ankle * 1.3, ankle * 1.2), material, LOWER_LEG, light
            )
        canvas.limb(leg.first, leg.middle, (thigh, knee * 1.04), upper, UPPER_LEG, light)
        if person.bottom == "shorts":
            canvas.limb(
                leg.first, _between(leg.first, leg.middle, 0.72), (thigh * 1.1, thigh), person.lower, UPPER_LEG, light
            )
        self._leg_detail(leg, (thigh, knee, hem), lower is not person.skin, light)
        heel = (leg.last[0] - 0.018 * self.pose.side, leg.last[1] + 0.016)
        canvas.limb(heel, leg.tip, (0.020, 0.014), person.shoe, FOOT, light)
        sole = ((heel[0], heel[1] + 0.017), (leg.tip[0], leg.tip[1] + 0.011))
        canvas.limb(*sole, (0.004, 0.004), _DARK if sum(person.shoe.base) > 400 else _WHITE, FOOT, light)

    def _leg_detail(self, leg: Limb, radii: tuple[float, float, float], covered: bool, light: float) -> None:
        person, canvas, detail = self.person, self.canvas, self.person.detail
        thigh, knee, hem = radii
        if person.lower_detail == "none" or person.bottom in ("skirt", "long_skirt"):
            return
        if person.lower_detail == "side_stripe":
            canvas.limb(
                _aside(leg.first, 0.4 * thigh), _aside(leg.middle, 0.3 * knee), (0.011, 0.010), detail, None, light
            )
            if covered:
                canvas.limb(
                    _aside(leg.middle, 0.3 * knee), _aside(leg.last, 0.3 * hem), (0.010, 0.009), detail, None, light
                )
        elif person.lower_detail == "knees" and covered:
            ends = _between(leg.first, leg.middle, 0.8), _between(leg.middle, leg.last, 0.2)
            canvas.limb(*ends, (knee, knee), detail, None, light)
        elif covered:
            canvas.limb(_between(leg.last, leg.middle, 0.28), leg.last, (hem * 1.1, hem * 1.1), detail, None, light)

    def _skirt(self) -> None:
        person, pose, hip = self.person, self.pose, self.hip
        if person.bottom not in ("skirt", "long_skirt"):
            return
        waist = pose.width(person.hips, 0.07)
        knees = [leg.middle for leg in pose.legs]
        flare = 0.035
        left, right = min(k[0] for k in knees) - flare, max(k[0] for k in knees) + flare
        left, right, low = min(left, -waist), max(right, waist), max(k[1] for k in knees) - 0.03
        radius = 0.5 * (right - left)
        if person.bottom == "long_skirt":
            ankles = [leg.last for leg in pose.legs]
            bottom = max(a[1] for a in ankles) - 0.04
            ends = min(left, min(a[0] for a in ankles) - 0.02), max(right, max(a[0] for a in ankles) + 0.02)
            corners = [(left, low), (right, low), (ends[1], bottom), (ends[0], bottom)]
            self.canvas.polygon(corners, person.lower, LOWER_LEG, origin=(0.0, hip), radius=radius)
        top = hip - 0.06
        corners = [(-waist, top), (waist, top), (right, low), (left, low)]
        self.canvas.polygon(corners, person.lower, UPPER_LEG, origin=(0.0, hip), radius=radius)

    def _torso(self) -> None:
        person, pose, canvas, lean = self.person, self.pose, self.canvas, self.pose.lean
        shoulder = pose.width(person.shoulders, 0.062 * person.girth)
        waist = pose.width(0.5 * (person.shoulders + person.hips) * 0.92, 0.062 * person.girth)
        hips = pose.width(person.hips, 0.068 * person.girth)
        hem = {"crop": self.hip - 0.05, "coat": self.hip + 0.02}.get(person.top, self.hip + 0.03)
        canvas.limb((lean, NECK - 0.03), (lean, SHOULDER), (0.028, 0.034), person.skin, TORSO, 0.9)
        if person.top == "crop":
            self._panel(waist, hips, self.hip - 0.10, self.hip + 0.02, person.lower if person.belt else person.skin)
        outline = [
            (lean - 0.034, NECK + 0.005), (lean + 0.034, NECK + 0.005), (lean + shoulder * 0.8, SHOULDER - 0.022),
            (lean + shoulder, SHOULDER + 0.012), (0.5 * lean + waist, 0.35), (hips, hem), (-hips, hem),
            (0.5 * lean - waist, 0.35), (lean - shoulder, SHOULDER + 0.012), (lean - shoulder * 0.8, SHOULDER - 0.022),
        ]  # fmt: skip
        canvas.polygon(outline, person.upper, TORSO, origin=(lean, SHOULDER - 0.02), radius=shoulder * 1.05)
        if person.top == "coat":
            tail = self.hip + 0.15
            corners = [(-hips, hem - 0.01), (hips, hem - 0.01), (hips * 1.25, tail), (-hips * 1.25, tail)]
            canvas.polygon(corners, person.upper, UPPER_LEG, origin=(lean, SHOULDER - 0.02), radius=hips * 1.2)
        elif person.belt is not None:
            self._panel(hips, hips, hem - 0.02, hem, person.belt)
        self._front(shoulder, hem)
        self._logo(shoulder)
        if person.scarf is not None:
            canvas.ellipse((lean, NECK + 0.012), (0.052, 0.024), person.scarf, TORSO)
            if pose.front > -0.3:
                x = lean + 0.03 * pose.side
                canvas.limb((x, NECK + 0.02), (x + 0.01, NECK + 0.13), (0.018, 0.016), person.scarf, TORSO)

    def _front(self, shoulder: float, hem: float) -> None:
        """What an open jacket or a coat's row of buttons shows from the front."""
        person, pose = self.person, self.pose
        if pose.front < -0.1 or person.top not in ("open_jacket", "coat"):
            return
        x = pose.lean + 0.75 * shoulder * pose.side
        wide = (0.04 if person.top == "open_jacket" else 0.012) * max(pose.front, 0.25)
        corners = [(x - wide, NECK + 0.012), (x + wide, NECK + 0.012), (x + wide * 1.3, hem), (x - wide * 1.3, hem)]
        self.canvas.polygon(corners, person.inner, TORSO, origin=(x, NECK))

    def _logo(self, shoulder: float) -> None:
        person, pose = self.person, self.pose
        kind = person.logo if pose.front > 0 else person.logo_back
        if kind == "none" or abs(pose.front) < 0.3 or (person.top == "open_jacket" and pose.front > 0):
            return
        x, y = pose.lean + 0.7 * shoulder * pose.side * (1 if pose.front > 0 else -1), 0.275
        wide = 0.05 * abs(pose.front)
        boxes = {"box": [(wide, 0.04)], "bar": [(wide * 1.3, 0.014)], "cross": [(wide, 0.011), (0.014, 0.045)]}
        if kind == "disc":
            self.canvas.ellipse((x, y), (wide, 0.045), person.logo_colour, None)
        for half, high in boxes.get(kind, []):
            corners = [(x - half, y - high), (x + half, y - high), (x + half, y + high), (x - half, y + high)]
            self.canvas.polygon(corners, person.logo_colour, None)

    def _panel(self, top_width: float, width: float, top: float, bottom: float, material: Material) -> None:
        corners = [(-top_width, top), (top_width, top), (width, bottom), (-width, bottom)]
        self.canvas.polygon(corners, material, TORSO, origin=(0.0, top), radius=width)

    def _arm(self, arm: Limb, light: float) -> None:
        person, canvas, girth = self.person, self.canvas, self.person.girth
        top, elbow, wrist = 0.034 * girth, 0.025 * girth, 0.018 * girth
        short = person.top in ("t_shirt", "crop", "sleeveless")
        hand_start = _between(arm.last, arm.tip, 0.2)
        canvas.limb(hand_start, arm.tip, (0.016, 0.015), person.skin, LOWER_ARM, light)
        forearm = person.skin if short else person.sleeve
        canvas.limb(arm.middle, arm.last, (elbow, wrist * (1.0 if short else 1.25)), forearm, LOWER_ARM, light)
        upper = person.skin if short else person.sleeve
        canvas.limb(arm.first, arm.middle, (top, elbow), upper, UPPER_ARM, light)
        if person.top in ("t_shirt", "crop"):
            end = _between(arm.first, arm.middle, 0.62)
            canvas.limb(arm.first, end, (top * 1.1, top), person.sleeve, UPPER_ARM, light)

    def _long_hair(self, light: float) -> None:
        x, size = self.pose.lean, self.person.head
        self.canvas.limb((x, 0.07), (x, 0.20), (0.052 * size, 0.056 * size), self.person.hair, HEAD, light)

    def _head(self) -> None:
        person, pose, canvas = self.person, self.pose, self.canvas
        style, size = person.hair_style, person.head
        x, high, wide = pose.lean + 0.012 * pose.side, 0.066 * size, 0.047 * size
        centre = (x, 0.145 - high)
        behind = pose.front < -0.25
        bare = style == "bald"
        if style == "afro":
            canvas.ellipse((x, centre[1] - 0.012), (wide * 1.55, high * 1.15), person.hair, HEAD)
        if style in ("bob", "hood"):
            canvas.ellipse((x, centre[1] + 0.012), (wide * 1.28, high * 1.12), person.hair, HEAD)
        canvas.ellipse(centre, (wide, high), person.skin if bare or not behind else person.hair, HEAD)
        if not behind:
            face = x + wide * 0.75 * pose.nod
            for eye in (-0.018, 0.018):
                canvas.ellipse((face + eye * max(pose.front, 0.3), centre[1]), (0.005, 0.005), _DARK, HEAD)
            canvas.ellipse((face, centre[1] + 0.034), (0.011, 0.003), Material((140.0, 60.0, 56.0)), HEAD)
        if not bare:
            self._hair(centre, wide, high, behind)

    def _hair(self, centre: Point, wide: float, high: float, behind: bool) -> None:
        person, pose, canvas = self.person, self.pose, self.canvas
        style, (x, y) = person.hair_style, centre
        back = x - 0.5 * wide * pose.side
        top, brow = y - high * 1.08, y - high * (0.25 if style in ("cap", "beanie") else 0.35)
        cap = [(x - wide * 1.05, brow), (x - wide * 0.8, top + 0.015), (x, top), (x + wide * 0.8, top + 0.015),
               (x + wide * 1.05, brow)]  # fmt: skip
        canvas.polygon(cap, person.hair, HEAD, origin=(x, top), radius=wide * 1.1)
        if abs(pose.side) > 0.35 and style not in ("cap", "beanie"):  # the back of the head, seen from the side
            canvas.ellipse((back, y - 0.006), (wide * 0.72, high * 0.95), person.hair, HEAD)
        if style == "cap" and not behind:
            tip = x + wide * (1.7 * pose.side)
            canvas.limb((x, brow), (tip, brow + 0.006), (0.012, 0.008), person.hair, HEAD, 0.8)
        elif style == "beanie":
            canvas.ellipse((x, top - 0.006), (0.018, 0.016), Material(person.hair.accent), HEAD)
        elif style == "bun":
            canvas.ellipse((back - 0.5 * wide * pose.side, top - 0.004), (0.024, 0.022), person.hair, HEAD)
        elif style == "long" and pose.front <= 0:
            self._long_hair(1.0)
        elif style == "long":
            for edge in (-1, 1):
                canvas.limb(
                    (x + edge * wide, y - 0.01), (x + edge * wide * 1.1, 0.2), (0.014, 0.016), person.hair, HEAD
                )
        elif style == "ponytail" and pose.front < 0.5:
            start = (back - 0.4 * wide * pose.side, y)
            canvas.limb(start, (start[0] - 0.03 * pose.side, 0.20), (0.018, 0.012), person.hair, HEAD)

    def _pack_behind(self) -> None:
        pack, pose = self.person.backpack, self.pose
        if pack is None or pose.front < -0.35:
            return
        depth = self.pose.width(self.person.shoulders, 0.06)
        x = pose.lean - pose.side * (depth + 0.03)
        wide = pose.width(0.095, 0.055)
        self.canvas.limb((x, 0.20), (x, 0.37), (wide, wide * 1.05), pack, None, 0.92)

    def _pack_in_front(self) -> None:
        person, pose, canvas = self.person, self.pose, self.canvas
        pack, bag = person.backpack, person.shoulder_bag
        if pack is not None and pose.front < -0.35:
            wide = 0.085 * abs(pose.front) + 0.02
            x = pose.lean - 0.05 * pose.side
            corners = [(x - wide, 0.19), (x + wide, 0.19), (x + wide * 1.1, 0.40), (x - wide * 1.1, 0.40)]
            canvas.polygon(corners, pack, None, origin=(x, 0.18), radius=wide * 1.2)
            pocket = [(x - wide * 0.7, 0.30), (x + wide * 0.7, 0.30), (x + wide * 0.7, 0.385), (x - wide * 0.7, 0.385)]
            canvas.polygon(pocket, Material(pack.base), None, light=0.75)
        elif pack is not None:
            for edge in (-0.55, 0.55):
                x = pose.lean + edge * person.shoulders * abs(pose.front) + 0.02 * pose.side
                canvas.limb((x, SHOULDER - 0.02), (x * 1.1, 0.32), (0.011, 0.010), Material(pack.base), None)
        if bag is not None:
            edge = person.shoulders * (1 if pose.front > 0 else -1)
            hips = pose.width(person.hips, 0.07)
            start, end = (
                (pose.lean - 0.6 * edge * abs(pose.front), SHOULDER - 0.012),
                (edge / abs(edge) * hips, self.hip),
            )
            canvas.limb(start, end, (0.009, 0.009), Material(bag.base), None)
            x = end[0]
            corners = [(x - 0.05, self.hip - 0.035), (x + 0.05, self.hip - 0.035), (x + 0.055, self.hip + 0.05),
                       (x - 0.055, self.hip + 0.05)]  # fmt: skip
            canvas.polygon(corners, bag, None, origin=(x, self.hip - 0.03), radius=0.07)

    def _hand_bag(self) -> None:
        bag, hand = self.person.hand_bag, self.pose.arms[1].tip
        if bag is None or hand[1] < SHOULDER + 0.1:
            return
        x, y = hand[0], hand[1] + 0.03
        self.canvas.limb(hand, (x, y), (0.006, 0.006), _DARK, None)
        corners = [(x - 0.05, y), (x + 0.05, y), (x + 0.06, y + 0.10), (x - 0.06, y + 0.10)]
        self.canvas.polygon(corners, bag, None, origin=(x, y), radius=0.08)


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _aside(point: Point, distance: float) -> Point:
    return point[0] + distance, point[1]
