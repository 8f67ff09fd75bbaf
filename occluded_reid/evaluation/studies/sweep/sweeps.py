"""Occlusion sweeps of several models side by side: table, figure, paired differences, and the files that keep them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occluded_reid.arguments import checked
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import Difference
from occluded_reid.evaluation.studies.sweep.result import MEAN, Sweep
from occluded_reid.evaluation.studies.sweep.settings import SweepSettings
from occluded_reid.evaluation.tables import csv_text, markdown_table
from occluded_reid.files import atomic_write, read_json, write_text

if TYPE_CHECKING:
    from rich.table import Table

    from occluded_reid.visualize.plots import LineChart

__all__ = ["Sweeps", "read_sweeps"]

FORMAT = "occluded_reid.sweep"
FORMAT_VERSION = 1

_PANELS = 3  # charts in a row of the figure
_OWN_FACTS = ("matcher", "slots", "training")  # differ from model to model


@dataclass(frozen=True)
class Sweeps:
    """Sweeps of one or more models over the same queries under the same occlusions.

    Args:
        sweeps: at least one; differences are to the first.

    Raises:
        EvaluationError: none, two of one model and name, or two that do not compare.
    """

    sweeps: tuple[Sweep, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sweeps", tuple(self.sweeps))
        if not self.sweeps:
            raise EvaluationError("there is no sweep to show; give at least one.")
        names = [sweep.name for sweep in self.sweeps]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise EvaluationError(f"two sweeps are named '{twice}'; give each model its own name: sweep(…, name=…).")
        for sweep in self.sweeps[1:]:
            self.sweeps[0].require_same_settings(sweep)
            if sweep.metrics != self.sweeps[0].metrics:
                raise EvaluationError(
                    f"the sweeps hold other metrics: {', '.join(self.sweeps[0].metrics)} and "
                    f"{', '.join(sweep.metrics)}. Sweep both models with the same protocol."
                )

    def __iter__(self) -> Iterator[Sweep]:
        return iter(self.sweeps)

    def __len__(self) -> int:
        return len(self.sweeps)

    @property
    def settings(self) -> SweepSettings:
        """What the numbers stand on."""
        return self.sweeps[0].settings

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of occlusion, and "mean" after them."""
        return (*self.settings.names, MEAN)

    def differences(self, metric: str) -> dict[str, dict[str, Difference]]:
        """Return model -> kind -> paired difference of the area under the curve to the first model."""
        first = self.sweeps[0]
        return {
            sweep.name: {kind: sweep.minus(first, metric, kind) for kind in self.kinds} for sweep in self.sweeps[1:]
        }

    @property
    def title(self) -> str:
        """What the numbers of the table are."""
        last = self.settings.severities[-1]
        return f"area under the curve, 0–{last:.0%} of the body occluded, {self.settings.dataset}"

    def table(self) -> Table:
        """Return the areas, by kind and over all, as a rich table."""
        from rich.table import Table

        from occluded_reid.screen import cell

        table = Table(title=cell(self.title))
        table.add_column("model, metric", overflow="fold")
        for kind in self.kinds:
            table.add_column(cell(kind), justify="right", min_width=len(kind), no_wrap=True)
        for metric in self.sweeps[0].headline:
            for sweep in self.sweeps:
                cells = [_stacked(sweep, metric, kind) for kind in self.kinds]
                table.add_row(f"{cell(sweep.name)}\n{metric}\n", *cells, end_section=sweep is self.sweeps[-1])
        return table

    def facts(self) -> dict[str, str]:
        """Return what the numbers stand on, by name."""
        settings = self.settings
        facts = {
            key: fact for key, fact in self.sweeps[0].facts.items() if key not in (*_OWN_FACTS, "model", "made by")
        }
        images = settings.queries * len(settings.seeds)
        covered, missed = self.sweeps[0].covered[:, 1:], self.sweeps[0].missed[:, 1:]
        off = max(abs(covered - settings.severities[1:]).max(0)) if covered.size else 0.0
        seeds = f"seed{'s' if len(settings.seeds) > 1 else ''} {', '.join(map(str, settings.seeds))}"
        return {
            **facts,
            **{f"kind '{name}'": words for name, words in settings.kinds},
            "occlusion": f"shares of each query's body mask, {seeds}; the same for every model",
            "really covered": f"the mean of every cell is within {100 * off:.2f} points of the share wanted; "
            f"{missed.sum()} of {images * missed.size} images are more than 3 points off",
            "area": "trapezoid rule over the shares, divided by their range; for each query first, so intervals and "
            "differences resample queries",
            "data, SHA-256": settings.data_sha256,
            "made by": f"occluded_reid {settings.version}",
        }

    def models(self) -> dict[str, str]:
        """Return fingerprint, matcher and slots of each model, by name."""
        return {s.name: "; ".join([s.model, *(s.facts[f] for f in _OWN_FACTS if f in s.facts)]) for s in self.sweeps}

    def card(self) -> str:
        """Return paired differences, models and facts in lines."""
        first = self.sweeps[0]
        lines = [
            f"{name} − {first.name}, {metric}, {kind}: {difference}"
            for metric in first.headline
            for name, kinds in self.differences(metric).items()
            for kind, difference in kinds.items()
        ]
        return "\n".join([*lines, *(f"{key}: {fact}" for key, fact in {**self.models(), **self.facts()}.items())])

    def charts(self, metric: str) -> list[LineChart]:
        """Return a chart of the metric against severity for each kind, and one of the mean over kinds."""
        from occluded_reid.visualize.plots import sweep_charts

        panels = {
            "mean over kinds" if kind == MEAN else kind: {s.name: s.points(metric, kind) for s in self.sweeps}
            for kind in self.kinds
            if kind != MEAN or len(self.kinds) > 2
        }
        return sweep_charts(panels, metric=metric)

    def to_csv(self) -> str:
        """Return all numbers as CSV: a line for each model, kind, severity (or the area) and metric."""
        header = ("name", "model", "kind", "severity", "metric", "value", "low", "high", "covered", "missed")
        rows = []
        for sweep in self.sweeps:
            for k, kind in enumerate(self.kinds):
                for s, severity in enumerate((*self.settings.severities, None)):
                    real = kind != MEAN and severity is not None
                    cell = (f"{sweep.covered[k, s]:.6f}", str(sweep.missed[k, s])) if real else ("", "")
                    for metric in sweep.metrics:
                        band = sweep.interval(metric, kind, severity)
                        value = sweep.value(metric, kind, severity)
                        ends = ("", "") if band is None else (f"{band.low:.6f}", f"{band.high:.6f}")
                        at = "area" if severity is None else f"{severity:g}"
                        rows.append([sweep.name, sweep.model, kind, at, metric, f"{value:.6f}", *ends, *cell])
        return csv_text(header, rows)

    def to_markdown(self) -> str:
        """Return areas, paired differences, values at each severity, and what they stand on, as Markdown."""
        first = self.sweeps[0]
        parts = [f"# Occlusion sweep: {self.settings.dataset}", f"{self.title[0].upper()}{self.title[1:]}."]
        for metric in first.headline:
            rows = [[s.name, *(_shown(s, metric, kind, None) for kind in self.kinds)] for s in self.sweeps]
            parts.append(f"## {metric}, area\n\n{markdown_table(['model', *self.kinds], rows)}")
            if len(self.sweeps) > 1:
                found = self.differences(metric)
                rows = [[f"{name} − {first.name}", *map(str, kinds.values())] for name, kinds in found.items()]
                parts.append(
                    f"Paired differences to the first model:\n\n{markdown_table(['models', *self.kinds], rows)}"
                )
        for metric in first.headline:
            heads = ["kind", "model", *(f"{s:.0%}" for s in self.settings.severities)]
            rows = [
                [kind, s.name, *(_shown(s, metric, kind, severity) for severity in self.settings.severities)]
                for kind in self.kinds
                for s in self.sweeps
            ]
            parts.append(f"## {metric} at each share of the body\n\n{markdown_table(heads, rows, words=2)}")
        heads = ["kind", *(f"{s:.0%}" for s in self.settings.severities)]
        rows = [
            [kind, *(f"{c:.1%} ({m})" for c, m in zip(first.covered[k], first.missed[k], strict=True))]
            for k, kind in enumerate(self.settings.names)
        ]
        parts.append(
            "## Really covered\n\nMean share of the bodies, and in brackets how many images are more than 3 points off "
            f"the share wanted.\n\n{markdown_table(heads, rows)}"
        )
        parts.append(
            "## What this stands on\n\n"
            + "\n".join(f"- {key}: {fact}" for key, fact in {**self.models(), **self.facts()}.items())
        )
        return "\n\n".join(parts) + "\n"

    @checked(EvaluationError)
    def to_dict(self, *, per_query: bool = True) -> dict[str, Any]:
        """Return everything as JSON knows it; see `Sweep.to_dict`."""
        first = self.sweeps[0]
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "differences": [
                {
                    "name": name,
                    "minus": first.name,
                    "metric": metric,
                    "kind": kind,
                    "value": difference.value,
                    "interval": [difference.interval.low, difference.interval.high],
                }
                for metric in first.metrics
                for name, kinds in self.differences(metric).items()
                for kind, difference in kinds.items()
            ],
            "sweeps": [sweep.to_dict(per_query=per_query) for sweep in self.sweeps],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write sweep.json (with each query's numbers), sweep.csv, sweep.md, sweep.png and sweep.svg.

        Raises:
            EvaluationError: the folder cannot be written.
        """
        from occluded_reid.visualize.plots import charts_svg, side_by_side
        from occluded_reid.visualize.saving import save_picture

        root = Path(folder)
        charts = [chart for metric in self.sweeps[0].headline for chart in self.charts(metric)]
        columns = min(_PANELS, len(charts))
        write_text(root / "sweep.csv", self.to_csv(), EvaluationError)
        write_text(root / "sweep.md", self.to_markdown(), EvaluationError)
        write_text(root / "sweep.svg", charts_svg(charts, columns=columns), EvaluationError)
        save_picture(side_by_side(charts, columns=columns), root / "sweep.png")
        # Last, for what is found there is not measured again.
        with (
            atomic_write(root / "sweep.json", EvaluationError) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.writelines(self._json())
        return [root / f"sweep.{suffix}" for suffix in ("json", "csv", "md", "png", "svg")]

    def _json(self) -> Iterator[str]:
        """`to_dict` as text, a line for each model: the numbers of one model's queries are in memory at a time."""
        content = self.to_dict(per_query=False)
        del content["sweeps"]
        yield f'{json.dumps(content, ensure_ascii=False)[:-1]}, "sweeps": [\n'
        for number, sweep in enumerate(self.sweeps, start=1):
            yield json.dumps(sweep.to_dict(), ensure_ascii=False) + (",\n" if number < len(self.sweeps) else "\n")
        yield "]}\n"


def read_sweeps(path: str | Path) -> tuple[Sweep, ...]:
    """Read the sweeps of a file that `Sweeps.save` has written; numbers are computed again from those of each query.

    Raises:
        EvaluationError: the file is missing, is no such file, or was written by a later version.
    """
    content = read_json(path, EvaluationError)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise EvaluationError(f"'{path}' holds no sweeps; write some with Sweeps.save() or `occluded-reid sweep`.")
    if content.get("version") != FORMAT_VERSION:
        raise EvaluationError(
            f"'{path}' is of version {content.get('version')!r}; this release reads version {FORMAT_VERSION}. "
            "Sweep again, or use the release that wrote it."
        )
    try:
        return tuple(Sweep.from_dict(part) for part in content["sweeps"])
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"'{path}' is incomplete or changed: {error!r}. Remove it and sweep again.") from error
    except EvaluationError as error:
        raise EvaluationError(f"'{path}': {error}") from error


def _shown(sweep: Sweep, metric: str, kind: str, severity: float | None) -> str:
    band = sweep.interval(metric, kind, severity)
    value = f"{sweep.value(metric, kind, severity):.1%}"
    return value if band is None else f"{value} {band}"


def _stacked(sweep: Sweep, metric: str, kind: str) -> str:
    """An area and its interval in three short lines: seven columns fit a terminal of 80 characters."""
    return _shown(sweep, metric, kind, None).replace(" [", "\n\\[").replace(", ", ",\n")
