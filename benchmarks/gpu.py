"""Everything that only a GPU can show, in one run of less than eight minutes, as one table.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --rows 2000 --images 8 --seconds 120    # tries the script itself

Each part runs in a process of its own and has a share of `--seconds`; one that fails or takes too long is a line of the
table, and the others go on.

tests      the suite's GPU tests: search and FAISS on the GPU against the CPU
exact      the tiled search over `--rows`, float16 rows of five slots of 128 in main memory, one query and 256: seconds,
           and of eight queries the same rows in the same order as the CPU finds
faiss      Flat and IVF4096,SQfp16 on the GPU, in the process in which torch uses it, against the exact search: recall;
           over all GPUs too, where there are several
embedding  images a second of `sorn_lite`, `oreid_lite` and `sorn` (random weights), float32 and bfloat16; how far
           the embeddings of the two are apart
training   images a second of whole training steps of the same, float32 and bf16
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from occluded_reid import build_model, load_dataset
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search.device import describe_device
from occluded_reid.search.exact import TopK, exact_topk
from occluded_reid.search.index.faiss import FaissIndex
from occluded_reid.search.rows import InMemoryRows

SLOTS, WIDTH, K, MANY, COMPARED = ("global", "part_1", "part_2", "part_3", "part_4"), 128, 50, 256, 8
SYSTEMS = ("sorn_lite", "oreid_lite", "sorn")
TURNS = 5
Row = dict[str, Any]


def drawn(rows: int, device: torch.device, seed: int) -> PartEmbeddings:
    """Rows of people with about 20 images each, drawn on the device, kept in float16 in main memory."""
    generator = torch.Generator(device).manual_seed(seed)
    people = torch.Generator(device).manual_seed(0)
    centers = torch.randn(max(1, rows // 20), len(SLOTS) * WIDTH, generator=people, device=device).half()
    whole = torch.empty(rows, len(SLOTS) * WIDTH, dtype=torch.float16)
    for start in range(0, rows, 1 << 17):
        count = min(1 << 17, rows - start)
        who = torch.randint(0, len(centers), (count,), generator=generator, device=device)
        noise = torch.randn(count, whole.shape[1], generator=generator, device=device).mul_(0.7)
        whole[start : start + count] = noise.add_(centers[who]).half().cpu()
    visible = torch.rand(rows, len(SLOTS), generator=torch.Generator().manual_seed(seed))
    visible[visible < 0.2] = 0
    return PartEmbeddings(SLOTS, tuple(part.contiguous() for part in whole.split(WIDTH, 1)), visible)


def median_ms(work: Callable[[], object], device: torch.device, turns: int = TURNS) -> float:
    """Median milliseconds of a call, the device's queue emptied, after one call that is not counted."""
    times = []
    for _ in range(turns + 1):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def tests(_: torch.device, options: argparse.Namespace) -> list[Row]:
    """Run the GPU tests of the suite; they find the device themselves."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=options.seconds, check=False
    )
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
    return [{"what": "pytest -m gpu", "result": last.strip("= "), "right": done.returncode in (0, 5)}]


def exact(device: torch.device, options: argparse.Namespace) -> list[Row]:
    """Search exactly over galleries of growing size."""
    table = []
    for rows in options.rows:
        gallery, query = drawn(rows, device, 1), drawn(MANY, device, 2).to(dtype=torch.float32)
        source, matcher = InMemoryRows(gallery), VisibilityWeightedMatcher()
        times = {
            count: median_ms(
                lambda: exact_topk(query[:count], source, matcher, K, device=device),  # noqa: B023
                device,
                3 if rows > 2_000_000 else TURNS,
            )
            for count in (1, MANY)
        }
        row: Row = {"what": f"exact, {rows:,} rows", "one query ms": times[1], f"{MANY} queries ms": times[MANY]}
        if rows <= 2_000_000:
            few = query[:COMPARED]
            begin = time.perf_counter()
            there = exact_topk(few, source, matcher, K, device="cpu")
            row["the CPU's ms for 8"] = 1e3 * (time.perf_counter() - begin)
            here = exact_topk(few, source, matcher, K, device=device)
            row["right"] = same(here, there)
        table.append(row)
    return table


def same(here: TopK, there: TopK) -> bool:
    """Whether two searches gave the same rows in the same order, at the same distances."""
    return all(
        np.array_equal(p, q) and np.array_equal(d, e)
        for p, q, d, e in zip(here.positions, there.positions, here.distances, there.distances, strict=True)
    )


def faiss(device: torch.device, options: argparse.Namespace) -> list[Row]:
    """Search one slot by FAISS on the device, beside torch in the same process."""
    rows = min(options.rows)
    vectors = torch.nn.functional.normalize(drawn(rows, device, 1).embeddings[0].float()).numpy()
    query = torch.nn.functional.normalize(drawn(MANY, device, 2).embeddings[0].float()).numpy()
    on_device, asked = torch.from_numpy(vectors).to(device), torch.from_numpy(query).to(device)
    truth = (asked @ on_device.T).topk(min(10, rows), dim=1).indices.cpu().numpy()
    table = []
    lists = 4096 if rows >= 200_000 else max(1, rows // 100)
    with tempfile.TemporaryDirectory() as folder:
        for factory in ("Flat", f"IVF{lists},SQfp16"):
            made = FaissIndex(WIDTH, metric="inner_product", factory=factory)
            made.train(vectors[:: max(1, rows // (40 * lists))])
            made.add(vectors, np.arange(rows))
            made.save(Path(folder) / factory)
            for name in devices_of(device):
                index = FaissIndex.load(Path(folder) / factory, mmap=False, device=name)
                effort = None if index.exact else min(lists, 64)
                found = index.search(query, 10, effort=effort)[1]
                recall = np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found, truth, strict=True)])
                table.append(
                    {
                        "what": f"faiss {factory}, {rows:,} rows, {name}",
                        f"{MANY} queries ms": median_ms(lambda: index.search(query, 10, effort=effort), device),  # noqa: B023
                        "recall at 10": float(recall),
                        "right": bool(recall >= (0.999 if index.exact else 0.9)),
                    }
                )
    if len(devices_of(device)) == 1:
        table.append({"what": "faiss over several GPUs", "result": "not tried: there is one device"})
    return table


def devices_of(device: torch.device) -> list[str]:
    """The device, and all of its kind where there are several."""
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    return [str(device)] + (["cuda:" + ",".join(map(str, range(count)))] if count > 1 else [])


def embedding(device: torch.device, options: argparse.Namespace) -> list[Row]:
    """Embed random images in both precisions."""
    table = []
    for name in SYSTEMS:
        torch.manual_seed(0)
        model = build_model(name, pretrained=False).to(device, memory_format=torch.channels_last)
        size = (options.images, 3, model.preprocess.height, model.preprocess.width)
        images = torch.rand(size, device=device).contiguous(memory_format=torch.channels_last)

        def in_bfloat16() -> PartEmbeddings:
            with torch.autocast(device.type, torch.bfloat16):
                return model.embed(images)  # noqa: B023

        whole, half = model.embed(images), in_bfloat16()
        apart = [
            torch.nn.functional.cosine_similarity(a.float(), b.float()).min().item()
            for a, b in zip(whole.embeddings, half.embeddings, strict=True)
        ]
        table.append(
            {
                "what": f"embedding, {name}",
                "float32 images/s": 1e3 * len(images) / median_ms(lambda: model.embed(images), device),  # noqa: B023
                "bfloat16 images/s": 1e3 * len(images) / median_ms(in_bfloat16, device),
                "least cosine between them": min(apart),
            }
        )
    return table


def training(_: torch.device, options: argparse.Namespace) -> list[Row]:
    """Train two short epochs in both precisions, on the device that Accelerate finds; the second one counts."""
    from occluded_reid.training import train

    table = []
    with tempfile.TemporaryDirectory() as folder:
        data = load_dataset("synthetic", Path(folder) / "set", train_identities=max(8, options.images // 8))
        for name in SYSTEMS[::2]:
            row: Row = {"what": f"training, {name}"}
            for precision in ("no", "bf16"):
                result = train(
                    load(name, precision), data, Path(folder) / f"{name}_{precision}", pretrained=False, show=False
                )
                row[f"{'float32' if precision == 'no' else 'bf16'} images/s"] = result.history[-1].images_per_second
                row[f"loss {precision}"] = result.history[-1].losses["total"]
            table.append(row)
    return table


def load(name: str, precision: str) -> Any:
    """A recipe for two epochs."""
    from occluded_reid.config import load_recipe

    return load_recipe(
        name, {"optim.epochs": 2, "optim.precision": precision, "optim.warmup_epochs": 0, "optim.steps": {}}
    )


PARTS: dict[str, tuple[Callable[[torch.device, argparse.Namespace], list[Row]], float]] = {
    "tests": (tests, 0.25),
    "exact": (exact, 0.35),
    "faiss": (faiss, 0.2),
    "embedding": (embedding, 0.2),
    "training": (training, 0.3),
}
"""Each part and the largest share of the time that it may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--images", type=int, default=256, help="images of a batch that is embedded")
    parser.add_argument("--seconds", type=float, default=460, help="for all parts together")
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="only this part (may be repeated)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=sorted(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here; --device cpu --rows 2000 --images 8 tries the script itself")
        return 2
    if options.only:
        print(json.dumps(PARTS[options.only][0](device, options)))
        return 0
    print(f"torch {torch.__version__}, {describe_device(device)}")
    begin, table = time.monotonic(), []
    for name in options.part or PARTS:
        left = options.seconds - (time.monotonic() - begin)
        table += measured(name, min(left, PARTS[name][1] * options.seconds), options)
        for row in table[-1:]:
            print(line(row), flush=True)
    print("\n".join(["", *map(line, table), f"{time.monotonic() - begin:.0f} s"]))
    if options.json is not None:
        options.json.write_text(json.dumps({"device": describe_device(device), "table": table}, indent=2) + "\n")
    return int(any(row.get("right") is False for row in table))


def measured(name: str, limit: float, options: argparse.Namespace) -> list[Row]:
    """Run a part in a process of its own; what went wrong is a row too."""
    if limit < 5:
        return [{"what": name, "result": "no time was left", "right": False}]
    command = [sys.executable, __file__, "--only", name, "--device", options.device, "--images", str(options.images)]
    command += ["--seconds", str(limit), "--rows", *map(str, options.rows)]
    begin = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return [{"what": name, "result": f"took more than {limit:.0f} s", "right": False}]
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return [{"what": name, "result": f"failed: {said}", "right": False}]
    rows: list[Row] = json.loads(done.stdout.strip().splitlines()[-1])
    return [{**row, "s": round(time.monotonic() - begin)} for row in rows]


def line(row: Row) -> str:
    """A row as one line of text."""
    shown = {key: f"{value:,.4g}" if isinstance(value, float) else value for key, value in row.items() if key != "what"}
    return f"{row['what']}: " + ", ".join(f"{key} {value}" for key, value in shown.items())


if __name__ == "__main__":
    sys.exit(main())
