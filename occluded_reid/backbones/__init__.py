"""Backbones: networks that turn images into named feature maps."""

from occluded_reid.backbones.base import Backbone, create_backbone, is_frozen
from occluded_reid.backbones.frozen import FrozenBackbone
from occluded_reid.backbones.ibn import ResNet50IBNa
from occluded_reid.backbones.onnx import OnnxBackbone
from occluded_reid.backbones.openvino import OpenVINOBackbone
from occluded_reid.backbones.osnet import OSNet
from occluded_reid.backbones.timm import TimmBackbone

__all__ = [
    "Backbone",
    "FrozenBackbone",
    "OSNet",
    "OnnxBackbone",
    "OpenVINOBackbone",
    "ResNet50IBNa",
    "TimmBackbone",
    "create_backbone",
    "is_frozen",
]
