"""Is it the same person? Two images, the probability that they show one, and what of them could be compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from occluded_reid.calibration.calibration import CALIBRATION_FILE, Calibration
from occluded_reid.calibration.threshold import shared_of_visibility
from occluded_reid.config import DEFAULT_MODEL
from occluded_reid.errors import CalibrationError
from occluded_reid.evaluation.studies.failures.ranked_rows import query_row
from occluded_reid.models import ReIDModel, load_model
from occluded_reid.models.checkpoint import folder_of
from occluded_reid.pixels import Channels, ImageLike, to_rgb, to_thumbnail
from occluded_reid.visualize import RankedItem, ranked_lists

__all__ = ["Answer", "Verdict", "calibration_of", "same"]

Answer = Literal["same", "different", "not enough visible"]
"""What `same` may answer."""


@dataclass(frozen=True)
class Verdict:
    """Whether two images show one person, and what that rests on.

    Attributes:
        answer: "same" where the probability is at least one half, "different" where it is less; "not enough visible"
            where the images share no slot that can be told apart from being hidden.
        probability: that both show one person, by the calibration; None where not enough is visible.
        prior: the probability beforehand that it starts from.
        distance: by the model's matcher.
        within: whether the distance lies within the calibration's threshold; None where not enough is visible.
        promise: what is promised of that threshold, in words.
        visibility: of each slot in the first and in the second image.
        shared: slot -> v(first) · v(second), as the matcher counts; above 0 the slot was compared.
        slot_distances: slot -> its own distance, whether it was compared or not.
        model: fingerprint of the model.
        calibrated_on: what the probability was learnt from, in words.
    """

    answer: Answer
    probability: float | None
    prior: float
    distance: float
    within: bool | None
    promise: str
    visibility: tuple[dict[str, float], dict[str, float]]
    shared: dict[str, float]
    slot_distances: dict[str, float]
    model: str
    calibrated_on: str
    _seen: tuple[ReIDModel, Image.Image, Image.Image] = field(repr=False, compare=False)

    @property
    def compared(self) -> tuple[str, ...]:
        """The slots that both images show."""
        return tuple(slot for slot, share in self.shared.items() if share > 0)

    def lines(self) -> list[str]:
        """Return the answer, what was compared, and what the probability rests on, a line each."""
        hidden = [slot for slot in self.shared if slot not in self.compared]
        told = f"compared: {', '.join(self.compared) or 'nothing'}"
        if hidden:
            told += f"; hidden in one of them: {', '.join(hidden)}"
        if self.probability is None:
            return ["not enough is visible to say whether it is the same person", told]
        said = "the same person" if self.answer == "same" else "two people"
        chance = self.probability if self.answer == "same" else 1 - self.probability
        return [
            f"{said}, probability {chance:.1%} ({self.prior:.0%} taken beforehand that they are one), distance "
            f"{self.distance:.4f}",
            told,
            f"{'within' if self.within else 'beyond'} the threshold at which {self.promise}",
            f"calibrated on {self.calibrated_on}",
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON knows it."""
        names = ("answer", "probability", "prior", "distance", "within", "promise", "shared", "slot_distances", "model")
        first, second = self.visibility
        return {
            **{name: getattr(self, name) for name in names},
            "compared": list(self.compared),
            "visibility": [first, second],
            "calibrated_on": self.calibrated_on,
        }

    def picture(self) -> Image.Image:
        """Draw both images, what the model sees of each, and how much of each slot was compared."""
        model, *images = self._seen
        rows = []
        for image, other in (images, images[::-1]):
            item = RankedItem(
                to_thumbnail(other), self.distance, shared=self.shared, slot_distances=self.slot_distances
            )
            rows.append(query_row(model, image, [item]))
        return ranked_lists(rows, title=self.lines()[0])


def same(
    first: ImageLike,
    second: ImageLike,
    model: ReIDModel | str | Path | None = None,
    *,
    calibration: Calibration | str | Path | None = None,
    prior: float | None = None,
    channels: Channels = "rgb",
) -> Verdict:
    """Say how likely two images show one person, and what of them could be compared.

    A slot whose visibility the model judges, such as a stripe of the body, is compared where both images show it. Where
    they share none of those, the answer is that not enough is visible, whatever the slots say that count as always
    visible. A model that judges no visibility compares everything, and gives this answer never.

    Args:
        first: an image, as `to_rgb` takes it.
        second: another one.
        model: a model, or what `load_model` takes; None is the one that comes with the library. To ask often, load it
            once.
        calibration: of this model, or its file; None is the one beside the model: ``calibration.json`` in its folder.
        prior: probability beforehand that both are one person; None is the calibration's, usually one half.
        channels: the order of an array's or a tensor's colours.

    Raises:
        CalibrationError: there is no calibration, or it was made for another model, or the prior is none.
        CheckpointError: the model cannot be loaded.
        ImageError, ShapeError: an image cannot be read; it is named.

    Example:
        ``print(same("a.jpg", "b.jpg"))``
    """
    if prior is not None and (isinstance(prior, bool) or not isinstance(prior, int | float)):
        raise CalibrationError(f"the prior is {prior!r}; give a probability between 0 and 1, both excluded.")
    network = model if isinstance(model, ReIDModel) else load_model(DEFAULT_MODEL if model is None else model)
    network.caution()
    known = _calibration(network, calibration)
    known.require(matcher=network.matcher, slots=network.slots, fingerprint=network.fingerprint)
    one, two = (
        to_rgb(image, name=None if isinstance(image, str | Path) else f"the {which} image", channels=channels)
        for image, which in ((first, "first"), (second, "second"))
    )
    rows = network.embed(network.preprocess([one, two])).to("cpu")
    details = network.matcher.explain(rows, rows, [0], [1])
    shared = dict(zip(rows.names, details.shared[0].tolist(), strict=True))
    distance, count = float(details.distance[0]), shared_of_visibility(shared, network.matcher)
    judged = [slot for slot in network.judged if slot in shared]
    enough = count > 0 and (not judged or any(shared[slot] > 0 for slot in judged))
    chance = float(known.probability([distance], [count], prior=prior)[0])
    seen = [dict(zip(rows.names, row, strict=True)) for row in rows.visibility.tolist()]
    return Verdict(
        answer="not enough visible" if not enough else "same" if chance >= 0.5 else "different",
        probability=chance if enough else None,
        prior=known.prior if prior is None else prior,
        distance=distance,
        within=bool(known.accepts([distance], [count])[0]) if enough else None,
        promise=known.promise,
        visibility=(seen[0], seen[1]),
        shared=shared,
        slot_distances=dict(zip(rows.names, details.slot_distance[0].tolist(), strict=True)),
        model=network.fingerprint,
        calibrated_on=f"{len(known.people) or 'unnamed'} people of '{known.data}' ({known.part})",
        _seen=(network, one, two),
    )


def calibration_of(model: ReIDModel) -> Calibration | None:
    """Return the calibration that lies beside a model: ``calibration.json`` in the folder it was loaded from.

    Raises:
        CalibrationError: there is one and it is damaged.
    """
    if model.source is None:
        return None
    file = folder_of(model.source) / CALIBRATION_FILE
    return Calibration.load(file) if file.is_file() else None


def _calibration(model: ReIDModel, given: Calibration | str | Path | None) -> Calibration:
    if isinstance(given, Calibration):
        return given
    if given is not None:
        return Calibration.load(given)
    found = calibration_of(model)
    if found is None:
        raise CalibrationError(
            f"there is no calibration of {model.fingerprint}, and without one a distance does not say how likely two "
            "images show one person. Make one with people whom it was not trained on, beside the model: "
            "occluded-reid calibrate MODEL --data DATA --per comparison --out MODEL/calibration.json; or give its file."
        )
    return found
