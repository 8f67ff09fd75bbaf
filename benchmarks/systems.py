"""All systems on one data set: clean and with a share of each query's body occluded, by three kinds of occluders.

Trained models are read from `--runs` (folders that `occluded-reid train` has written). Every model answers the same
queries; an occlusion depends on the query and the seed alone, so rows compare in pairs. The cut-outs are those at
odd positions (the 2nd, 4th, …) of the folder, sorted by name; training may have used the others.

    python benchmarks/systems.py --data market1501 --masks masks --cutouts occluders --holdout 100 --output systems \\
        --runs runs/sorn_lite runs/bot_lite runs/bot_npo_lite --base bot_npo_lite
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from occluded_reid import load_dataset, load_model
from occluded_reid.data.occlusion.stock import open_occluders
from occluded_reid.evaluation.study import Study, study

KINDS = ("cut-outs", "generated", "pedestrians")


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
    measured: dict[str, dict[str, Study]] = {}
    costs: dict[str, dict[str, float]] = {}
    for run in options.runs:
        model = load_model(run / "model")
        costs[run.name] = cost(run, model)
        measured[run.name] = {
            kind: study(model, data, fractions=[options.share], occluders=stock, seeds=range(options.seeds))
            for kind, stock in stocks.items()
        }
        content: dict[str, Any] = {"cost": costs[run.name]}
        content |= {kind: found.to_dict() for kind, found in measured[run.name].items()}
        (options.output / f"{run.name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        print(f"{run.name}: measured", flush=True)
    print(next(iter(next(iter(measured.values())).values())).card())
    print(results_table(measured, costs, options.share))
    if options.base:
        print(differences_table(measured, options.base, options.share))


def cost(run: Path, model: Any) -> dict[str, float]:
    """Seconds of training, parameters of the model as it is used, numbers an embedding holds."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "seconds": sum(json.loads(line)["seconds"] for line in lines),
        "parameters": sum(value.numel() for value in model.inference_state().values()),
        "embedding": sum(model.slots.values()),
    }


def results_table(measured: dict[str, dict[str, Study]], costs: dict[str, dict[str, float]], share: float) -> str:
    """Rank-1 / mAP in per cent with 95 % intervals, and what each system costs."""
    heads = ["system", "clean", *(f"{share:.0%} {kind}" for kind in KINDS), "training", "parameters", "embedding"]
    lines = [heads, ["---"] * len(heads)]
    for name, studies in measured.items():
        cells = [cell(studies[KINDS[0]], 0.0), *(cell(studies[kind], share) for kind in KINDS)]
        spent = costs[name]
        last = [f"{spent['seconds']:,.0f} s", f"{spent['parameters'] / 1e6:.2f} M", f"{spent['embedding']:,.0f}"]
        lines.append([name, *cells, *last])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(found: Study, fraction: float) -> str:
    """``90.4 [87.3, 92.9] / 82.5 [80.2, 84.8]``."""
    condition = found.get("own", fraction)
    shown = []
    for name in found.headline:
        interval = condition.intervals[name]
        shown.append(f"{100 * condition.metrics[name]:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]")
    return " / ".join(shown)


def differences_table(measured: dict[str, dict[str, Study]], base: str, share: float) -> str:
    """Paired differences to `base` in points of Rank-1 and mAP."""
    lines = [[f"minus {base}", "clean", *KINDS], ["---"] * (2 + len(KINDS))]
    for name, studies in measured.items():
        if name == base:
            continue
        cells = []
        for kind, fraction in [(KINDS[0], 0.0), *((kind, share) for kind in KINDS)]:
            found = studies[kind].get("own", fraction).minus(measured[base][kind].get("own", fraction))
            cells.append(", ".join(str(found[metric]) for metric in studies[kind].headline))
        lines.append([name, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
