"""`occluded-reid export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.console import Json, ModelArgument, check_output_file, console, print_json
from occluded_reid.printable import printable

__all__ = ["export_command"]


def export_command(
    model: ModelArgument,
    file: Annotated[
        Path,
        typer.Argument(
            help="What is written: .onnx, or .pt2 for torch.", callback=check_output_file, show_default=False
        ),
    ],
    as_json: Json = False,
) -> None:
    """Write a model as one graph for other programs: ONNX, or torch's exported program.

    Images in, normalised, any number of them; every slot and its visibility out. An ONNX file describes itself and is
    compared with the model through ONNX Runtime before it gets its name; every command takes it as a model.

    Example: [bold]occluded-reid export runs/sorn/model sorn.onnx[/bold]
    """
    if file.suffix not in (".onnx", ".pt2"):
        raise typer.BadParameter(f"'{file}' must end in .onnx or .pt2.", param_hint="FILE")
    from occluded_reid.models import load_model

    loaded = load_model(model)
    loaded.export(file)
    facts = {"file": str(file), "bytes": file.stat().st_size, "slots": loaded.slots, "fingerprint": loaded.fingerprint}
    if as_json:
        print_json(facts)
        return
    slots = ", ".join(f"{name} {width}" for name, width in loaded.slots.items())
    console().print(
        printable(
            f"{file}: {file.stat().st_size / 1e6:.1f} MB, images {loaded.preprocess.height}×"
            f"{loaded.preprocess.width}, slots {slots}"
        ),
        markup=False,
        soft_wrap=True,
    )
