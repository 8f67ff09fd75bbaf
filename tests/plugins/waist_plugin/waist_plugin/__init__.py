"""A third party's parts: a head for the waist, and a matcher that looks at little else."""

from waist_plugin.head import WaistHead
from waist_plugin.matcher import WaistOnlyMatcher

__all__ = ["WaistHead", "WaistOnlyMatcher"]
