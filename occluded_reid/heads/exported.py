"""The slots and the visibility that an exported model gives, as they are."""

from __future__ import annotations

from collections.abc import Mapping

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.heads.base import Head
from occluded_reid.registry import HEADS

__all__ = ["ExportedHead"]


@HEADS.register("exported")
class ExportedHead(Head):
    """Each vector of a frozen network is a slot of that name; one holds the visibility of all of them.

    Args:
        info: what the builder knows.
        slots: names of the vectors that are slots, in order.
        visibility: name of the vector (N, S) that holds their visibility, in that order.
        judged: those of them whose visibility the network judges in each image; None takes all of them, as of files
            that do not say it.

    Raises:
        BuildError: the backbone gives no such vectors.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        slots: tuple[str, ...],
        visibility: str = "visibility",
        judged: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(info)
        missing = [name for name in (*slots, visibility) if name not in info.vectors]
        if missing or not slots or info.vectors[visibility] != len(slots):
            given = ", ".join(f"{name} {width}" for name, width in info.vectors.items())
            raise BuildError(
                f"head '{info.name}' takes the slots {', '.join(slots) or '(none)'} and one visibility for each from "
                f"'{visibility}'; the backbone gives {given or 'none'}. Is the file what this library has exported?"
            )
        if unknown := [slot for slot in judged or () if slot not in slots]:
            raise BuildError(f"head '{info.name}' is to judge '{unknown[0]}', which is none of its slots.")
        self.slots, self.visibility = slots, visibility
        self.judged = slots if judged is None else judged
        self.info = HeadInfo(
            slots={slot: info.vectors[slot] for slot in slots}, inference_slots=slots, visibility_of=self.judged
        )

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the slots and their visibility."""
        embeddings = {slot: features.vectors[slot] for slot in self.slots}
        seen = dict(zip(self.slots, features.vectors[self.visibility].clamp(0, 1).unbind(1), strict=True))
        return HeadOutput(
            features=embeddings, embeddings=embeddings, visibility={slot: seen[slot] for slot in self.judged}
        )
