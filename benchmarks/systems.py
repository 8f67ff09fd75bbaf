"""All systems on one data set: clean and with a share of each query's body occluded, by three kinds of occluders.

Trained models are read from `--runs` (folders that `occluded-reid train` has written). Every model answers the same
queries; an occlusion depends on the query and the seed alone, so rows compare in pairs. The cut-outs are those at odd
positions (the 2nd, 4th, …) of the folder, sorted by name; training may have used the others. A run that was measured
before, with the same weights and seeds, is read from `--output` instead of being measured again.

    python benchmarks/systems.py --data market1501 --masks masks --cutouts occluders --holdout 100 --output systems \\
        --runs runs/sorn_lite runs/bot_lite runs/bot_npo_lite --base bot_npo_lite
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from occluded_reid import ReIDData, ReIDModel, load_dataset, load_model
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.occlusion.stock import open_occluders
from occluded_reid.evaluation.bootstrap import bootstrap_means, interval_of
from occluded_reid.evaluation.studies.study import study

KINDS = ("cut-outs", "generated", "pedestrians")
METRICS = ("Rank-1", "mAP")
RESAMPLES, CONFIDENCE = 1000, 0.95

Measured = dict[str, Any]


def main() -> None:
    """Measure each run, write JSON, print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--cutouts", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for one JSON file a run")
    parser.add_argument("--base", help="name of the run that the others are compared with in pairs")
    parser.add_argument("--holdout", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.35)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    data = load_dataset("market1501", options.data, masks=options.masks, holdout=options.holdout, seed=0)
    stocks = {
        "cut-outs": open_occluders(options.cutouts, take="odd"),
        "generated": open_occluders("generated"),
        "pedestrians": open_occluders("pedestrians", people=data.gallery),
    }
    measured: dict[str, Measured] = {}
    for run in options.runs:
        model, place = load_model(run / "model"), options.output / f"{run.name}.json"
        key = {"model": model.fingerprint, "share": options.share, "seeds": options.seeds}
        known = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
        if known.get("key") != key:
            known = {"key": key, **measure(model, data, stocks, options.share, options.seeds), **cost(run, model)}
            place.write_text(json.dumps(known), encoding="utf-8")
        measured[run.name] = known
        print(f"{run.name}: measured", flush=True)
    print(next(iter(measured.values()))["card"])
    print(
        table(
            ["system", "clean", *(f"{options.share:.0%} {kind}" for kind in KINDS), "parameters", "embedding"],
            [result_row(name, found) for name, found in measured.items()],
        )
    )
    if options.base:
        base = measured[options.base]
        rows = [[name, *(difference(found, base, at) for at in ("clean", *KINDS))] for name, found in measured.items()]
        print(table([f"minus {options.base}", "clean", *KINDS], [row for row in rows if row[0] != options.base]))


def measure(model: ReIDModel, data: ReIDData, stocks: dict[str, Occluders], share: float, seeds: int) -> Measured:
    """Rank-1 and AP of every query, clean and occluded; those of an occluded query are means over the seeds."""
    values: dict[str, list[list[float]]] = {}
    card = ""
    for kind, stock in stocks.items():
        found = study(model, data, fractions=[share], occluders=stock, seeds=range(seeds))
        columns = [list(found.get("own").metrics).index(name) for name in METRICS]
        values["clean"] = found.get("own").values()[:, columns].tolist()
        values[kind] = found.get("own", share).values()[:, columns].tolist()
        card = card or found.card()
    return {"values": values, "card": card}


def cost(run: Path, model: ReIDModel) -> Measured:
    """Seconds of training, parameters of the model as it is used, numbers that an embedding holds."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "seconds": sum(json.loads(line)["seconds"] for line in lines),
        "parameters": sum(value.numel() for value in model.inference_state().values()),
        "embedding": sum(model.slots.values()),
    }


def result_row(name: str, found: Measured) -> list[str]:
    """Rank-1 / mAP in per cent with 95 % intervals, and what the system costs."""
    cells = []
    for at in ("clean", *KINDS):
        rows = 100 * np.asarray(found["values"][at])
        means = bootstrap_means(rows, RESAMPLES, seed=0)
        bounds = [interval_of(means[:, i], CONFIDENCE) for i in range(len(METRICS))]
        cells.append(
            " / ".join(f"{m:.1f} [{b.low:.1f}, {b.high:.1f}]" for m, b in zip(rows.mean(0), bounds, strict=True))
        )
    return [name, *cells, f"{found['parameters'] / 1e6:.2f} M", f"{found['embedding']:,}"]


def difference(found: Measured, base: Measured, at: str) -> str:
    """Paired difference in points of Rank-1 and mAP; bold where the interval leaves 0 out."""
    rows = 100 * (np.asarray(found["values"][at]) - np.asarray(base["values"][at]))
    means = bootstrap_means(rows, RESAMPLES, seed=0)
    shown = []
    for i, mean in enumerate(rows.mean(0)):
        bound = interval_of(means[:, i], CONFIDENCE)
        text = f"{mean:+.1f} [{bound.low:+.1f}, {bound.high:+.1f}]"
        shown.append(f"**{text}**" if bound.low > 0 or bound.high < 0 else text)
    return " / ".join(shown)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    main()
