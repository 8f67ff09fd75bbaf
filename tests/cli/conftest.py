"""A run of the command line in this process, and a trained model on a small drawn set that the tests share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from occluded_reid.cli import main
from occluded_reid.data.synthetic import SyntheticOptions, generate

TINY = (
    "model.input={height: 96, width: 32}",
    "model.backbone={type: test_efficientnet, options: {last_stride: 1}}",
    "model.heads.global.options.total_width=48",
    "model.heads.semantic.options.widths=[16, 16]",
    "data.batch=8",
    "optim.epochs=1",
    "optim.warmup_epochs=0",
    "optim.steps={}",
)
"""sorn_lite as one command line makes it: a network of 20,000 parameters and one epoch."""

SIZE = SyntheticOptions(train_identities=6, test_identities=4, cameras=2, distractors=2, width=32, height=96)


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as strict JSON: NaN and Infinity are no JSON."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `occluded-reid` with some arguments, as the installed script does."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["occluded-reid", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfd.readouterr()
        return Result(int(stopped.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def sets() -> tuple[str, ...]:
    """The tiny recipe as `--set` options."""
    return tuple(text for change in TINY for text in ("--set", change))


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn set of ten people and two cameras; nobody may change it."""
    return generate(tmp_path_factory.mktemp("people") / "set", SIZE)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, people: Path, sets: tuple[str, ...]) -> Path:
    """The folder of a run that `occluded-reid train` has made."""
    output = tmp_path_factory.mktemp("trained") / "run"
    arguments = ["train", "sorn_lite", "--data", people, "--dataset", "synthetic", "--weights", "none", *sets]
    before = sys.argv
    sys.argv = ["occluded-reid", *map(str, arguments), "--output", str(output), "--json"]
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        sys.argv = before
    assert not stopped.value.code
    return output
