"""One picture of the synthetic set: scene, photograph and the two true masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from occluded_reid.data.synthetic.body import draw_person
from occluded_reid.data.synthetic.camera import background, make_camera, photograph
from occluded_reid.data.synthetic.canvas import Bytes, Canvas
from occluded_reid.data.synthetic.occluders import place_occluder
from occluded_reid.data.synthetic.options import SyntheticOptions, generator
from occluded_reid.data.synthetic.person import make_person
from occluded_reid.data.synthetic.pose import make_pose


@dataclass(frozen=True)
class Drawing:
    """A picture to make.

    Args:
        split: folder name.
        label: identity in the file name; 0 for distractors.
        person: number of the person to draw.
        camera: camera number, from 1.
        index: picture number of this person under this camera, from 0, counted over all splits.
        cover: least and largest fraction of the body to occlude; None: no occluder.
    """

    split: str
    label: int
    person: int
    camera: int
    index: int
    cover: tuple[float, float] | None

    @property
    def name(self) -> str:
        """File name in the manner of Market-1501."""
        return f"{self.label:04d}_c{self.camera}s1_{1 + 50 * self.index:06d}_00.png"


@dataclass(frozen=True)
class Rendering:
    """A finished picture.

    Args:
        picture: RGB image.
        mask: (H, W) uint8, class 1 to 7 of the visible body, 0 elsewhere and under the occluder.
        occlusion: (H, W) uint8, 255 where an occluder is.
        body_area: pixels of the body without occluder.
        occluder: kind of the occluder, or None.
    """

    picture: Image.Image
    mask: Bytes
    occlusion: Bytes
    body_area: int
    occluder: str | None

    @property
    def occluded_fraction(self) -> float:
        """Share of the body that the occluder hides."""
        return 1 - int(np.count_nonzero(self.mask)) / self.body_area if self.body_area else 0.0


def render(options: SyntheticOptions, sample: Drawing) -> Rendering:
    """Make one picture; it depends on the options and the sample alone.

    Args:
        options: of the whole set.
        sample: which picture.

    Returns:
        Picture and masks.
    """
    # Every step has a generator of its own, so that one more draw in a pose moves no occluder.
    where = (sample.person, sample.camera, sample.index)
    rng = generator(options.seed, "picture", where)
    width, height, jitter = options.width, options.height, options.difficulty.crop_jitter
    lens, person = make_camera(options, sample.camera), make_person(options.seed, sample.person, options.difficulty)
    size = lens.height * height * (1 + jitter * rng.normal())
    left = width * 0.5 + jitter * height * rng.normal()
    top = lens.top * height + jitter * height * rng.normal()
    canvas = Canvas(width, height, left, top, size)
    draw_person(canvas, person, make_pose(person, lens.heading, options.difficulty, rng))
    figure = canvas.render()
    scene = figure.over(background(options, sample.camera, generator(options.seed, "view", where)))
    body = figure.parts > 0
    kind, hidden = None, np.zeros_like(body)
    if sample.cover is not None:
        kind, occluder = place_occluder(
            options, sample.camera, body, sample.cover, generator(options.seed, "occluder", where)
        )
        scene, hidden = occluder.over(scene), occluder.solid
    return Rendering(
        picture=photograph(options, sample.camera, scene, generator(options.seed, "photograph", where)),
        mask=np.where(hidden, 0, figure.parts).astype(np.uint8),
        occlusion=np.where(hidden, 255, 0).astype(np.uint8),
        body_area=int(body.sum()),
        occluder=kind,
    )
