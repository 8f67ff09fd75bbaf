"""What is no track, no matcher, no time or no decision is refused at the door, and nothing is written."""

from __future__ import annotations

import sqlite3
from datetime import datetime

import numpy as np
import pytest

from occluded_reid import Gallery, Tracklet
from occluded_reid.association import Associator, Decisions, associate, calibrate_joins
from occluded_reid.association.calibrate import JoinCalibration
from occluded_reid.association.tracks import Tracks
from occluded_reid.errors import AssociationError, DeviceError, EmbeddingError, GalleryError, ShapeError
from occluded_reid.models.tracklets import tracklet_embeddings


def test_erasing_what_is_not_there_is_said_and_erases_nothing(tmp_path, drawn, matcher, learnt):
    tracks, _ = drawn(3, seed=1)
    with Associator(tmp_path / "x.sqlite", matcher, learnt) as online:
        online.update(tracks)
        for given in (
            {"names": tracks.names[0]},
            {"names": [tracks.names[0], "nope"]},
            {"names": [3]},
            {"names": 3},
            {"before": float("nan")},
            {"before": True},
            {"before": "x"},
            {},
        ):
            with pytest.raises(AssociationError):
                online.erase(**given)
            assert len(online) == len(tracks)
        assert online.erase(names=[tracks.names[0]]) == 1
    with pytest.raises(AssociationError, match="closed; open them again"):
        online.revise()


@pytest.mark.parametrize("join", [float("nan"), 0.0, 1.0, 2.0, "x", None])
def test_a_join_calibration_holds_a_probability(learnt, join):
    with pytest.raises(AssociationError, match="join is"):
        JoinCalibration(learnt.calibration, join, 1.0)


@pytest.mark.parametrize("rows", [np.array([True, False]), [1.5], ["x"], None, [99], [-99], 3])
def test_rows_are_numbers(drawn, rows):
    tracks, _ = drawn(2, seed=1)
    with pytest.raises(AssociationError, match="rows are"):
        tracks[rows]


def test_rows_may_be_counted_from_the_end(drawn):
    tracks, _ = drawn(2, seed=1)
    assert tracks[[-1, 0]].names == (tracks.names[-1], tracks.names[0])
    assert len(tracks[[]]) == 0


@pytest.mark.parametrize("value", [np.datetime64("2026-01-01"), 1 + 2j, "1", True, datetime(2026, 1, 1)])
def test_times_are_seconds(drawn, value):
    tracks, _ = drawn(1, seed=1)
    with pytest.raises(AssociationError, match="give seconds"):
        Tracks(tracks.embeddings, tracks.names, start=[value] * len(tracks), end=[value] * len(tracks))


def test_a_camera_fits_into_a_file(drawn):
    tracks, _ = drawn(1, seed=1)
    with pytest.raises(AssociationError, match="camera"):
        Tracks(tracks.embeddings, tracks.names, (1 << 63,) * len(tracks))


@pytest.mark.parametrize("travel", [3, "x", {1: 2}, {(1, 2): float("nan")}])
def test_travel_times_are_looked_at_before_anything(tmp_path, drawn, matcher, learnt, travel):
    tracks, person = drawn(4, seed=1)
    with pytest.raises(AssociationError, match="travel"):
        Associator(tmp_path / "x.sqlite", matcher, learnt, travel=travel)
    assert not (tmp_path / "x.sqlite").exists()
    with pytest.raises(AssociationError, match="travel"):
        associate(tracks, matcher, **learnt.options(), travel=travel)
    with pytest.raises(AssociationError, match="travel"):
        calibrate_joins(tracks, person, matcher, travel=travel)


def test_travel_times_say_nothing_of_unknown_cameras(drawn, matcher, learnt):
    tracks, _ = drawn(4, seed=1)
    nowhere = Tracks(tracks.embeddings, tracks.names, (), *tracks.times)
    found = associate(nowhere, matcher, **learnt.options(), travel={(0, 1): 5.0})
    assert found.identity.tolist() == associate(nowhere, matcher, **learnt.options()).identity.tolist()


def test_things_of_another_kind(tmp_path, drawn, matcher, learnt):
    tracks, person = drawn(4, seed=1)
    for wrong in (3, None, "x"):
        with pytest.raises(AssociationError, match="matcher is"):
            Associator(tmp_path / "x.sqlite", wrong, learnt)
        with pytest.raises(AssociationError, match="tracks is"):
            calibrate_joins(wrong, person, matcher)
        with pytest.raises(AssociationError, match="matcher is"):
            calibrate_joins(tracks, person, wrong)
    with pytest.raises(AssociationError, match="neighbors is 0"):
        calibrate_joins(tracks, person, matcher, neighbors=0)
    for log in (3, [3]):
        with pytest.raises(AssociationError, match="log is"):
            Decisions(log)
    crop = np.zeros((8, 4, 3), np.uint8)
    with pytest.raises(EmbeddingError, match="model is 3"):
        tracklet_embeddings(3, [Tracklet("t", [crop])])
    with pytest.raises(ShapeError, match="others"):
        Tracklet("t", [crop], boxes=np.array([[0.0, 0, 4, 8]]), others=["a"])


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tracks SET identity = 'x'",
        "UPDATE tracks SET start = 'abc'",
        "UPDATE tracks SET camera = 'abc'",
        "UPDATE settings SET value = 'zz'",
        "UPDATE settings SET value = '3' WHERE name = 'slots'",
    ],
)
def test_a_file_with_other_things_in_it(tmp_path, drawn, matcher, learnt, damage):
    tracks, _ = drawn(2, seed=1)
    with Associator(tmp_path / "x.sqlite", matcher, learnt) as online:
        online.update(tracks)
    with sqlite3.connect(tmp_path / "x.sqlite") as db:
        db.execute(damage)
    db.close()
    with pytest.raises(AssociationError, match=r"x\.sqlite"):
        Associator(tmp_path / "x.sqlite", matcher, learnt)


@pytest.mark.parametrize("device", [3, None])
def test_a_gallery_of_no_device_leaves_nothing_behind(tmp_path, device):
    with pytest.raises(DeviceError, match="device is of type"):
        Gallery.create(tmp_path / "g", slots={"a": 4}, device=device)
    assert not (tmp_path / "g").exists()
    made = Gallery.create(tmp_path / "g", slots={"a": 4}, device="cpu")
    with pytest.raises(GalleryError, match="wait is"):
        made.add(["x.png"], wait="x")
