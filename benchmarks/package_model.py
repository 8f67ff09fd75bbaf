"""Turn a trained model into one that comes with the library: rounded to float16, calibrated, described, sealed.

    python benchmarks/package_model.py runs/oreid/model --data market1501 --holdout 100 --masks masks \\
        --occlusion 0 --occlusion 0.35 --trained-on "Market-1501 (651 people of the training split)" \\
        --distilled-from "person-reidentification-retail-0286 (Open Model Zoo, Apache-2.0)" \\
        --command "occluded-reid train oreid_lite --data DATA --seed 0" --seeds "0" --output occluded_reid/weights

The calibration is made on the people whom `--holdout` or `--validation` keeps out of training, never on others: whoever
was trained on is found by the model's own record, and refused. Numbers of the card are those of report files that
`occluded-reid evaluate MODEL --save FOLDER` has written *of the packaged model*: run this once without `--report`,
evaluate the folder, and run it again with the same arguments and `--report NAME=FILE`. That changes no weight.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from occluded_reid import (
    Calibration,
    EmbeddedSet,
    PartEmbeddings,
    ReIDData,
    ReIDModel,
    Report,
    load_dataset,
    load_model,
)
from occluded_reid.calibration.calibration import CALIBRATION_FILE
from occluded_reid.cli.calibrate import people_among
from occluded_reid.config import PACKAGED, is_packaged
from occluded_reid.data.occlusion import Occluders
from occluded_reid.evaluation import Protocol
from occluded_reid.evaluation.embed import Occlusion, embed_samples
from occluded_reid.evaluation.leakage import require_apart
from occluded_reid.files import is_file
from occluded_reid.models.packaged import round_to_half, write_packaged

CARD = "README.md"
LARGEST = 12_000_000  # bytes of the folder


def main() -> None:
    """Package a model, and say how large it is and what rounding has changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the trained model, as `train` has written it")
    parser.add_argument("--data", type=Path, required=True, help="data set whose held-out people it is calibrated on")
    parser.add_argument("--dataset", default="market1501")
    parser.add_argument("--masks", type=Path, help="part masks of these people, for --occlusion")
    parser.add_argument("--holdout", type=int, default=0)
    parser.add_argument("--validation", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the hold-out and of the occlusion")
    parser.add_argument("--occlusion", type=float, action="append", help="share of the queries' bodies (repeatable)")
    parser.add_argument("--false-match-rate", type=float, default=0.01, help="of comparisons of two people")
    parser.add_argument("--trained-on", required=True, help="the data in words, for the card")
    parser.add_argument("--distilled-from", required=True, help="the teacher and its licence in words, or 'nobody'")
    parser.add_argument("--command", required=True, help="what trained it, without a path of this machine")
    parser.add_argument("--seeds", required=True, help="that were trained, and which of them this is")
    parser.add_argument("--report", action="append", default=[], metavar="NAME=FILE", help="numbers for the card")
    parser.add_argument("--output", type=Path, required=True, help="gets the folder MODEL_NAME, which is replaced")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    package(options)


def package(options: argparse.Namespace) -> Path:
    """Do it; return the folder."""
    model = load_model(options.model)
    if not is_packaged(model.name):
        raise SystemExit(f"the model is called '{model.name}'; the library ships {', '.join(PACKAGED)}.")
    data = load_dataset(
        options.dataset,
        options.data,
        masks=options.masks,
        holdout=options.holdout,
        validation=options.validation,
        seed=options.seed,
    )
    require_strangers(model, data)
    exact = embed_samples(model, data, data.query).embeddings
    model = round_to_half(model)
    rounding = farthest(exact, embed_samples(model, data, data.query).embeddings)
    shares = options.occlusion or [0.0]
    calibration = calibrate(model, data, shares, options.seed, options.false_match_rate)
    reports = {name: report_of(model, file) for name, file in map(named, options.report)}
    folder = Path(options.output) / model.name
    card = describe(model, options, calibration, rounding, reports)
    text = json.dumps(calibration.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_packaged(model, folder, {CALIBRATION_FILE: text, CARD: card})
    size = sum(file.stat().st_size for file in folder.iterdir() if is_file(file))
    if size > LARGEST:
        raise SystemExit(f"the folder has {size / 1e6:.1f} MB; the wheel takes {LARGEST / 1e6:.0f} MB at most.")
    again = load_model(folder)
    if again.fingerprint != model.fingerprint:
        raise SystemExit(f"what was written loads as {again.fingerprint}, not as {model.fingerprint}.")
    print(
        f"{folder}: {model.fingerprint}, {size / 1e6:.2f} MB; rounding moves a slot by {rounding:.1e} at most (cosine)"
    )
    print(calibration.promise)
    return folder


def require_strangers(model: ReIDModel, data: ReIDData) -> None:
    """Refuse people whom the model was trained on, or of whom nobody can tell."""
    require_apart(data)
    people = {*data.identities("query"), *data.identities("gallery")} - data.distractors
    if model.trained_on is None:
        raise SystemExit("the model has no record of whom it was trained on; train it with the command line.")
    if not people:
        raise SystemExit(
            "there are no queries to calibrate with; keep people out of training: --holdout, --validation."
        )
    if again := model.trained_on.among(data.name, people):
        raise SystemExit(f"{len(again)} of these {len(people)} people, such as '{again[0]}', were trained on.")


def calibrate(model: ReIDModel, data: ReIDData, shares: list[float], seed: int, rate: float) -> Calibration:
    """Calibrate on the queries as they are and with shares of their bodies occluded, all against the gallery."""
    gallery = embed_samples(model, data, data.gallery)
    sides = []
    for share in shares:
        hide = Occlusion(share, Occluders.generated(seed), seed) if share else None
        sides.append(embed_samples(model, data, data.query, occlusion=hide))
    query = EmbeddedSet(
        PartEmbeddings.cat([side.embeddings for side in sides]),
        np.concatenate([side.identity for side in sides]),
        np.concatenate([side.camera for side in sides]),
        tuple(path for side in sides for path in side.paths),
    )
    shown = ", ".join(f"{share:.0%}" if share else "nothing" for share in shares)
    return Calibration.fit(
        query,
        gallery,
        model.matcher,
        false_match_rate=rate,
        per="comparison",
        exclude_same_camera=Protocol.of(data).exclude_same_camera,
        fingerprint=model.fingerprint,
        data=data.name,
        people=people_among(data, query, gallery),
        part=f"{data.part}; of each query's body occluded: {shown}; seed {seed}",
    )


def farthest(exact: PartEmbeddings, rounded: PartEmbeddings) -> float:
    """The largest cosine distance that a slot of an image has moved by."""
    moved = [
        1 - torch.cosine_similarity(a.double(), b.double()).min()
        for a, b in zip(exact.embeddings, rounded.embeddings, strict=True)
    ]
    return float(max(moved))


def named(text: str) -> tuple[str, Path]:
    """NAME=FILE as a pair."""
    name, separator, file = text.partition("=")
    if not separator or not name or not file:
        raise SystemExit(f"--report is '{text}'; give NAME=FILE.")
    return name, Path(file)


def report_of(model: ReIDModel, file: Path) -> Report:
    """A report, if it is of this model as it is packaged."""
    report = Report.from_json(file)
    if report.card.fingerprint != model.fingerprint:
        raise SystemExit(f"'{file}' is of {report.card.fingerprint}; what is packaged is {model.fingerprint}.")
    return report


def describe(
    model: ReIDModel,
    options: argparse.Namespace,
    calibration: Calibration,
    rounding: float,
    reports: dict[str, Report],
) -> str:
    """The model card."""
    config, slots = model.recipe.model.input, ", ".join(f"{name} ({width})" for name, width in model.slots.items())
    parameters = sum(value.numel() for value in model.inference_state().values() if value.is_floating_point())
    lines = [
        f"# {model.name}",
        "",
        f"`{model.fingerprint}`: {parameters / 1e6:.2f} million numbers, stored as float16 and used as float32. "
        f"Rounding moved no slot by more than {rounding:.1e} (cosine distance).",
        "",
        f"**Terms.** Research use: trained on {options.trained_on}; distilled from {options.distilled_from}. The "
        "people in such data have not been asked. Read `docs/responsible-use.md` before you point this at a camera.",
        "",
        f"**Input.** RGB, {config.height}×{config.width}, {config.resample}, mean {list(config.mean)}, deviation "
        f"{list(config.std)}.",
        "",
        f"**Output.** Slots {slots}; visibility judged of {', '.join(model.judged) or 'none'}; matched by "
        f"`{model.matcher.config['type']}`.",
        "",
        f"**Training.** `{options.command}`; seeds: {options.seeds}. The recipe is in `model.json`.",
        "",
        f"**Calibration.** {len(calibration.people)} people of {calibration.data} whom it was not trained on "
        f"({calibration.part}): {calibration.promise}. Prior {calibration.prior}.",
        "",
        "**Numbers**" + ("" if reports else ": none measured yet") + ".",
    ]
    for name, report in reports.items():
        cells = [
            f"{metric} {100 * value:.1f}"
            + (f" [{100 * found.low:.1f}, {100 * found.high:.1f}]" if (found := report.intervals.get(metric)) else "")
            for metric, value in report.metrics.items()
        ]
        facts = "; ".join(f"{fact}: {text}" for fact, text in report.facts.items() if fact not in ("model", "slots"))
        lines += ["", f"- {name}: {', '.join(cells)}. Protocol: {facts}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
