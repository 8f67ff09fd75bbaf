"""One person, one number: how well tracks of several cameras are put together, and what it costs.

    python benchmarks/association.py tracks --data FOLDER [--model oreid_lite] [--peer NETWORK]
    python benchmarks/association.py scale --tracks 1000 10000

`tracks` reads crops named IDCcameraTtrackFframe, splits the people in two halves, calibrates on one and tests on the
other, both ways. `scale` draws embeddings of people with noise.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from occluded_reid import PartEmbeddings, load_model
from occluded_reid.association import Tracks, associate, calibrate_joins, measure
from occluded_reid.association.measures import compare_b_cubed
from occluded_reid.data.tracklet import Tracklet, crop_weights
from occluded_reid.matchers import Matcher, VisibilityWeightedMatcher
from occluded_reid.models.embedding import embed_images
from occluded_reid.models.tracklets import tracklet_row

_STILL = re.compile(r"(\d{4})_c(\d+)s(\d+)_\d+_\d+\.jpg\Z")
_NAME = re.compile(r"(\d{4})C(\d+)T(\d+)F(\d+)\.jpg\Z")


def read_tracks(folder: Path) -> tuple[list[Tracklet], np.ndarray]:
    """Group crops by person, camera and track."""
    groups: dict[tuple[str, int, str], list[Path]] = defaultdict(list)
    for file in sorted(folder.glob("*.jpg")):
        if match := _NAME.match(file.name):
            groups[match[1], int(match[2]), match[3]].append(file)
    return _grouped(groups)


def stills_as_tracks(folder: Path) -> tuple[list[Tracklet], np.ndarray]:
    """Group the still crops of Market-1501 (0002_c1s1_000451_03.jpg) by person, camera and sequence."""
    groups: dict[tuple[str, int, str], list[Path]] = defaultdict(list)
    for file in sorted(folder.glob("*.jpg")):
        if match := _STILL.match(file.name):
            groups[match[1], int(match[2]), match[3]].append(file)
    return _grouped(groups)


def _grouped(groups: Mapping[tuple[str, int, str], list[Path]]) -> tuple[list[Tracklet], np.ndarray]:
    keys = sorted(groups)
    tracks = [Tracklet(f"{i}C{c}T{t}", groups[i, c, t], camera=c) for i, c, t in keys]
    return tracks, np.array([int(person) for person, _, _ in keys])


class Embedded:
    """Crops of all tracks, embedded once, from which rows are made in several ways."""

    def __init__(self, model: str, tracks: list[Tracklet]) -> None:
        network = load_model(model)
        self.name, self.matcher, self.tracks = network.name, network.matcher, tracks
        files = [image for track in tracks for image in track.images]
        begin = time.perf_counter()
        self.rows = PartEmbeddings.cat(list(embed_images(network, files, [str(f) for f in files], 64)))
        self.seconds = time.perf_counter() - begin
        self.trained_on = network.trained_on

    def tracks_of(self, *, visibility: bool = True, blur: bool = True, best: int | None = None) -> Tracks:
        """Return a row for each track."""
        rows = self.rows if visibility else self.rows.with_visibility(torch.ones_like(self.rows.visibility))
        made, begin = [], 0
        for track in self.tracks:
            part = rows[begin : begin + len(track)]
            made.append(tracklet_row(part, crop_weights(track) if blur else None, best=best))
            begin += len(track)
        names = tuple(track.name for track in self.tracks)
        return Tracks(PartEmbeddings.cat(made), names, tuple(track.camera for track in self.tracks))


def test_halves(tracks: Tracks, person: np.ndarray, matcher: Matcher, seed: int) -> tuple[np.ndarray, list[float]]:
    """Calibrate on each half of the people and associate the other; identities of both halves differ."""
    people = np.random.default_rng(seed).permutation(np.unique(person))
    found, joins = np.zeros(len(person), dtype=np.int64), []
    for half in (people[: len(people) // 2], people[len(people) // 2 :]):
        known = np.flatnonzero(np.isin(person, half))
        tested = np.flatnonzero(~np.isin(person, half))
        learnt = calibrate_joins(tracks[known], person[known], matcher)
        joins.append(learnt.join)
        answer = associate(tracks[tested], matcher, learnt.calibration, join=learnt.join)
        found[tested] = answer.identity + found.max()
    return found, joins


def measure_tracks(options: argparse.Namespace) -> dict[str, Any]:
    """Test the packaged model, the same without visibility, without blur, and a peer."""
    tracks, person = read_tracks(options.data)
    own = Embedded(options.model, tracks)
    whole = {f"{own.name}": (own.tracks_of(), own.matcher)}
    whole[f"{own.name}, without visibility"] = own.tracks_of(visibility=False), own.matcher
    whole[f"{own.name}, blur not looked at"] = own.tracks_of(blur=False), own.matcher
    whole[f"{own.name}, 4 diverse crops a slot"] = own.tracks_of(best=4), own.matcher
    for peer in options.peer:
        other = Embedded(peer, tracks)
        whole[other.name] = other.tracks_of(), other.matcher
    trained = own.trained_on.among("market1501", [f"{p:04d}" for p in np.unique(person)]) if own.trained_on else ()
    result: dict[str, Any] = {
        "tracks": len(tracks),
        "people": len(np.unique(person)),
        "trained_on": len(trained),
        "seed": options.seed,
    }
    base: np.ndarray | None = None
    for name, (rows, matcher) in whole.items():
        begin = time.perf_counter()
        found, joins = test_halves(rows, person, matcher, options.seed)
        seconds = time.perf_counter() - begin
        base = found if base is None else base
        _, interval, difference = compare_b_cubed(person, base, found)
        result[name] = {
            **measure(person, found).to_dict(),
            "b3_f1_interval": str(interval),
            "first_minus_this": str(difference),
            "joins": joins,
            "seconds": round(seconds, 2),
        }
    return result


def drawn_tracks(count: int, seed: int) -> tuple[Tracks, np.ndarray]:
    """Draw tracks: about five of each person in six cameras, a third of them half hidden."""
    generator = np.random.default_rng(seed)
    person = np.sort(generator.integers(0, max(1, count // 5), count))
    widths: Mapping[str, int] = {"global": 256, "part_1": 128, "part_2": 128}
    slots, visibility = [], np.ones((count, len(widths)), dtype=np.float32)
    hidden = generator.random(count) < 1 / 3
    visibility[hidden, 2] = 0.0
    for width in widths.values():
        centers = generator.standard_normal((person.max() + 1, width)).astype(np.float32)
        slots.append(torch.from_numpy(centers[person] + generator.standard_normal((count, width)).astype(np.float32)))
    start = generator.uniform(0, 1e6, count)
    rows = PartEmbeddings(tuple(widths), tuple(slots), torch.from_numpy(visibility))
    camera = tuple(int(c) for c in generator.integers(0, 6, count))
    return Tracks(rows, tuple(f"{n:07d}" for n in range(count)), camera, start, start + 5), person


def measure_scale(options: argparse.Namespace) -> dict[str, Any]:
    """Time associations of drawn tracks."""
    matcher = VisibilityWeightedMatcher()
    known, person = drawn_tracks(1000, 1)
    learnt = calibrate_joins(known, person, matcher)
    result = {}
    for count in options.tracks:
        tracks, truth = drawn_tracks(count, 2)
        begin = time.perf_counter()
        found = associate(tracks, matcher, learnt.calibration, join=learnt.join)
        result[str(count)] = {
            "seconds": round(time.perf_counter() - begin, 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "b3_f1": round(measure(truth, found.identity).b3_f1, 4),
            "identities": len(found),
        }
    return result


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    real = parts.add_parser("tracks")
    real.add_argument("--data", type=Path, required=True)
    real.add_argument("--model", default="oreid_lite")
    real.add_argument("--peer", action="append", default=[])
    real.add_argument("--seed", type=int, default=0)
    scale = parts.add_parser("scale")
    scale.add_argument("--tracks", type=int, nargs="+", default=[1000, 10_000])
    options = parser.parse_args()
    print(json.dumps(measure_tracks(options) if options.part == "tracks" else measure_scale(options), indent=2))


if __name__ == "__main__":
    main()
