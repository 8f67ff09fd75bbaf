"""Pictures of what the library sees and decides: ranked lists, visibility, parts, aggregation maps, curves, reports."""

from __future__ import annotations

from occluded_reid.visualize.overlays import aggregation_maps, overlay_mask, visibility_overlay
from occluded_reid.visualize.plots import (
    LineChart,
    Series,
    charts_svg,
    cmc_curves,
    detection_curves,
    error_curves,
    occlusion_curves,
    reliability_curves,
    side_by_side,
    sweep_charts,
    training_curves,
)
from occluded_reid.visualize.ranked import RankedItem, RankedQuery, ranked_list, ranked_lists
from occluded_reid.visualize.report import HtmlReport
from occluded_reid.visualize.saving import PICTURE_FORMATS, require_picture_path, save_picture

__all__ = [
    "PICTURE_FORMATS",
    "HtmlReport",
    "LineChart",
    "RankedItem",
    "RankedQuery",
    "Series",
    "aggregation_maps",
    "charts_svg",
    "cmc_curves",
    "detection_curves",
    "error_curves",
    "occlusion_curves",
    "overlay_mask",
    "ranked_list",
    "ranked_lists",
    "reliability_curves",
    "require_picture_path",
    "save_picture",
    "side_by_side",
    "sweep_charts",
    "training_curves",
    "visibility_overlay",
]
