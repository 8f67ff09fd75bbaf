"""Occluding people, a stated share or along a side, with generated shapes, files, or other pedestrians."""

from __future__ import annotations

from occluded_reid.data.occlusion.cutouts import Cutout
from occluded_reid.data.occlusion.generated import KINDS
from occluded_reid.data.occlusion.kinds import OCCLUSION_KINDS, OcclusionKind, open_kinds
from occluded_reid.data.occlusion.npo import paste_npo
from occluded_reid.data.occlusion.occluders import Occluders
from occluded_reid.data.occlusion.place import Occluded, occlude
from occluded_reid.data.occlusion.propose import Proposal, Proposals, propose_occluders

__all__ = [
    "KINDS",
    "OCCLUSION_KINDS",
    "Cutout",
    "Occluded",
    "Occluders",
    "OcclusionKind",
    "Proposal",
    "Proposals",
    "occlude",
    "open_kinds",
    "paste_npo",
    "propose_occluders",
]
