"""`occluded-reid compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.console import Json, bold, check_output_folder, console, print_json
from occluded_reid.printable import printable

__all__ = ["compare_command"]


def compare_command(
    reports: Annotated[
        list[str],
        typer.Argument(help="NAME=FILE of each report; a name that stands twice is one system with several seeds."),
    ],
    base: Annotated[
        str | None, typer.Option(help="The system that the others are compared with. Default: the last.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for compare.md, compare.csv, compare.tex and compare.json.", callback=check_output_folder
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put saved reports side by side: intervals, mean and spread over seeds, and paired differences.

    The reports come from [bold]occluded-reid evaluate … --save FOLDER[/bold]; they must be of the same queries and
    gallery, by the same rules.

    Example: [bold]occluded-reid compare sorn=sorn/own_clean.json pcb=pcb/own_clean.json --output table/[/bold]
    """
    from occluded_reid.errors import EvaluationError
    from occluded_reid.evaluation import Report, compare
    from occluded_reid.files import write_json

    found: dict[str, list[Report]] = {}
    for text in reports:
        name, separator, file = text.partition("=")
        if not separator or not name or not file:
            raise typer.BadParameter(f"'{text}' is no report; give NAME=FILE, as in sorn=sorn/own_clean.json.")
        if not Path(file).exists():
            raise typer.BadParameter(f"the report '{file}' does not exist; `occluded-reid evaluate --save` writes it.")
        found.setdefault(name, []).append(Report.from_json(file))
    result = compare(found, base)
    if output is not None:
        result.to_markdown(output / "compare.md")
        result.to_csv(output / "compare.csv")
        result.to_latex(output / "compare.tex")
        write_json(output / "compare.json", result.to_dict(), EvaluationError)
    if as_json:
        print_json(result.to_dict())
        return
    console().print(result.table())
    facts = {**result.facts, **{f"system {name}": fact for name, fact in result.system_facts.items()}}
    for line in (*result.sentences(), *(f"{name}: {fact}" for name, fact in facts.items())):
        console().print(printable(line), markup=False)
    if output is not None:
        console().print(f"tables: {bold(output)}", soft_wrap=True)
