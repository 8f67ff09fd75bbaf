"""The papers' equations as pure functions on tensors: no state, no registry."""

from occluded_reid.functional.aggregation import aggregation_maps
from occluded_reid.functional.bands import bands
from occluded_reid.functional.distances import NO_SHARED_SLOT, weighted_distance
from occluded_reid.functional.identity import identity_loss, part_identity_loss
from occluded_reid.functional.segmentation import smoothed_segmentation_loss
from occluded_reid.functional.sorn import sorn_total
from occluded_reid.functional.spc import band_share, spc_loss
from occluded_reid.functional.visibility import mask_foreground, stripe_visibility

__all__ = [
    "NO_SHARED_SLOT",
    "aggregation_maps",
    "band_share",
    "bands",
    "identity_loss",
    "mask_foreground",
    "part_identity_loss",
    "smoothed_segmentation_loss",
    "sorn_total",
    "spc_loss",
    "stripe_visibility",
    "weighted_distance",
]
