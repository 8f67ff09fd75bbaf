"""Heads: what is made of a backbone's feature maps."""

from occluded_reid.heads.base import Head
from occluded_reid.heads.center_focus import CenterFocusHead
from occluded_reid.heads.class_token import ClassTokenHead
from occluded_reid.heads.concat import ConcatHead
from occluded_reid.heads.converter import ConverterHead
from occluded_reid.heads.embedding import EmbeddingHead
from occluded_reid.heads.exported import ExportedHead
from occluded_reid.heads.feature_diffusion import FeatureDiffusionHead
from occluded_reid.heads.global_ import GlobalHead
from occluded_reid.heads.local import LocalHead
from occluded_reid.heads.memory import MemoryHead
from occluded_reid.heads.occlusion_erasing import OcclusionErasingHead
from occluded_reid.heads.part_attention import PartAttentionHead
from occluded_reid.heads.region_pooling import RegionPoolingHead
from occluded_reid.heads.regions import RegionsHead
from occluded_reid.heads.relation import RelationHead
from occluded_reid.heads.semantic import SemanticHead

__all__ = [
    "CenterFocusHead",
    "ClassTokenHead",
    "ConcatHead",
    "ConverterHead",
    "EmbeddingHead",
    "ExportedHead",
    "FeatureDiffusionHead",
    "GlobalHead",
    "Head",
    "LocalHead",
    "MemoryHead",
    "OcclusionErasingHead",
    "PartAttentionHead",
    "RegionPoolingHead",
    "RegionsHead",
    "RelationHead",
    "SemanticHead",
]
