"""Tracks that come one after another: batches, clearer views, decisions, erasure, and a process that is killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from occluded_reid.association import Associator, Decisions, Tracks, measure
from occluded_reid.association.calibrate import JoinCalibration
from occluded_reid.association.state import IdentityFile
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import AssociationError


def opened(path, matcher, learnt):
    return Associator(path, matcher, learnt)


def test_batches_change_nothing_and_people_are_found(tmp_path, drawn, matcher, learnt):
    tracks, person = drawn(12, seed=21, noise=0.4)
    order = np.random.default_rng(1).permutation(len(tracks))
    answers = []
    for size in (1, 7):
        with opened(tmp_path / f"{size}.sqlite", matcher, learnt) as online:
            for first in range(0, len(tracks), size):
                online.update(tracks[order[first : first + size]])
            answers.append(online.identities)
    assert answers[0] == answers[1]
    found = [answers[0][name] for name in tracks.names]
    assert measure(person, found).b3_f1 > 0.8
    # Opened again in between, it goes on from where it was.
    for row in order:
        with opened(tmp_path / "again.sqlite", matcher, learnt) as online:
            online.update(tracks[[row]])
            last = online.identities
    assert last == answers[0]


def test_a_clearer_view_puts_two_together(tmp_path, matcher, learnt):
    """Two tracks too far apart, and one between them that is near to both."""
    angle = np.deg2rad([0.0, 80.0, 40.0])
    rows = torch.zeros(3, 8)
    rows[:, 0], rows[:, 1] = torch.from_numpy(np.cos(angle)).float(), torch.from_numpy(np.sin(angle)).float()
    tracks = Tracks(PartEmbeddings(("global", "part_1"), (rows, rows), torch.ones(3, 2)), ("a", "b", "c"), (1, 2, 3))
    # A threshold under which 40° are one person, and the mean of 80° and 40° too, but 80° are not.
    odds = [float(learnt.calibration.log_odds([1 - np.cos(np.deg2rad(d))], [2])[0]) for d in (80, 40)]
    middle = (odds[0] + (odds[0] + odds[1]) / 2) / 2
    calm = JoinCalibration(learnt.calibration, float(1 / (1 + np.exp(-middle))), 0.0)
    with opened(tmp_path / "x.sqlite", matcher, calm) as online:
        one, two, three = online.update(tracks)
        assert (one.identity, one.new, two.identity, two.new) == (1, True, 2, True)
        assert three.identity == 1
        assert not three.new
        assert three.revised == {"b": 1}
        assert online.identities == {"a": 1, "b": 1, "c": 1}


def test_decisions_are_kept_and_respected(tmp_path, drawn, matcher, learnt):
    tracks, _ = drawn(10, seed=22, noise=0.4)
    with opened(tmp_path / "x.sqlite", matcher, learnt) as online:
        online.update(tracks)
        names = online.identities
        one = next(n for n in names if sum(v == names[n] for v in names.values()) > 1)
        two = next(n for n in names if n != one and names[n] == names[one])
        other = next(n for n in names if names[n] != names[one])
        online.decide(one, two, "different", by="Ada")
        online.decide(one, other, "same")
        assert online.identities[one] != online.identities[two]
        assert online.identities[one] == online.identities[other]
        with pytest.raises(AssociationError, match="Withdraw"):
            online.decide(two, other, "same")
        with pytest.raises(AssociationError, match="nobody"):
            online.decide("nobody", other, "same")
    with opened(tmp_path / "x.sqlite", matcher, learnt) as online:
        online.revise()
        assert online.identities[one] != online.identities[two]
        assert online.identities[one] == online.identities[other]
        assert len(online._file.decisions()) == 2


def test_what_is_erased_is_nowhere_in_the_file(tmp_path, drawn, matcher, learnt):
    tracks, _ = drawn(6, seed=23)
    path = tmp_path / "x.sqlite"
    with opened(path, matcher, learnt) as online:
        online.update(tracks)
        gone = tracks.names[3]
        online.decide(gone, tracks.names[4], "same", note="the secret")
        row = tracks[[3]].embeddings.concatenate().numpy().tobytes()[:64]
        assert row in path.read_bytes()
        assert online.erase(names=[gone]) == 1
        assert gone not in online.identities
        old = sorted(tracks.end)[4]
        assert online.erase(before=old) == sum(e < old for n, e in zip(tracks.names, tracks.end) if n != gone)  # noqa: B905
    content = path.read_bytes()
    assert row not in content
    assert b"the secret" not in content
    assert not list(tmp_path.glob("x.sqlite-*"))


_WORKER = """
import sys
sys.path.insert(0, {tests!r})
from conftest import draw
from occluded_reid.association import Associator
from occluded_reid.association.calibrate import JoinCalibration
from occluded_reid.matchers import VisibilityWeightedMatcher
tracks, _ = draw(8, seed=24, noise=0.5)
online = Associator({path!r}, VisibilityWeightedMatcher(), JoinCalibration.load({learnt!r}))
for row in range(len(online), len(tracks)):
    online.update(tracks[[row]])
    print(row, flush=True)
"""


def test_kill_nine_leaves_whole_updates(tmp_path, drawn, matcher, learnt):
    tracks, _ = drawn(8, seed=24, noise=0.5)
    learnt.save(tmp_path / "joins.json")
    path = tmp_path / "x.sqlite"
    code = _WORKER.format(tests=str(Path(__file__).parent), learnt=str(tmp_path / "joins.json"), path=str(path))
    calm = opened(tmp_path / "calm.sqlite", matcher, learnt)
    after = [calm.identities] + [calm.update(tracks[[row]]) and calm.identities for row in range(len(tracks))]
    calm.close()
    for last in (3, 17):
        worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        for line in worker.stdout:
            if int(line) >= last:
                break
        worker.send_signal(signal.SIGKILL)  # while it takes in the next ones
        worker.wait()
        worker.stdout.close()
        with opened(path, matcher, learnt) as online:
            assert len(online) > last
            assert online.identities == after[len(online)]
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
    with opened(path, matcher, learnt) as online:
        assert online.identities == after[-1]


def test_a_killed_transaction_leaves_nothing(tmp_path, drawn, matcher, learnt):
    """Killed between the track and the numbers that it changes: neither is there."""
    tracks, _ = drawn(3, seed=25)
    with opened(tmp_path / "x", matcher, learnt) as online:
        online.update(tracks[[0]])
        before = online.identities
    code = (
        "import os, sys\nsys.path.insert(0, sys.argv[2])\nfrom conftest import draw\n"
        "from occluded_reid.association.state import IdentityFile\n"
        "file = IdentityFile(sys.argv[1])\ntracks, _ = draw(3, seed=25)\n"
        "with file.transaction() as db:\n    file.put(db, tracks[[1]], [9])\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x", Path(__file__).parent], check=False)
    assert done.returncode == -signal.SIGKILL
    with opened(tmp_path / "x", matcher, learnt) as online:
        assert online.identities == before


def test_what_is_no_such_file_is_refused(tmp_path, drawn, matcher, learnt):
    (tmp_path / "text").write_text("no database at all, whatever is said")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE x (y)")
    other.commit()
    other.close()
    for name in ("text", "other"):
        with pytest.raises(AssociationError, match=name):
            opened(tmp_path / name, matcher, learnt)
    with pytest.raises(AssociationError, match="no identities"):
        IdentityFile(tmp_path / "none")
    tracks, _ = drawn(3, seed=1)
    with opened(tmp_path / "x", matcher, learnt) as online:
        online.update(tracks)
        with pytest.raises(AssociationError, match="known already"):
            online.update(tracks[[0]])
        wrong = Tracks(tracks.embeddings.select(["global"]), tracks.names)
        with pytest.raises(AssociationError, match="slots"):
            online.update(wrong)
    with pytest.raises(AssociationError, match="holds rows"):
        IdentityFile(tmp_path / "x", {"global": 3})


def test_a_join_calibration_comes_back(tmp_path, learnt):
    learnt.save(tmp_path / "joins.json")
    assert JoinCalibration.load(tmp_path / "joins.json") == learnt
    Decisions().save(tmp_path / "other.json")
    with pytest.raises(AssociationError, match="no join calibration"):
        JoinCalibration.load(tmp_path / "other.json")
