"""Crops in which something real hides part of the person, as queries: Rank-1 and mAP, and paired differences of models.

The lists in `benchmarks/natural/` name such crops of people set aside of Market-1501's training part; README.md there
says how they were picked. Each is asked for in the gallery of its split by the usual rule, so that images of its own
person and camera, itself among them, are left out. Beside them stand the other queries of the same people. Models are
whatever `load_model` takes; intervals draw people, since crops of one person are alike.

    python benchmarks/natural.py --data market1501 --model runs/fed_lite/model --model 0288=retail-0288.xml --base 0288
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from occluded_reid import Protocol, ReIDData, ReIDModel, Report, evaluate, load_dataset, load_model
from occluded_reid.data.lists import list_lines
from occluded_reid.errors import DataError, EvaluationError
from occluded_reid.evaluation import Difference, embed_samples
from occluded_reid.evaluation.bootstrap import PeopleResampling

LISTS = Path(__file__).with_suffix("")
HOLDOUT = 100
VALIDATION = {"holdout": 0, "validation": 60}
METRICS = ("Rank-1", "mAP")
COLUMNS = {
    "name": None,
    "kind": ("occluded", "truncated"),
    "what": ("upper", "lower", "side", "middle"),
    "hidden": ("fifth", "tenth"),
}
GROUPS = ("all", "fifth", "tenth", "occluded", "truncated")
OTHERS = "others"


@dataclass(frozen=True)
class Crop:
    """A crop that was picked: its name in the data set, by what and where it is hidden, and how much of it."""

    name: str
    kind: str
    what: str
    hidden: str

    @property
    def groups(self) -> tuple[str, ...]:
        """What it is counted among."""
        return ("all", self.hidden, self.kind)


def read_crops(path: Path) -> list[Crop]:
    """Read a list of picked crops.

    Raises:
        DataError: the file cannot be read, has other columns or values, or names a crop twice.
    """
    (_, header), *lines = list_lines(path)
    wanted = ",".join(COLUMNS)
    if header != wanted:
        raise DataError(f"'{path}' begins with '{header}'; wanted the columns '{wanted}'. Take the list again.")
    crops: dict[str, Crop] = {}
    for number, line in lines:
        cells = line.split(",")
        allowed = len(cells) == len(COLUMNS) and all(
            values is None or cell in values for cell, values in zip(cells, COLUMNS.values(), strict=True)
        )
        if not allowed:
            rules = "; ".join(f"{column}: {', '.join(values)}" for column, values in COLUMNS.items() if values)
            raise DataError(f"line {number} of '{path}' is '{line}'; wanted '{wanted}' with {rules}.")
        if cells[0] in crops:
            raise DataError(f"line {number} of '{path}' names '{cells[0]}' again. Remove one of them.")
        crops[cells[0]] = Crop(*cells)
    if not crops:
        raise DataError(f"'{path}' names no crop; wanted one in each line below the columns. Take the list again.")
    return list(crops.values())


@dataclass(frozen=True)
class Questions:
    """Queries of a split, and what each of them is counted among.

    Attributes:
        names: the picked crops, then the other queries of their people.
        groups: for each name.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]


def questions(data: ReIDData, crops: Sequence[Crop]) -> Questions:
    """Take picked crops as queries, and the other queries of the same people.

    Raises:
        DataError: a crop is of nobody who is set aside; they are counted and the first is named.
    """
    person = {sample.name: sample.person for sample in (*data.query, *data.gallery)}
    if missing := [crop.name for crop in crops if crop.name not in person]:
        raise DataError(
            f"{len(missing)} of {len(crops)} crops, such as '{missing[0]}', are neither in the queries nor in the "
            f"gallery of '{data.name}' ({data.part}). The lists belong to 8,667 crops of 558 people of Market-1501's "
            "training part; with other people in the folder, others are set aside. Give that part, or your own list."
        )
    picked = {crop.name for crop in crops}
    people = {person[name] for name in picked}
    others = [s.name for s in data.query if s.person in people and s.name not in picked]
    return Questions(
        (*(crop.name for crop in crops), *others), (*(crop.groups for crop in crops), *((OTHERS,) for _ in others))
    )


@dataclass(frozen=True)
class Measured:
    """One model's numbers.

    Attributes:
        report: over all questions.
        person: (n,) whom each answerable question asks for.
        values: (n, 2) its Rank-1 and average precision.
        groups: (n,) what it is counted among.
    """

    report: Report
    person: np.ndarray
    values: np.ndarray
    groups: tuple[tuple[str, ...], ...]

    def rows(self, group: str) -> np.ndarray:
        """(n,) bool: which questions are of a group."""
        return np.array([group in groups for groups in self.groups], dtype=bool)


def measure(model: ReIDModel, data: ReIDData, asked: Questions) -> Measured:
    """Ask for each question in the gallery of the split; every image is embedded once."""
    gallery = embed_samples(model, data, data.gallery)
    samples = {sample.name: sample for sample in (*data.gallery, *data.query)}
    query = embed_samples(model, data, [samples[name] for name in asked.names])
    protocol = Protocol.of(data, ranks=(1,), bootstrap=0)
    report = evaluate(query, gallery, model.matcher, protocol, fingerprint=model.fingerprint)
    kept = np.flatnonzero(report.answerable)
    columns = [list(report.metrics).index(name) for name in METRICS]
    return Measured(
        report, query.identity[kept], report.query_values[:, columns], tuple(asked.groups[row] for row in kept)
    )


def means(values: np.ndarray, person: np.ndarray, resampling: PeopleResampling) -> list[Difference]:
    """Mean of each column of (n, K), with its interval over people."""
    drawn = np.concatenate(
        [np.einsum("bn,nk->bk", w.astype(np.float64), values) / w.sum(1)[:, None] for w in resampling.weights(person)]
    )
    return [
        Difference(float(mean), resampling.interval(column))
        for mean, column in zip(values.mean(0), drawn.T, strict=True)
    ]


def numbers(found: Measured, group: str, resampling: PeopleResampling) -> list[Difference]:
    """Rank-1 and mAP of a group of questions."""
    rows = found.rows(group)
    return means(found.values[rows], found.person[rows], resampling)


def differences(found: Measured, base: Measured, group: str, resampling: PeopleResampling) -> list[Difference]:
    """Rank-1 and mAP minus those of another model, paired by question.

    Raises:
        EvaluationError: the two were asked other questions.
    """
    found.report.require_same(base.report)
    rows = found.rows(group)
    return means((found.values - base.values)[rows], found.person[rows], resampling)


def cell(values: Sequence[Difference], sign: str = "") -> str:
    """Per cent or points with intervals; a difference is bold where its interval leaves 0 out."""
    shown = []
    for value in values:
        low, high = 100 * value.interval.low, 100 * value.interval.high
        text = f"{100 * value.value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
        shown.append(f"**{text}**" if sign and value.clear else text)
    return " / ".join(shown)


def tables(measured: Mapping[str, Measured], base: str, resampling: PeopleResampling) -> str:
    """Return Rank-1 / mAP of each model and, for more than one, their differences to the base, in Markdown."""
    first = measured[base]
    groups = [group for group in (*GROUPS, OTHERS) if first.rows(group).any()]
    head = []
    for group in groups:
        rows = first.rows(group)
        head.append(f"{group} ({rows.sum()} of {len(np.unique(first.person[rows]))} people)")
    lines = [["Rank-1 / mAP", *head], ["---"] * (len(groups) + 1)]
    lines += [[name, *(cell(numbers(f, group, resampling)) for group in groups)] for name, f in measured.items()]
    for name, found in measured.items():
        if name != base:
            cells = (cell(differences(found, first, group, resampling), "+") for group in groups)
            lines.append([f"{name} minus {base}", *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_json(measured: Mapping[str, Measured], base: str, resampling: PeopleResampling) -> str:
    """Return the numbers of the table, for files."""

    def listed(values: Sequence[Difference]) -> dict[str, list[float]]:
        return {m: [v.value, v.interval.low, v.interval.high] for m, v in zip(METRICS, values, strict=True)}

    first = measured[base]
    groups = [group for group in (*GROUPS, OTHERS) if first.rows(group).any()]
    content = {
        name: {
            "fingerprint": found.report.card.fingerprint,
            **{group: listed(numbers(found, group, resampling)) for group in groups},
            **(
                {f"minus {base}": {group: listed(differences(found, first, group, resampling)) for group in groups}}
                if name != base
                else {}
            ),
        }
        for name, found in measured.items()
    }
    counts = {group: int(first.rows(group).sum()) for group in groups}
    return json.dumps({"queries": counts, "intervals": str(resampling), "models": content}, indent=2)


def named(text: str) -> tuple[str, Path]:
    """Split NAME=PATH; a path alone is named after its file, or after the run whose model it is."""
    name, _, path = text.rpartition("=")
    place = Path(path)
    return name or (place.parent.name if place.name == "model" else place.stem), place


def main() -> None:
    """Measure each model and print the tables with the protocol below them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Market-1501's training part")
    parser.add_argument("--model", action="append", required=True, help="NAME=PATH or PATH; repeatable")
    parser.add_argument("--split", choices=list(VALIDATION), default="holdout", help="choose by validation alone")
    parser.add_argument("--list", type=Path, help="another list of crops of that split")
    parser.add_argument("--base", help="name of the model that the others are compared with (default: the last)")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--output", type=Path, help="write the numbers as JSON, too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = dict(map(named, options.model))
    if len(models) < len(options.model):
        raise EvaluationError("two models have one name; give NAME=PATH with a name for each.")
    base = options.base or list(models)[-1]
    if base not in models:
        raise EvaluationError(f"no model is named '{base}'; there are: {', '.join(models)}.")
    resampling = PeopleResampling(resamples=options.resamples)
    data = load_dataset("market1501", options.data, holdout=HOLDOUT, validation=VALIDATION[options.split], seed=0)
    asked = questions(data, read_crops(options.list or LISTS / f"{options.split}.csv"))
    measured = {}
    for name, place in models.items():
        measured[name] = measure(load_model(place), data, asked)
        print(f"{name}: measured", flush=True)
    print(tables(measured, base, resampling))
    facts = {**measured[base].report.facts, "intervals": str(resampling)}
    left_out = ("condition", "matcher", "slots", "model", "pairs without a common slot")
    print("\n".join(f"- {key}: {fact}" for key, fact in facts.items() if key not in left_out))
    if options.output:
        options.output.write_text(as_json(measured, base, resampling) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
