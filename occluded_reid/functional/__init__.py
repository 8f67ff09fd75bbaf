"""The papers' equations as pure functions on tensors: no state, no registry."""

from occluded_reid.functional.aggregation import aggregation_maps
from occluded_reid.functional.bands import bands
from occluded_reid.functional.center_focus import center_attention, center_focus, center_gate, center_window
from occluded_reid.functional.centers import center_loss, moved_centers
from occluded_reid.functional.consistency import view_consistency
from occluded_reid.functional.diffusion import gated_gelu, nearest_centroids, neighbour_attention
from occluded_reid.functional.distances import NO_SHARED_SLOT, weighted_distance
from occluded_reid.functional.distillation import similarity_distillation, teacher_distance
from occluded_reid.functional.gather import gather_rows
from occluded_reid.functional.identity import identity_loss, part_identity_loss
from occluded_reid.functional.memory import memory_contrast, memory_logits, moved_memory
from occluded_reid.functional.occlusion import occlusion_stripes
from occluded_reid.functional.part_triplet import part_triplet_loss
from occluded_reid.functional.refined_pooling import part_probabilities, refined_pool
from occluded_reid.functional.regions import region_pool, region_visibility
from occluded_reid.functional.relation import correct_features, relation_pairs, relation_vectors, relation_weights
from occluded_reid.functional.segmentation import smoothed_segmentation_loss
from occluded_reid.functional.separation import separation_loss
from occluded_reid.functional.sorn import sorn_total
from occluded_reid.functional.spc import band_share, spc_loss
from occluded_reid.functional.visibility import mask_foreground, stripe_visibility
from occluded_reid.functional.visible_part import visible_part_loss

__all__ = [
    "NO_SHARED_SLOT",
    "aggregation_maps",
    "band_share",
    "bands",
    "center_attention",
    "center_focus",
    "center_gate",
    "center_loss",
    "center_window",
    "correct_features",
    "gated_gelu",
    "gather_rows",
    "identity_loss",
    "mask_foreground",
    "memory_contrast",
    "memory_logits",
    "moved_centers",
    "moved_memory",
    "nearest_centroids",
    "neighbour_attention",
    "occlusion_stripes",
    "part_identity_loss",
    "part_probabilities",
    "part_triplet_loss",
    "refined_pool",
    "region_pool",
    "region_visibility",
    "relation_pairs",
    "relation_vectors",
    "relation_weights",
    "separation_loss",
    "similarity_distillation",
    "smoothed_segmentation_loss",
    "sorn_total",
    "spc_loss",
    "stripe_visibility",
    "teacher_distance",
    "view_consistency",
    "visible_part_loss",
    "weighted_distance",
]
