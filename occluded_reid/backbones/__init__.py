"""Backbones: networks that turn images into named feature maps."""

from occluded_reid.backbones.base import Backbone, create_backbone
from occluded_reid.backbones.ibn import ResNet50IBNa
from occluded_reid.backbones.timm import TimmBackbone

__all__ = ["Backbone", "ResNet50IBNa", "TimmBackbone", "create_backbone"]
