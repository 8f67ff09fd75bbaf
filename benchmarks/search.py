"""Search at size, with what it is compared to measured in the same run.

    python benchmarks/search.py                                   # every part
    python benchmarks/search.py --part approximate --rows 300000
    python benchmarks/search.py --part approximate --model runs/sorn/model --data market1501 --rows 300000
    python benchmarks/search.py --folder /data/bench --json search.json

A part is a function that takes the options and returns rows of a table. References and what is measured take turns in
one process, so that whatever else the machine does meets both alike; a ratio is the median of the ratios of the turns.
With `--folder`, rows and indexes are kept and used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import (
    GALLERY,
    QUERIES,
    WIDTHS,
    bare_product,
    make_sets,
    median_ratio,
    output_of,
    peak_above,
    take_turns,
)

from occluded_reid import embed_samples, load_dataset, load_model
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.files import read_json, write_json
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search.approximate import approximate_topk
from occluded_reid.search.exact import exact_topk
from occluded_reid.search.index.factory import estimate, parse_factory
from occluded_reid.search.index.faiss import FaissIndex
from occluded_reid.search.index.packed_rows import PackedRows, PackedWriter
from occluded_reid.search.recall import choose_effort, measure_recall
from occluded_reid.search.rows import InMemoryRows

SLOTS, WIDTH = ("global", "part_1", "part_2", "part_3", "part_4"), 128
NOISE, HIDDEN, ROWS_OF_ONE = 0.7, 0.2, 20
CHUNK = 20_000
MEBIBYTE = 1 << 20


class Images:
    """Endless images of a fixed number of people: the data of the prototype.

    Each identity has a centre for each slot, every coordinate from N(0, 1); an image is centre + 0.7 · N(0, 1). Rows of
    one identity thus have cosine 1 / (1 + 0.49) = 0.67. Visibility is uniform, and a fifth of the slots are hidden.
    Drawn so, 300,000 rows of 20,000 identities in IVF1024,Flat give the recalls of the prototype's table.
    """

    def __init__(self, identities: int, seed: int = 0, width: int = WIDTH) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._centres = [torch.randn(identities, width, generator=self._random) for _ in SLOTS]

    def images(self, count: int) -> tuple[PartEmbeddings, np.ndarray]:
        """Draw rows in float16, and their identities."""
        identity = torch.randint(0, len(self._centres[0]), (count,), generator=self._random)
        slots = []
        for centre in self._centres:
            noise = torch.randn(count, centre.shape[1], generator=self._random).mul_(NOISE)
            slots.append(noise.add_(centre[identity]).half())
        visible = torch.rand(count, len(SLOTS), generator=self._random)
        visible[torch.rand(count, len(SLOTS), generator=self._random) < HIDDEN] = 0
        return PartEmbeddings(SLOTS, tuple(slots), visible), identity.numpy()


class Interpolated:
    """Endless images of people between two real ones, as seen by one model.

    A person is (A, B, t): two people of a labelled set whom the same cameras saw, and a place between them. An image is
    a camera in which both were seen, a crop of each there, and per slot (1 - t) of one unit vector and t of the other;
    visibility likewise. So pose, light and occlusion of two real crops of one camera are in every row.
    """

    def __init__(self, real: EmbeddedSet, identities: int, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._slots = [torch.nn.functional.normalize(e.float()) for e in real.embeddings.embeddings]
        self._names, self._visible = real.embeddings.names, real.embeddings.visibility
        self._crops: dict[tuple[int, int], np.ndarray] = {}
        for who, camera in {*zip(real.identity.tolist(), real.camera.tolist(), strict=True)}:
            self._crops[who, camera] = np.flatnonzero((real.identity == who) & (real.camera == camera))
        people = np.unique(real.identity)
        cameras = {who: {c for w, c in self._crops if w == who} for who in people.tolist()}
        self._people = []
        while len(self._people) < identities:
            a, b = self._random.choice(people, 2, replace=False).tolist()
            if len(both := sorted(cameras[a] & cameras[b])) >= 2:
                self._people.append((a, b, both, self._random.uniform(0.2, 0.8)))

    def images(self, count: int) -> tuple[PartEmbeddings, np.ndarray]:
        """Draw rows in float16, and their identities."""
        identity = self._random.integers(0, len(self._people), count)
        first, second, place = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.float32)
        for row, number in enumerate(identity.tolist()):
            a, b, cameras, place[row] = self._people[number]
            camera = cameras[self._random.integers(len(cameras))]
            first[row] = self._random.choice(self._crops[a, camera])
            second[row] = self._random.choice(self._crops[b, camera])
        t = torch.from_numpy(place)[:, None]
        slots = tuple(((1 - t) * e[first] + t * e[second]).half() for e in self._slots)
        visible = ((1 - t) * self._visible[first] + t * self._visible[second]).clamp(0, 1)
        return PartEmbeddings(self._names, slots, visible), identity


def source(options: argparse.Namespace) -> Images | Interpolated:
    """The drawn images, or with --model and --data those between real ones."""
    identities = max(1, options.rows // ROWS_OF_ONE)
    if options.model is None:
        return Images(identities)
    data = load_dataset("market1501", options.data, holdout=options.holdout)
    return Interpolated(embed_samples(load_model(options.model), data, data.gallery), identities)


@dataclass(frozen=True)
class Gallery:
    """Packed rows, an index for each slot, queries, and who is who."""

    rows: PackedRows
    identity: np.ndarray
    query: PartEmbeddings
    query_identity: np.ndarray
    indexes: dict[str, FaissIndex]
    facts: dict[str, Any]


def open_gallery(folder: Path, options: argparse.Namespace) -> Gallery:
    """Open rows and indexes in this folder; make what is missing, in chunks."""
    place = folder / f"{'drawn' if options.model is None else 'interpolated'}_{options.rows}"
    if not (place / "packed.json").exists():
        people = source(options)
        identity = []
        query, query_identity = people.images(options.queries)
        with PackedWriter(place, query.widths) as writer:
            for start in range(0, options.rows, CHUNK):
                rows, who = people.images(min(CHUNK, options.rows - start))
                writer.append(rows)
                identity.append(who)
            np.savez(place / "identity.npz", gallery=np.concatenate(identity), query=query_identity)
            query.save(place / "query.safetensors")
    rows, who = PackedRows.open(place), np.load(place / "identity.npz")
    query = PartEmbeddings.load(place / "query.safetensors")
    built = place / options.factory.replace(",", "_")
    if not (built / "facts.json").exists():
        write_json(built / "facts.json", build(rows, built, options.factory))
    indexes = {slot: FaissIndex.load(built / slot) for slot in rows.slots}
    return Gallery(rows, who["gallery"], query, who["query"], indexes, read_json(built / "facts.json"))


def build(rows: PackedRows, folder: Path, factory: str) -> dict[str, Any]:
    """Build one index after another: train on a sample, add tile by tile."""
    matcher, wanted = VisibilityWeightedMatcher(), parse_factory(factory)
    print(estimate(wanted, len(rows), rows.slots, 1 - HIDDEN))
    trained = added = 0.0
    with peak_memory() as peak:
        for slot, width in rows.slots.items():
            begin = time.perf_counter()
            index = FaissIndex(width, metric=matcher.index_metric, factory=factory)
            count = min(len(rows), round(wanted.training_rows(len(rows)) / (1 - HIDDEN)))
            chosen = np.sort(np.random.default_rng(0).choice(len(rows), count, replace=False))
            index.train(matcher.index_vectors(rows.take(chosen), slot)[1])
            middle = time.perf_counter()
            for start, tile in rows.tiles(1 << 16):
                numbers, vectors = matcher.index_vectors(tile, slot)
                index.add(vectors, numbers + start)
            index.save(folder / slot)
            trained, added = trained + middle - begin, added + time.perf_counter() - middle
            for note in index.notes:
                print(f"{slot}: {note}")
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"train_seconds": trained, "add_seconds": added, "bytes": disk, "build_peak_mib": peak.get("mib")}


def approximate(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One query and many at once, against the tiled search over the same rows, at a recall chosen on a sample."""
    with folder_of(options) as folder:
        gallery = open_gallery(folder, options)
        rows, matcher, k = gallery.rows, VisibilityWeightedMatcher(), options.k
        own = np.sort(np.random.default_rng(1).choice(len(rows), 200, replace=False))
        begin = time.perf_counter()
        chosen = choose_effort(
            rows.take(own),
            rows,
            matcher,
            k,
            gallery.indexes,
            options.wanted,
            own=own,
            relevant=relevant(gallery.identity, gallery.identity[own]),
        )
        print(f"{chosen} ({time.perf_counter() - begin:.1f} s)")

        def fast(query: PartEmbeddings) -> Any:
            return approximate_topk(
                query, rows, matcher, k, gallery.indexes, candidates=chosen.candidates, effort=chosen.effort
            )

        def slow(query: PartEmbeddings) -> Any:
            return exact_topk(query, rows, matcher, k)

        table = []
        for count in (1, options.queries):
            exact_times, fast_times, found = [], [], []
            for turn in range(options.turns):
                start = turn * count % options.queries if count == 1 else 0
                query = gallery.query[start : start + count]
                exact_times.append(seconds(lambda: found.append(slow(query))))  # noqa: B023
                fast_times.append(seconds(lambda: found.append(fast(query))))  # noqa: B023
            with peak_memory() as exact_peak:
                truth = slow(gallery.query[:count])
            with peak_memory() as fast_peak:
                answer = fast(gallery.query[:count])
            recall = measure_recall(answer, truth, relevant(gallery.identity, gallery.query_identity[:count]))
            table.append(
                {
                    "part": "approximate",
                    "data": "drawn" if options.model is None else "interpolated",
                    "slots": rows.slots,
                    "rows": len(rows),
                    "factory": options.factory,
                    "queries": count,
                    "candidates": chosen.candidates,
                    "effort": chosen.effort,
                    "exact_ms": 1e3 * statistics.median(exact_times),
                    "approximate_ms": 1e3 * statistics.median(fast_times),
                    "times_faster": statistics.median(e / f for e, f in zip(exact_times, fast_times, strict=True)),
                    "best": recall.best,
                    "true_matches": recall.true_matches,
                    "topk": recall.topk,
                    "exact_peak_mib": exact_peak.get("mib"),
                    "approximate_peak_mib": fast_peak.get("mib"),
                    **gallery.facts,
                }
            )
        return table


def exact(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The tiled search for many queries against the matrix product alone, in float32 and float16."""
    query, gallery = (side.embeddings for side in make_sets(WIDTHS["five"]))
    matcher, tile_rows = VisibilityWeightedMatcher(visibility="binary"), 4096
    rows = query.concatenate(), gallery.concatenate()
    table = []
    for dtype in (torch.float32, torch.float16):
        source = InMemoryRows(gallery.to(dtype=dtype))
        bare, whole = take_turns(
            [lambda: bare_product(*rows, tile_rows), lambda: exact_topk(query, source, matcher, options.k)],  # noqa: B023
            options.turns,
        )
        name = str(dtype).removeprefix("torch.")
        table.append(
            {
                "part": "exact",
                "rows": GALLERY,
                "queries": QUERIES,
                "dtype": name,
                "k": options.k,
                "product_ms": 1e3 * statistics.median(bare),
                "exact_ms": 1e3 * statistics.median(whole),
                "ratio": median_ratio(whole, bare),
                "exact_peak_mib": float(output_of(__file__, "--k", str(options.k), "--only-memory", name)),
            }
        )
    return table


def exact_peak(dtype: str, k: int) -> float:
    """Peak of one exact search, in MiB above queries and gallery."""
    query, gallery = (side.embeddings for side in make_sets(WIDTHS["five"]))
    source, matcher = InMemoryRows(gallery.to(dtype=getattr(torch, dtype))), VisibilityWeightedMatcher()
    del gallery
    return peak_above(lambda: exact_topk(query, source, matcher, k))


def relevant(gallery: np.ndarray, identity: np.ndarray) -> list[np.ndarray]:
    """Positions of each identity in the gallery."""
    order = np.argsort(gallery, kind="stable")
    begin, end = (np.searchsorted(gallery[order], identity, side=side) for side in ("left", "right"))
    return [order[b:e] for b, e in zip(begin, end, strict=True)]


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Fill in the peak of resident memory, pages of mapped files included, in MiB; empty where Linux does not tell."""
    peak: dict[str, float] = {}
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5", encoding="ascii")
    except OSError:
        yield peak
        return
    yield peak
    line = next(x for x in status.read_text(encoding="ascii").splitlines() if x.startswith("VmHWM"))
    peak["mib"] = round(int(line.split()[1]) * 1024 / MEBIBYTE)


@contextmanager
def folder_of(options: argparse.Namespace) -> Iterator[Path]:
    """The folder that was given, or one that goes when the part is done."""
    if options.folder is not None:
        yield options.folder
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


PARTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {"approximate": approximate, "exact": exact}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="only this part (may be repeated)")
    parser.add_argument("--model", type=Path, help="approximate: a model, to draw people between real ones")
    parser.add_argument("--data", type=Path, help="approximate: the real ones, in the layout of Market-1501")
    parser.add_argument("--holdout", type=int, default=100, help="approximate: identities of --data that are held out")
    parser.add_argument("--rows", type=int, default=1_000_000, help="approximate: rows of the gallery")
    parser.add_argument("--queries", type=int, default=256, help="approximate: queries at once")
    parser.add_argument("--factory", default="IVF4096,SQfp16", help="approximate: index of a slot")
    parser.add_argument("--wanted", type=float, default=0.99, help="approximate: recall wanted on the sample")
    parser.add_argument("--k", type=int, default=50, help="length of the lists")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each")
    parser.add_argument("--folder", type=Path, help="keep data here and use it again")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    parser.add_argument("--only-memory", choices=("float16", "float32"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_memory:
        print(exact_peak(options.only_memory, options.k))
        return
    table = [row for part in options.part or sorted(PARTS) for row in PARTS[part](options)]
    for row in table:
        print(
            " ".join(
                f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in row.items()
            )
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"threads": torch.get_num_threads(), "table": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
