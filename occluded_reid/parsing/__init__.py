"""Human parsing: label sets and their tables, teachers that make part masks, parsers that run within a model."""

from __future__ import annotations

from occluded_reid.parsing.base import Teacher
from occluded_reid.parsing.label_maps import (
    flip_labels,
    flip_order,
    label_table,
    map_labels,
    mapping_notes,
    missing_classes,
    region_classes,
)
from occluded_reid.parsing.label_sets import LABEL_SETS, LabelSet
from occluded_reid.parsing.report import ParseReport
from occluded_reid.parsing.teachers import open_teacher
from occluded_reid.parsing.write import parse_folder

__all__ = [
    "LABEL_SETS",
    "LabelSet",
    "ParseReport",
    "Teacher",
    "flip_labels",
    "flip_order",
    "label_table",
    "map_labels",
    "mapping_notes",
    "missing_classes",
    "open_teacher",
    "parse_folder",
    "region_classes",
]
