"""Matchers: how two images' slots and visibilities become one distance."""

from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher, PairDetails, Prepared
from occluded_reid.matchers.distance_sum import DistanceSumMatcher
from occluded_reid.matchers.plain import PlainMatcher
from occluded_reid.matchers.public_distance import PublicDistanceMatcher
from occluded_reid.matchers.slots import SlotMatcher
from occluded_reid.matchers.visibility_weighted import VisibilityWeightedMatcher

__all__ = [
    "NO_SHARED_SLOT",
    "DistanceSumMatcher",
    "Matcher",
    "PairDetails",
    "PlainMatcher",
    "Prepared",
    "PublicDistanceMatcher",
    "SlotMatcher",
    "VisibilityWeightedMatcher",
]
