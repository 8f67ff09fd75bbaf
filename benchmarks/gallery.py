"""A gallery of a million images on disk: added, indexed, opened, searched, evaluated; seconds, and memory of each step.

    python benchmarks/gallery.py --rows 1000000 --width 256 --folder /data/bench
    python benchmarks/gallery.py --rows 100000 --factory IVF1024,Flat --json gallery.json
    python benchmarks/gallery.py --sizes 10000 100000 1000000 --plot time.png --folder /data/bench
    python benchmarks/gallery.py --part small-adds --rows 10000 --folder /dev/shm/bench
    python benchmarks/gallery.py --part small-adds --rows 10000 --quick

Every step runs in a process of its own, so that its peak is its own: resident memory with the pages of mapped files, as
the kernel counts it (VmHWM), and without them (anonymous memory, sampled). With `--folder`, finished steps are kept and
not done again. The images are drawn as in `search.py`: 20 to an identity, noise 0.7, a fifth of the slots hidden.

`--part small-adds` adds images one by one instead, each with a search after it, and tells the processor time of the
additions and searches before the 100th, 1,000th and 10,000th, as milliseconds and as ratios to those before the 100th
image of a fresh gallery, taken in turns with them, and the bytes on disk. `--quick` adds all but the last 200 before
the last mark in six calls, of such sizes as additions one by one are joined to, and looks at that mark alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search import ROWS_OF_ONE, SLOTS, Images

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.evaluation import Protocol, evaluate
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.index.gallery_index import GalleryIndex
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search.index.packed_rows import PackedRows
from occluded_reid.visualize import LineChart, Series, save_picture

CHUNK = 16_384
QUERIES = 256
MARKS = (100, 1_000, 10_000, 100_000)
WINDOW = 64  # additions that are averaged: every power of eight of them joins pieces
STEPS = ("add", "build", "open", "search", "filters", "evaluate")


def draw(options: argparse.Namespace) -> Iterator[tuple[int, PartEmbeddings, np.ndarray]]:
    """Yield (number of the first row, rows, identities), and the queries first, at -1."""
    people = Images(max(1, options.rows // ROWS_OF_ONE), width=options.width)
    yield -1, *people.images(QUERIES)
    for start in range(0, options.rows, CHUNK):
        yield start, *people.images(min(CHUNK, options.rows - start))


def add(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Add all images, in calls of 16,384."""
    spent = 0.0
    identities = []
    with Gallery.create(folder / "g", slots=dict.fromkeys(SLOTS, options.width), device="cpu") as gallery:
        for start, rows, who in draw(options):
            if start < 0:
                rows.save(folder / "query.safetensors")
                np.save(folder / "query_identity.npy", who)
                continue
            names = [f"{n:08d}.jpg" for n in range(start, start + len(rows))]
            cameras = (np.arange(start, start + len(rows)) * 7919 % 1000).tolist()  # numbers to filter by
            begin = time.perf_counter()
            gallery.add(rows, keys=names, identity=[str(i) for i in who.tolist()], camera=cameras)
            spent += time.perf_counter() - begin
            identities.append(who)
    np.save(folder / "identity.npy", np.concatenate(identities))
    return {"add_seconds": spent, "adds_per_second": options.rows / spent}


def build(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build the index."""
    with Gallery.open(folder / "g", device="cpu") as gallery:
        print(gallery.estimate_index(options.factory))
        begin = time.perf_counter()
        info = gallery.build_index(options.factory)
        print(info)
    return {"build_seconds": time.perf_counter() - begin, "index_bytes": info.bytes}


def open_(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Open the gallery, and answer a first query by the index; the modules are imported before."""
    query = PartEmbeddings.load(folder / "query.safetensors")
    begin = time.perf_counter()
    gallery = Gallery.open(folder / "g", device="cpu")
    opened = time.perf_counter() - begin
    gallery.search(query[:1], options.k, effort="auto")
    return {"open_seconds": opened, "first_answer_seconds": time.perf_counter() - begin}


def search(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One query and 256, exactly and with effort 0.98, in turns; labels and slots of the hits are read as well."""
    query = PartEmbeddings.load(folder / "query.safetensors")
    found: dict[str, Any] = {}
    with Gallery.open(folder / "g", device="cpu") as gallery:
        for effort in ("exact", 0.98):
            gallery.search(query[-1:], options.k, effort=effort)  # reads the labels of rows once
        for count in (1, QUERIES):
            times: dict[Any, list[float]] = {"exact": [], 0.98: []}
            answers: dict[Any, Any] = {}
            for turn in range(options.turns):
                asked = query[turn : turn + 1] if count == 1 else query
                for effort, spent in times.items():
                    begin = time.perf_counter()
                    answers[effort] = gallery.search(asked, options.k, effort=effort)
                    spent.append(time.perf_counter() - begin)
            found[f"exact_ms_{count}"] = 1e3 * float(np.median(times["exact"]))
            found[f"effort_ms_{count}"] = 1e3 * float(np.median(times[0.98]))
            ratios = [e / f for e, f in zip(times["exact"], times[0.98], strict=True)]
            found[f"times_faster_{count}"] = float(np.median(ratios))
        found |= _shares(answers["exact"], answers[0.98], np.load(folder / "query_identity.npy"))
    return found


def filters(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What effort 0.98 finds under filters that keep a half, a hundredth and a thousandth of the images."""
    query, who = PartEmbeddings.load(folder / "query.safetensors"), np.load(folder / "query_identity.npy")
    found: dict[str, Any] = {}
    with Gallery.open(folder / "g", device="cpu") as gallery:
        for name, where in (("50%", "camera < 500"), ("1%", "camera < 10"), ("0.1%", "camera < 1")):
            exact = gallery.search(query[:64], options.k, where=where)
            begin = time.perf_counter()
            fast = gallery.search(query[:64], options.k, where=where, effort=0.98)
            spent = time.perf_counter() - begin
            shares = _shares(exact, fast, who)
            found |= {f"{name} {kind}": share for kind, share in shares.items()} | {f"{name} ms_64": 1e3 * spent}
    return found


def _shares(exact: list[list[Any]], fast: list[list[Any]], who: np.ndarray) -> dict[str, float]:
    """Of the exact best hits, and of the true matches in the exact lists, the part that was found."""
    best = [f[0].key == e[0].key for e, f in zip(exact, fast, strict=True) if e and f]
    there = [
        match.key in {hit.key for hit in f}
        for e, f, i in zip(exact, fast, who, strict=False)
        for match in e
        if match.identity == str(i)
    ]
    return {"best": float(np.mean(best)), "true_matches": float(np.mean(there)) if there else float("nan")}


def evaluate_(folder: Path, _options: argparse.Namespace) -> dict[str, Any]:
    """CMC, mAP and mINP with intervals of 256 queries against all images, from the index's copy of the rows."""
    current = GalleryIndex.current(folder / "g")
    if current is None:
        raise SystemExit("build the index first")
    identity = np.load(folder / "identity.npy")
    rows = EmbeddedSet(PackedRows.open(current).mapped, identity, np.ones(len(identity)))
    query = PartEmbeddings.load(folder / "query.safetensors")
    asked = EmbeddedSet(query, np.load(folder / "query_identity.npy"), np.zeros(len(query)))
    begin = time.perf_counter()
    report = evaluate(asked, rows, VisibilityWeightedMatcher(), Protocol())
    return {"evaluate_seconds": time.perf_counter() - begin, "rank_1": report.rank(1), "mAP": report.mAP}


@contextmanager
def anonymous_peak() -> Iterator[dict[str, float]]:
    """Fill in the peak of anonymous memory in MiB, sampled every 5 ms."""
    peak, done = {"anonymous_mib": 0.0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            text = Path("/proc/self/status").read_text(encoding="ascii")
            line = next(x for x in text.splitlines() if x.startswith("RssAnon"))
            peak["anonymous_mib"] = max(peak["anonymous_mib"], int(line.split()[1]) / 1024)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def small_adds(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Add images one by one; processor time of the last 64 additions before each mark, and of a search after each.

    In turns with them, a fresh gallery gets its 37th to 100th image: a machine that others use is slow for both.
    """
    people = Images(max(1, options.rows // ROWS_OF_ONE), width=options.width)
    table: list[dict[str, Any]] = []
    marks = [mark for mark in MARKS if mark < options.rows] + [options.rows]
    large = OneByOne(folder / "large", people, options.width)
    if options.quick:
        marks = marks[-1:]
        for share in (0.6, 0.2, 0.1, 0.05, 0.03, 0.02):
            large.fill(int(share * (marks[0] - 200)))
    for mark in marks:
        while large.images < mark - WINDOW:
            large.add()
        small = OneByOne(folder / f"small_{mark}", people, options.width)
        while small.images < MARKS[0] - WINDOW:
            small.add()
        spent: dict[str, list[float]] = {name: [] for name in ("add", "search", "add_100", "search_100")}
        for _ in range(WINDOW):
            for gallery, suffix in ((large, ""), (small, "_100")):
                spent[f"add{suffix}"].append(gallery.add())
                spent[f"search{suffix}"].append(gallery.search())
        small.gallery.close()
        path = Path(large.gallery.path)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        row: dict[str, Any] = {"images": mark, "versions": len(large.gallery.versions()), "bytes": size}
        row |= {f"{name}_ms": 1e3 * float(np.mean(times)) for name, times in spent.items()}
        row |= {f"{name}_ratio": row[f"{name}_ms"] / row[f"{name}_100_ms"] for name in ("add", "search")}
        medians = {name: float(np.median(spent[name]) / np.median(spent[f"{name}_100"])) for name in ("add", "search")}
        row |= {f"{name}_median_ratio": ratio for name, ratio in medians.items()}
        table.append(row)
        print(
            f"{mark:>7,} images: add {row['add_ms']:.1f} ms ({row['add_ratio']:.2f} × the 100th), "
            f"search {row['search_ms']:.1f} ms ({row['search_ratio']:.2f} ×; medians {row['add_median_ratio']:.2f} and "
            f"{row['search_median_ratio']:.2f} ×), {row['versions']} versions, "
            f"{size / 1e6:.1f} MB, {size / mark:,.0f} bytes an image",
            flush=True,
        )
    large.gallery.verify().raise_if_damaged()
    if len(Gallery.open(large.gallery.path)) != options.rows:
        raise SystemExit("images were lost")
    return table


class OneByOne:
    """A gallery that gets one image at a time; tells the processor time of each step."""

    def __init__(self, folder: Path, people: Images, width: int) -> None:
        self.gallery = Gallery.create(folder, slots=dict.fromkeys(SLOTS, width), device="cpu")
        self.images, self._people = 0, people

    def add(self) -> float:
        """Add an image."""
        rows, _ = self._people.images(1)
        begin = time.process_time()
        self.gallery.add(rows, keys=[f"{self.images:08d}.jpg"])
        self.images += 1
        return time.process_time() - begin

    def fill(self, count: int) -> None:
        """Add several images in one call."""
        rows, _ = self._people.images(count)
        self.gallery.add(rows, keys=[f"{self.images + number:08d}.jpg" for number in range(count)])
        self.images += count

    def search(self) -> float:
        """Search for an image."""
        rows, _ = self._people.images(1)
        begin = time.process_time()
        self.gallery.search(rows, 10)
        return time.process_time() - begin


WORK: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "add": add,
    "build": build,
    "open": open_,
    "search": search,
    "filters": filters,
    "evaluate": evaluate_,
}


def step(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Do a step in this process, and leave its figures beside the gallery."""
    with anonymous_peak() as peak:
        found = WORK[name](folder, options)
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found["peak_mib"] = int(next(x for x in text.splitlines() if x.startswith("VmHWM")).split()[1]) / 1024
    (folder / f"{name}.json").write_text(json.dumps({**found, **peak}, indent=2) + "\n")


def run(rows: int, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Do every step that is not done yet, each in a process of its own."""
    folder = root / f"{rows}x{options.width}"
    folder.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {"rows": rows, "width": options.width, "threads": torch.get_num_threads()}
    for name in STEPS:
        if not (folder / f"{name}.json").exists():
            command = [sys.executable, __file__, "--step", name, "--folder", str(folder), "--rows", str(rows)]
            command += ["--width", str(options.width), "--k", str(options.k), "--turns", str(options.turns)]
            subprocess.run([*command, *(["--factory", options.factory] if options.factory else [])], check=True)
        table[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        print(f"{rows:,} {name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in table[name].items()), flush=True)
    return table


def plot(tables: list[dict[str, Any]], file: Path) -> None:
    """Seconds of a search against rows, both axes logarithmic."""
    sizes = [table["rows"] for table in tables]
    lines = [
        Series(
            f"{count} quer{'y' if count == 1 else 'ies'}, {'exact' if effort == 'exact' else 'effort 0.98'}",
            sizes,
            [table["search"][f"{effort}_ms_{count}"] / 1e3 for table in tables],
        )
        for effort in ("exact", "effort")
        for count in (1, QUERIES)
    ]
    chart = LineChart("Time of a search", "images in the gallery", "seconds", lines, log_x=True, log_y=True)
    save_picture(chart.image(), file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sizes", type=int, nargs="+", help="several galleries, one after another, instead of --rows")
    parser.add_argument("--width", type=int, default=128, help="numbers in each of the five slots")
    parser.add_argument("--factory", help="index of a slot; default: the usual one for so many rows")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--part", choices=("all", "small-adds"), default="all")
    parser.add_argument("--quick", action="store_true", help="of the single additions only the last 200")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.step, options.folder, options)
        return
    if options.part == "small-adds":
        if options.folder is not None:
            options.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            found = small_adds(Path(temporary), options)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=2) + "\n")
        return
    with tempfile.TemporaryDirectory() as temporary:
        tables = [run(rows, options.folder or Path(temporary), options) for rows in options.sizes or [options.rows]]
    if options.json is not None:
        options.json.write_text(json.dumps(tables, indent=2) + "\n")
    if options.plot is not None:
        plot(tables, options.plot)


if __name__ == "__main__":
    main()
