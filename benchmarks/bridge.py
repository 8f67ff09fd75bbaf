"""Upper bodies looked for among lower bodies, plainly and through complete images of a third camera.

Of each validation person with three cameras or more, the images of the first camera that show the upper third only are
queries, those of the second that show the lower two thirds are the gallery, and those of the third are complete. What
is hidden is grey. Ranks are counted among the lower bodies alone. Hold-out people are in no split.

    python benchmarks/bridge.py --data market1501 --people 60 --model oreid_lite
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from occluded_reid import PartEmbeddings, ReIDModel, load_dataset, load_model
from occluded_reid.data import Sample
from occluded_reid.data.images import open_image
from occluded_reid.evaluation import evaluate_matrix
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search.rerank.bridge import Bridge, BridgedDistances

SEEN = {"query": (0.0, 1 / 3), "gallery": (1 / 3, 1.0), "complete": (0.0, 1.0)}
BRIDGES = {
    "plain": None,
    "n=1": Bridge(n=1, below=0.6),
    "n=5": Bridge(n=5, below=0.6),
    "n=10": Bridge(n=10, below=0.6),
    "n=10, soft": Bridge(n=10, below=0.6, temperature=0.05),
}


def main() -> None:
    """Embed, match plainly and by bridges, with the model's own visibility and with the true one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--images", type=int, default=3, help="of each person and camera, at most")
    parser.add_argument("--model", default="oreid_lite")
    options = parser.parse_args()
    model = load_model(options.model)
    data = load_dataset("market1501", options.data, holdout=100, seed=0, validation=options.people)
    chosen = _chosen([*data.query, *data.gallery], options.images)
    print({role: len(samples) for role, samples in chosen.items()})
    own = {role: _embedded(model, samples, *SEEN[role]) for role, samples in chosen.items()}
    stripes = VisibilityWeightedMatcher(weights={name: 0.0 for name in own["query"].names if "part" not in name})
    for visibility in ("own", "true"):
        rows = own if visibility == "own" else {role: _true(each, *SEEN[role]) for role, each in own.items()}
        gallery = PartEmbeddings.cat([rows["gallery"], rows["complete"]])
        q, g = (a.ravel() for a in np.indices((len(rows["query"]), len(rows["gallery"]))))
        for kind, matcher in (("the model's", model.matcher), ("stripes alone", stripes)):
            for name, bridge in BRIDGES.items():
                if bridge is None:
                    distances = matcher.pairs(rows["query"], gallery, q, g)
                else:
                    distances = BridgedDistances(rows["query"], gallery, matcher, bridge).score(q, g)
                labels = [
                    [int(getattr(s, what)) for s in chosen[role]] for what in ("identity", "camera") for role in SEEN
                ]
                report = evaluate_matrix(
                    distances.reshape(len(rows["query"]), -1), labels[0], labels[1], labels[3], labels[4]
                )
                print(f"| {visibility} | {kind} | {name} | {report.rank(1):.3f} | {report.mAP:.3f} |", flush=True)


def _chosen(samples: list[Sample], most: int) -> dict[str, list[Sample]]:
    """Images of three cameras of each person who has them, one camera a role."""
    people: dict[object, dict[object, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in sorted(samples, key=lambda s: s.name):
        people[sample.identity][sample.camera].append(sample)
    chosen: dict[str, list[Sample]] = {role: [] for role in SEEN}
    for cameras in people.values():
        if len(cameras) >= len(SEEN):
            for role, (_, images) in zip(SEEN, sorted(cameras.items()), strict=False):
                chosen[role] += images[:most]
    return chosen


def _embedded(model: ReIDModel, samples: list[Sample], top: float, bottom: float) -> PartEmbeddings:
    images = []
    for sample in samples:
        pixels = np.asarray(open_image(sample.path).convert("RGB")).copy()
        rows = (np.arange(len(pixels)) + 0.5) / len(pixels)
        pixels[(rows < top) | (rows >= bottom)] = 128
        images.append(pixels)
    return model.embed(images)


def _true(rows: PartEmbeddings, top: float, bottom: float) -> PartEmbeddings:
    """The same rows, each stripe as visible as it was left."""
    visibility = rows.visibility.clone()
    stripes = [s for s, name in enumerate(rows.names) if "part" in name]
    for number, s in enumerate(stripes):
        middle = (number + 0.5) / len(stripes)
        visibility[:, s] = float(top <= middle < bottom)
    return PartEmbeddings(rows.names, rows.embeddings, visibility)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
