"""How fast images become embeddings: the network as it is, what `embed` makes of it, other engines, files, one crop.

    python benchmarks/embedding.py                                    # sorn_lite, images a second, one thread and two
    python benchmarks/embedding.py --model bot_lite --backbone tf_efficientnet_lite0 --turns 5
    python benchmarks/embedding.py --part latency --rows 100000       # one crop: embedded, and searched for

Everything takes turns in one process, and medians are given; weights are random. ONNX Runtime and OpenVINO run the
whole model as `ReIDModel.export` writes it, in float32. Images are drawn: JPEG files of 64×128, as a tracker's crops.
What is made once (files, exported networks, the gallery of the latencies) is kept in --folder and used again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import take_turns
from PIL import Image
from torch import Tensor, nn

from occluded_reid import Gallery, PartEmbeddings, ReIDModel, build_model
from occluded_reid.models.embedding import embed_images
from occluded_reid.models.precision import PRECISIONS, has_precision

BATCH = 64
SIZE = (64, 128)  # of the files, width and height
SEARCHES = 100
# Of these, all in float32, `embed` is to be as fast as the fastest.
BARE = ("the network as it is", "channels last", "embed, engine='torch'", "onnxruntime, float32", "openvino, float32")

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("speed", "latency"), default="speed")
    parser.add_argument("--model", default="sorn_lite", help="name of a recipe")
    parser.add_argument("--backbone", help="another backbone than the recipe's")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000, help="images of the gallery that is searched")
    parser.add_argument("--factory", help="also search by this index, such as IVF1024,SQfp16")
    parser.add_argument("--folder", type=Path, default=Path("bench"))
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model = make_model(arguments.model, arguments.backbone)
    files = draw_files(arguments.folder / "crops", max(arguments.images, SEARCHES))
    figures: Figures = {"model": model.describe().splitlines()[0]}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        if arguments.part == "speed":
            exported = export(model, arguments.folder)
            found = speeds(model, files[: arguments.images], exported, arguments.folder, arguments.turns)
            print(speed_table(found, threads), flush=True)
        else:
            found = latencies(model, files[:SEARCHES], arguments.rows, arguments.folder, arguments.factory)
            print(latency_table(found, threads), flush=True)
        figures[f"{threads} threads"] = found
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def make_model(name: str, backbone: str | None) -> ReIDModel:
    """A model of random weights whose normalisations have statistics, as a trained one's have."""
    torch.manual_seed(0)
    model = build_model(name, backbone=backbone, pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def draw_files(folder: Path, count: int) -> list[Path]:
    """JPEG files with as much detail as a crop has."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number:05}.jpg" for number in range(count)]
    draw = np.random.default_rng(0)
    for file in files:
        coarse = Image.fromarray(draw.integers(0, 256, (32, 16, 3), dtype=np.uint8))
        if not file.exists():
            coarse.resize(SIZE, Image.Resampling.BICUBIC).save(file, quality=90)
    return files


def export(model: ReIDModel, folder: Path) -> Path:
    file = folder / f"{model.fingerprint}.onnx"
    return file if file.exists() else model.export(file)


def speeds(model: ReIDModel, files: list[Path], exported: Path, folder: Path, turns: int) -> Figures:
    """Images a second by name, medians of the turns, and the largest difference from the network as it is."""
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    images = model.preprocess(arrays)
    batches = images.split(BATCH)
    last = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
    network, auto = model, deepcopy(model)
    channels = deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folded = deepcopy(model).embed_with(engine="torch")
    numbers = iter(range(1_000_000))

    def index() -> None:
        with Gallery.create(folder / f"index-{time.time_ns()}-{next(numbers)}", model=auto, device="cpu") as gallery:
            gallery.add(files)

    works: dict[str, Callable[[], Any]] = {
        "the network as it is": lambda: cat([itself(network, batch) for batch in batches]),
        "channels last": lambda: cat([itself(channels, batch) for batch in last]),
        "embed, engine='torch'": lambda: cat([folded.embed(batch) for batch in batches]),
        **{f"{name}, float32": other_engine(name, exported, batches) for name in ("onnxruntime", "openvino")},
        "embed": lambda: cat([auto.embed(batch) for batch in batches]),
        "preprocess and embed arrays": lambda: cat(
            [auto.embed(auto.preprocess(arrays[start : start + BATCH])) for start in range(0, len(arrays), BATCH)]
        ),
        "embed files, read ahead": lambda: cat(list(embed_images(auto, files, [str(file) for file in files], BATCH))),
        "index files": index,
    }
    for precision in PRECISIONS:
        if precision != "float32" and has_precision(precision):
            lower = deepcopy(model).embed_with(precision=precision)  # type: ignore[arg-type]
            works[f"embed, {precision}"] = lambda lower=lower: cat([lower.embed(batch) for batch in batches])
    wanted, differences = works["the network as it is"](), {}
    for name, work in works.items():
        given = work()  # where an engine is made ready for it, that is done here
        if given is not None:
            differences[name] = difference(given, wanted)
    times = take_turns(list(works.values()), turns)
    return {
        name: {
            "images a second": len(files) / statistics.median(taken),
            "turns": [len(files) / seconds for seconds in taken],
            "difference": differences.get(name),
        }
        for name, taken in zip(works, times, strict=True)
    }


def itself(model: ReIDModel, batch: Tensor) -> PartEmbeddings:
    return model.collect(model.infer(batch))


def cat(rows: list[PartEmbeddings]) -> PartEmbeddings:
    return PartEmbeddings.cat(rows)


def other_engine(name: str, exported: Path, batches: tuple[Tensor, ...]) -> Callable[[], Any]:
    """All batches through the exported file, as somebody without this library would run it."""
    arrays = [batch.numpy() for batch in batches]
    engine = importlib.import_module(name)
    if name == "onnxruntime":
        options = engine.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        session = engine.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
        return lambda: [session.run(None, {"images": array}) for array in arrays]
    core = engine.Core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(exported), "CPU", settings)
    return lambda: [list(compiled(array).values()) for array in arrays]


def difference(given: Any, wanted: PartEmbeddings) -> float:
    """Largest difference of an embedding, relative to the largest number of its slot."""
    if isinstance(given, PartEmbeddings):
        slots: list[Any] = list(given.embeddings)
    else:
        slots = [torch.from_numpy(np.concatenate(rows)) for rows in zip(*given, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(slots, wanted.embeddings, strict=False))


def speed_table(found: Figures, threads: int) -> str:
    fastest = max(found[name]["images a second"] for name in BARE)
    embed = found["embed"]["images a second"]
    lines = [
        f"| {threads} thread(s) | images a second | of the fastest | of embed | difference |",
        "|---|---|---|---|---|",
    ]
    for name, figures in found.items():
        speed, off = figures["images a second"], figures["difference"]
        shown = "" if off is None else f"{off:.1e}"
        lines.append(f"| {name} | {speed:.1f} | {speed / fastest:.2f} | {speed / embed:.2f} | {shown} |")
    return "\n".join(lines)


def latencies(model: ReIDModel, files: list[Path], rows: int, folder: Path, factory: str | None) -> Figures:
    """Milliseconds for one crop in a file: embedded, and searched for among the rows; p50 and p95."""
    place = folder / f"rows-{model.fingerprint}-{rows}"
    if not Gallery.exists(place):
        fill(place, model, rows)
    found: Figures = {}
    ready = deepcopy(model).embed_with(engine="auto")
    for _ in range(4):
        ready.embed(ready.preprocess(files[:BATCH]))
    with Gallery.open(place, model=ready, device="cpu") as gallery:
        if factory and gallery.info().index is None:
            gallery.build_index(factory)
        ways: dict[str, Callable[[Path], object]] = {
            "embed, as it is": lambda file: itself(model, model.preprocess(file)),
            "embed": lambda file: ready.embed(ready.preprocess(file)),
            f"embed and search {rows:,}, exactly": lambda file: gallery.search(file, 10),
        }
        if factory:
            ways[f"embed and search {rows:,}, by {factory}"] = lambda file: gallery.search(file, 10, effort=0.98)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for file in [files[0], *files]:  # the first prepares
            for name, way in ways.items():
                start = time.perf_counter()
                way(file)
                times[name].append(1e3 * (time.perf_counter() - start))
    for name, taken in times.items():
        found[name] = {f"p{share}": float(np.percentile(taken[1:], share)) for share in (50, 95)}
    return found


def fill(place: Path, model: ReIDModel, count: int) -> None:
    """A gallery of random rows, a fifth of whose slots but the first are hidden."""
    draw = torch.Generator().manual_seed(0)
    with Gallery.create(place, model=model, device="cpu") as gallery:
        for start in range(0, count, 8192):
            number = min(8192, count - start)
            slots = tuple(torch.randn(number, width, generator=draw) for width in model.slots.values())
            visible = (torch.rand(number, len(slots), generator=draw) > 0.2).float()
            visible[:, 0] = 1
            rows = PartEmbeddings(tuple(model.slots), slots, visible)
            gallery.add(rows, keys=[f"{start + n}" for n in range(number)])


def latency_table(found: Figures, threads: int) -> str:
    lines = [f"| {threads} thread(s) | p50, ms | p95, ms |", "|---|---|---|"]
    lines += [f"| {name} | {figures['p50']:.0f} | {figures['p95']:.0f} |" for name, figures in found.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
