"""Does the synthetic set separate good from bad?

Prints the time to draw it, the Rank-1 of what must fail on it (colour histograms, an untrained network), and with
--run the Rank-1 of `sorn_lite` trained as the demo trains it. Gallery images of the query's identity and camera are
dropped, as in Market-1501; the queries are also told apart by whether an occluder covers them.

    python benchmarks/synthetic.py [--root FOLDER] [--run FOLDER] [--workers N]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

from occluded_reid import Protocol, load_dataset, load_model, load_recipe, train
from occluded_reid.cli.demo import DEMO
from occluded_reid.data.synthetic import LISTING, SyntheticOptions, generate
from occluded_reid.evaluation.studies.study import MATCHINGS, study

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Images of one split with what is known about them."""

    images: NDArray[np.uint8]
    identity: NDArray[np.int64]
    camera: NDArray[np.int64]
    occluded: NDArray[np.bool_]


def load_split(root: Path, split: str) -> Split:
    facts: dict[str, dict[str, Any]] = json.loads((root / LISTING).read_text(encoding="utf-8"))["images"]
    names = sorted(name for name in facts if name.startswith(f"{split}/"))
    return Split(
        images=np.stack([np.asarray(Image.open(root / name)) for name in names]),
        identity=np.array([facts[name]["identity"] for name in names]),
        camera=np.array([facts[name]["camera"] for name in names]),
        occluded=np.array([facts[name]["occluder"] is not None for name in names]),
    )


def rank1(distance: Floats, query: Split, gallery: Split) -> dict[str, float]:
    """Rank-1 in per cent on all, clean and occluded queries; distance is (Nq, Ng)."""
    same_camera = query.camera[:, None] == gallery.camera[None]
    junk = same_camera & (query.identity[:, None] == gallery.identity[None])
    nearest = np.where(junk, np.inf, distance).argmin(1)
    right = gallery.identity[nearest] == query.identity
    rows = {"all": np.ones_like(query.occluded), "clean": ~query.occluded, "occluded": query.occluded}
    return {name: 100 * float(right[row].mean()) for name, row in rows.items()}


def city_block(query: Floats, gallery: Floats) -> Floats:
    return np.stack([np.abs(row - gallery).sum(1) for row in query])


def rgb_histograms(images: NDArray[np.uint8]) -> Floats:
    """8 × 8 × 8 colours of the whole image."""
    bins = (images // 32).astype(np.int64) @ np.array([64, 8, 1])
    return np.stack([np.bincount(image.ravel(), minlength=512) / image.size for image in bins]).astype(np.float32)


def hsv_histograms(images: NDArray[np.uint8]) -> Floats:
    """16 × 4 × 4 hues, saturations and values in each of six stripes."""
    rows = []
    for image in images:
        hsv = np.asarray(Image.fromarray(image).convert("HSV")).astype(np.int64) // np.array([16, 64, 64])
        stripes = np.array_split(hsv @ np.array([16, 4, 1]), 6)
        rows.append(np.concatenate([np.bincount(stripe.ravel(), minlength=256) / stripe.size for stripe in stripes]))
    return np.stack(rows).astype(np.float32)


@torch.inference_mode()
def untrained_features(images: NDArray[np.uint8], seed: int = 0) -> Floats:
    """Pooled features of a randomly initialised network, of unit length."""
    torch.manual_seed(seed)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    batches = []
    for start in range(0, len(images), 64):
        batch = torch.from_numpy(images[start : start + 64]).permute(0, 3, 1, 2).float()
        batches.append(torch.nn.functional.normalize(network(batch / 127.5 - 1)))
    features: Floats = torch.cat(batches).numpy()
    return features


def weak_figures(root: Path) -> dict[str, dict[str, float]]:
    """Rank-1 of everything that must not solve the set."""
    query, gallery = load_split(root, "query"), load_split(root, "bounding_box_test")
    figures = {
        name: rank1(city_block(histogram(query.images), histogram(gallery.images)), query, gallery)
        for name, histogram in {"RGB histogram": rgb_histograms, "HSV histogram, 6 stripes": hsv_histograms}.items()
    }
    similarity = untrained_features(query.images) @ untrained_features(gallery.images).T
    return figures | {"untrained tf_efficientnet_lite0": rank1(-similarity, query, gallery)}


def trained_figures(root: Path, run: Path) -> dict[str, dict[str, float]]:
    """Rank-1 of `sorn_lite`, trained into `run` unless a model is there already, for each matching."""
    data = load_dataset("synthetic", root)
    if not (run / "model" / "model.json").is_file():
        train(load_recipe("sorn_lite", DEMO), data, run)
    model = load_model(run / "model")
    facts = json.loads((root / LISTING).read_text(encoding="utf-8"))["images"]
    covered = {sample.name for sample in data.query if facts[sample.name]["occluder"] is not None}
    chosen = {
        "all": data.query,
        "clean": tuple(sample for sample in data.query if sample.name not in covered),
        "occluded": tuple(sample for sample in data.query if sample.name in covered),
    }
    figures: dict[str, dict[str, float]] = {f"sorn_lite, {name}": {} for name in MATCHINGS}
    for rows, queries in chosen.items():
        found = study(model, replace(data, query=queries), matchings=list(MATCHINGS), protocol=Protocol(bootstrap=0))
        for name in MATCHINGS:
            figures[f"sorn_lite, {name}"][rows] = 100 * found.get(name).metrics["Rank-1"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the synthetic set.")
    parser.add_argument("--root", type=Path, help="folder to keep the set in (default: a temporary one)")
    parser.add_argument("--run", type=Path, help="train sorn_lite into this folder, or use what was trained there")
    parser.add_argument("--workers", type=int, default=0, help="processes to draw with (default: this one)")
    arguments = parser.parse_args()
    options = SyntheticOptions()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.root or Path(temporary) / "synthetic"
        fresh = not root.exists()
        start = time.perf_counter()
        generate(root, options, workers=arguments.workers)
        seconds = time.perf_counter() - start
        count = sum(options.images.values())
        if fresh:
            print(f"{count} images in {seconds:.1f} s: {1000 * seconds / count:.1f} s per 1,000")
        print(f"{'Rank-1 in per cent':<34}{'all':>8}{'clean':>8}{'occluded':>10}")
        figures = weak_figures(root) | (trained_figures(root, arguments.run) if arguments.run else {})
        for name, figure in figures.items():
            print(f"{name:<34}{figure['all']:8.1f}{figure['clean']:8.1f}{figure['occluded']:10.1f}")


if __name__ == "__main__":
    main()
