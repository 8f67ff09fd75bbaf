"""Heads: what is made of a backbone's feature maps."""

from occluded_reid.heads.base import Head
from occluded_reid.heads.global_ import GlobalHead
from occluded_reid.heads.local import LocalHead
from occluded_reid.heads.semantic import SemanticHead

__all__ = ["GlobalHead", "Head", "LocalHead", "SemanticHead"]
