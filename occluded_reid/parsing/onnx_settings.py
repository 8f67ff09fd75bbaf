"""What a segmentation network in ONNX form needs to know: how images go in and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from occluded_reid.errors import BuildError
from occluded_reid.options import check_options
from occluded_reid.parsing.frames import Decide, Resample
from occluded_reid.parsing.label_sets import label_set_named

__all__ = ["PRESETS", "OnnxSettings", "settings_for"]


@dataclass(frozen=True)
class OnnxSettings:
    """How an ONNX model is fed and read.

    Attributes:
        label_set: name in `LABEL_SETS` of the classes that the teacher gives.
        class_table: the class of each output channel; None: channel k is class k (of "person_parts": class k + 1).
        merge: how channels of one class become one score: their "sum", or their "max".
        output: "logits" or "probabilities" of all classes, background among them; "person_parts": logits of there
            being a person, and logits of each part (BodyPix).
        output_name: of the classes or parts; None where the graph has only one output.
        person_name: of the person logits.
        person_threshold: pixels of at most this probability of a person are background.
        height, width, multiple, pad, stride, resample: see `Frame`; sizes that the graph fixes need not be given.
        mean, std: of red, green and blue in 0 … 1, subtracted and divided by.
        channels: the order in which the network wants them.
        layout: axes of the input; None reads them from the graph.
        output_layout: axes of the outputs; None: those of the input.
        decide: see `labels_on_image`.
        flip: average with the mirrored image, whose left and right classes change places.
    """

    label_set: str = ""
    class_table: tuple[int, ...] | None = None
    merge: Literal["sum", "max"] = "sum"
    output: Literal["logits", "probabilities", "person_parts"] = "logits"
    output_name: str | None = None
    person_name: str | None = None
    person_threshold: float = 0.5
    height: int | None = None
    width: int | None = None
    multiple: int = 1
    pad: tuple[float, float] = (0.0, 0.0)
    stride: int | None = None
    resample: Resample = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] | None = None
    output_layout: Literal["nchw", "nhwc"] | None = None
    decide: Decide = "image"
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.label_set:
            raise BuildError(
                "nothing says which classes this model tells apart. Give label_set=lip20 or another name in "
                "LABEL_SETS, with class_table=[…] where its channels come in another order, or preset=bodypix."
            )
        known = label_set_named(self.label_set)
        strange = [k for k in self.class_table or () if not 0 <= k < known.classes]
        if strange or self.class_table == ():
            raise BuildError(
                f"class_table names {strange or 'nothing'}; wanted a class of {known.name} for each output channel, "
                f"0 … {known.classes - 1}."
            )
        if self.output == "person_parts" and not (self.output_name and self.person_name):
            raise BuildError("output=person_parts reads two outputs: give output_name (parts) and person_name.")
        if not 0.0 <= self.person_threshold <= 1.0:
            raise BuildError(f"person_threshold is {self.person_threshold}; give a probability between 0 and 1.")
        if not all(value > 0.0 for value in self.std):
            raise BuildError(f"std is {self.std}; pixels are divided by it, so give numbers above 0.")

    @property
    def table(self) -> tuple[int, ...]:
        """The class of each output channel."""
        if self.class_table is not None:
            return self.class_table
        return tuple(range(1 if self.output == "person_parts" else 0, label_set_named(self.label_set).classes))


PRESETS: Mapping[str, OnnxSettings] = MappingProxyType(
    {
        "bodypix": OnnxSettings(
            label_set="sorn8",
            class_table=(1, 1, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 2, 2, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7),
            merge="max",
            output="person_parts",
            output_name="part_heatmaps",
            person_name="segments",
            person_threshold=0.4,
            height=256,
            multiple=16,
            pad=(0.15, 0.05),
            stride=8,
            resample="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            layout="nhwc",
            decide="canvas",
            flip=True,
        )
    }
)
"""Settings of known models. bodypix: MobileNetV1, stride 8, on crops of people; another stride is stride=16."""


def settings_for(preset: str | None, given: Mapping[str, Any]) -> OnnxSettings:
    """Return a preset, or the defaults, with some settings replaced.

    A label set that is given alone takes the preset's class table away, which speaks of the preset's label set.

    Raises:
        UnknownOptionError: there is no such setting, or its value has another type.
        BuildError: there is no such preset, or the settings contradict each other.
    """
    if preset is not None and preset not in PRESETS:
        raise BuildError(f"no preset is named '{preset}'. Presets: {', '.join(PRESETS)}.")
    checked = check_options(OnnxSettings, given, "parser 'onnx'")
    if "label_set" in checked:
        checked.setdefault("class_table", None)
    return OnnxSettings(**checked) if preset is None else replace(PRESETS[preset], **checked)
