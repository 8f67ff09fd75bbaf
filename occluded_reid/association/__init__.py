"""One person, one number across cameras."""

from occluded_reid.association.associate import associate
from occluded_reid.association.calibrate import JoinCalibration, calibrate_joins
from occluded_reid.association.decisions import Decision, Decisions
from occluded_reid.association.measures import Measures, measure
from occluded_reid.association.online import Associator, Update
from occluded_reid.association.result import Association, Identity, Join
from occluded_reid.association.tracks import Tracks
from occluded_reid.data.tracklet import Tracklet
from occluded_reid.models.tracklets import tracklet_embeddings

__all__ = [
    "Association",
    "Associator",
    "Decision",
    "Decisions",
    "Identity",
    "Join",
    "JoinCalibration",
    "Measures",
    "Tracklet",
    "Tracks",
    "Update",
    "associate",
    "calibrate_joins",
    "measure",
    "tracklet_embeddings",
]
