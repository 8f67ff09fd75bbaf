"""The same hits from a Milvus server as from a folder, for trained systems, and what both cost.

The hold-out of a data set is embedded by each trained model (`--runs`), and its gallery enlarged to `--rows` by
interpolation between images of the same identity, so that the slots, their widths, their visibility and the matcher are
the system's own. Both galleries are searched for the same queries. A server must be running; the script makes a
collection for each run there, and drops it again. Embeddings are kept in `--embeddings`.

    python benchmarks/milvus.py --server localhost:19530 --data market1501 --masks masks --embeddings embedded \\
        --runs runs/sorn_lite runs/sgam_lite runs/ocnet_lite
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from occluded_reid import EmbeddedSet, Gallery, Hit, PartEmbeddings, ReIDModel, load_dataset, load_model
from occluded_reid.evaluation.embed import embed_samples

T = TypeVar("T")
CANDIDATES = (100, 400, 1600)


def main() -> None:
    """Compare each run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="host:port")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="folder for embeddings")
    parser.add_argument("--holdout", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| system | gallery | effort | seconds | best hit | whole list | same hits | largest difference |")
    print("|---|---|---|---|---|---|---|---|")
    for run in options.runs:
        model = load_model(run / "model")
        query, gallery = (embedded(model, run.name, side, options) for side in ("query", "gallery"))
        rows, labels = enlarged(gallery, options.rows, seed=0)
        compare(run.name, model, query.embeddings[: options.queries], rows, labels, options)


def compare(
    name: str,
    model: ReIDModel,
    query: PartEmbeddings,
    rows: PartEmbeddings,
    labels: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    address = f"milvus://{options.server}/benchmark_{name}?timeout=600"
    with tempfile.TemporaryDirectory() as folder, Gallery.create(f"{folder}/gallery", model=model) as embedded_gallery:
        line(name, "folder", "add", timed(lambda: embedded_gallery.add(rows, **labels))[1])
        exact, seconds = timed(lambda: embedded_gallery.search(query, options.k, effort="exact"))
        line(name, "folder", "exact", seconds)
        with Gallery.create(address, model=model) as server_gallery:
            try:
                line(name, "server", "add", timed(lambda: server_gallery.add(rows, **labels))[1])
                for effort in (*((m, 1) for m in CANDIDATES), "exact"):
                    found, seconds = timed(
                        lambda effort=effort: server_gallery.search(query, options.k, effort=effort)  # type: ignore[misc]
                    )
                    text = effort if isinstance(effort, str) else f"{effort[0]} candidates a slot"
                    line(name, "server", text, seconds, found, exact)
            finally:
                server_gallery.drop()


def embedded(model: ReIDModel, name: str, side: str, options: argparse.Namespace) -> EmbeddedSet:
    """Embed one side of the hold-out, or read what was embedded before."""
    options.embeddings.mkdir(parents=True, exist_ok=True)
    rows, labels = (options.embeddings / f"{name}_{side}.{kind}" for kind in ("safetensors", "npz"))
    if not labels.is_file():
        data = load_dataset("market1501", options.data, masks=options.masks, holdout=options.holdout, seed=0)
        found = embed_samples(model, data, getattr(data, side))
        found.embeddings.save(rows)
        np.savez(labels, identity=found.identity, camera=found.camera)
    known = np.load(labels)
    return EmbeddedSet(PartEmbeddings.load(rows), known["identity"], known["camera"])


def enlarged(gallery: EmbeddedSet, count: int, seed: int) -> tuple[PartEmbeddings, dict[str, Any]]:
    """Return the gallery's rows, followed by points between two rows of one identity, and their labels."""
    source = np.random.default_rng(seed)
    first = source.integers(0, len(gallery), max(0, count - len(gallery)))
    of_identity = {i: np.flatnonzero(gallery.identity == i) for i in np.unique(gallery.identity)}
    second = np.array([source.choice(of_identity[gallery.identity[row]]) for row in first], dtype=np.int64)
    share = torch.from_numpy(source.random(len(first))).float()[:, None]
    rows, (a, b) = gallery.embeddings, (gallery.embeddings[part.tolist()] for part in (first, second))
    between = PartEmbeddings(
        rows.names,
        tuple(x + share * (y - x) for x, y in zip(a.embeddings, b.embeddings, strict=True)),
        a.visibility + share * (b.visibility - a.visibility),
    )
    origin = np.concatenate([np.arange(len(gallery)), first])[:count]
    labels = {
        "keys": [f"{number:06d}" for number in range(len(origin))],
        "identity": [str(i) for i in gallery.identity[origin]],
        "camera": gallery.camera[origin].tolist(),
    }
    return PartEmbeddings.cat([rows, between])[:count], labels


def line(
    name: str,
    gallery: str,
    effort: str,
    seconds: float,
    found: list[list[Hit]] | None = None,
    exact: list[list[Hit]] | None = None,
) -> None:
    cells = ["", "", "", ""]
    if found is not None and exact is not None:
        pairs = list(zip(found, exact, strict=True))
        best = np.mean([f[0].key == e[0].key for f, e in pairs])
        whole = np.mean([hit.key in {h.key for h in f} for f, e in pairs for hit in e])
        same = [[h.key for h in f] == [h.key for h in e] for f, e in pairs]
        apart = [
            max(abs(x.distance - y.distance) for x, y in zip(f, e, strict=True))
            for (f, e), equal in zip(pairs, same, strict=True)
            if equal
        ]
        cells = [
            f"{100 * best:.1f} %",
            f"{100 * whole:.2f} %",
            f"{sum(same)} of {len(same)}",
            f"{max(apart, default=0)}",
        ]
    print("| " + " | ".join([name, gallery, effort, f"{seconds:.2f}", *cells]) + " |", flush=True)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
