"""What the command line says about itself, and exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 stopped."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from occluded_reid import BACKBONES, DATASETS, HEADS, LOSSES, MATCHERS, __version__, list_models
from occluded_reid.cli import app
from occluded_reid.evaluation.studies.study import MATCHINGS

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "calibrate",
    "compare",
    "data extract-cuhk03",
    "data propose-occluders",
    "data show",
    "data synthesize",
    "data verify",
    "demo",
    "evaluate",
    "export",
    "failures",
    "gallery build-index",
    "gallery cameras",
    "gallery compact",
    "gallery erase",
    "gallery get",
    "gallery info",
    "gallery list",
    "gallery neighbours",
    "gallery relabel",
    "gallery remove",
    "gallery verify",
    "gallery versions",
    "index",
    "list",
    "open-set",
    "parse",
    "same",
    "search",
    "sweep",
    "train",
    "train-parser",
    "tune",
)
Cli = Callable[..., Any]


def test_these_are_the_commands() -> None:
    assert tuple(sorted(commands())) == COMMANDS
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(re.search(rf"^\W*{name.split()[0]} ", shown.output, re.MULTILINE) for name in COMMANDS)


def commands() -> dict[str, Any]:
    """The commands as the argument parser knows them, those of a group under both names."""
    top = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    inner = {f"{name} {sub}": c for name, group in top.items() for sub, c in getattr(group, "commands", {}).items()}
    return {name: command for name, command in top.items() if not hasattr(command, "commands")} | inner


def parse(line: str) -> dict[str, Any]:
    """Read a command line as the program would, without doing anything."""
    program, name, *arguments = shlex.split(line, comments=True)
    assert program == "occluded-reid"
    if name not in commands():
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    values: dict[str, Any] = commands()[name].make_context(name, arguments).params
    return values


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_shows_an_example_that_the_command_understands(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], terminal_width=400)
    assert shown.exit_code == 0
    text = commands()[name].help
    (example,) = re.findall(r"Example: \[bold\](.+?)\[/bold\]", text)
    assert example.removeprefix("occluded-reid ").startswith(f"{name} ")
    assert " ".join(re.findall(r"[\w-]+", example)[:3]) in " ".join(re.findall(r"[\w-]+", shown.output))
    assert parse(example)
    for parameter in commands()[name].params:
        assert parameter.help or parameter.name == "help", f"{name}: {parameter.name} is not explained"
    assert {"as_json"} <= {parameter.name for parameter in commands()[name].params}


def shell_lines(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ").strip()
            if command.startswith("occluded-reid ") and "${" not in command:  # options kept in a variable
                yield command


def test_the_documentation_shows_commands_that_exist() -> None:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = {file.name: list(shell_lines(file)) for file in files}
    assert len(found["README.md"]) >= 5
    for name, lines in found.items():
        for line in lines:
            assert parse(line), f"{name}: {line}"


def test_the_version(cli: Cli) -> None:
    found = cli("--version")
    assert (found.code, found.out) == (0, f"occluded-reid {__version__}\n")


def test_no_command_is_wrong_usage_and_shows_the_help(cli: Cli) -> None:
    found = cli()
    assert found.code == 2
    assert re.search(r"Usage: .*occluded-reid", found.out + found.err)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["trian"], "No such command"),
        (["train"], "Missing"),
        (["train", "sorn_lite", "--data", "x"], "--output"),
        (["train", "sorn_lite", "--data", "x", "--output", "y", "--workers", "-1"], "--workers"),
        (["train", "sorn_lite", "--data", "x", "--output", "y", "--epochs", "3"], "No such option"),
        (["evaluate", "m", "--data", "x", "--matching", "ours"], "--matching"),
        (["evaluate", "m", "--data", "x", "--occlusion", "35"], "--occlusion"),
        (["evaluate", "m", "--data", "x", "--ap", "area"], "--ap"),
        (["index", "g", "--model", "m", "--data", "x", "--split", "test"], "--split"),
        (["index", "g", "--model", "m", "--data", "x", "--dtype", "int8"], "--dtype"),
        (["search", "g", "a.png", "--model", "m", "-k", "0"], "-k"),
        (["search", "g", "a.png", "--model", "m", "--group-by", "camera"], "--group-by"),
        (["search", "g", "a.png", "--model", "m", "--picture", "hits.html"], "--picture"),
        (["list", "head"], "'datasets'"),
        (["data", "verify", "market1501"], "Missing"),
        (["demo", "--train-identities", "1"], "--train-identities"),
    ],
)
def test_wrong_usage_is_two_and_says_which_argument(cli: Cli, arguments: list[str], complaint: str) -> None:
    found = cli(*arguments)
    assert found.code == 2
    assert complaint in found.err
    assert found.out == ""


def test_every_matching_can_be_asked_for() -> None:
    for name in MATCHINGS:
        (value,) = parse(f"occluded-reid evaluate m --data x --matching {name}")["matching"]
        assert value == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "sorn_light"], "RecipeError: no recipe is named 'sorn_light'. Did you mean 'sorn_lite'?"),
        (["train", "sorn_lite", "--dataset", "market1510"], "Did you mean 'market1501'?"),
        (["train", "sorn_lite", "--set", "optim.epoch=3"], "optim.epoch: there is no such key. Did you mean 'epochs'?"),
        (["train", "sorn_lite", "--weights", "nothing.pth"], "'nothing.pth' does not exist"),
        (["train", "sorn_lite", "--set", "optim.epochs=1", "--set", "optim.epochs=2"], "optim.epochs is given twice"),
        (["train", "sorn_lite", "--set", "optim.epochs"], "is not of the form key.path=value"),
        (["train", "sorn_lite", "--set", "model.heads.x.type=locl", "--weights", "none"], "Did you mean 'local'?"),
        (["train", "sorn_lite", "--set", "model.backbone.type=resnet5O", "--weights", "none"], "'resnet50'?"),
    ],
)
def test_a_wrong_word_in_a_recipe_is_two_and_helps(
    cli: Cli, people: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    found = refusal(cli, people, tmp_path, arguments)
    assert found.code == 2
    assert message in found.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "sorn_lite", "--holdout", "60"], "60 identities cannot be set aside"),
    ],
)
def test_failed_work_is_one_and_helps(
    cli: Cli, people: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    found = refusal(cli, people, tmp_path, arguments)
    assert found.code == 1
    assert message in found.err


def refusal(cli: Cli, people: Path, tmp_path: Path, arguments: list[str]) -> Any:
    """What a training that cannot be says, without a traceback, on stderr alone."""
    dataset = [] if "--dataset" in arguments else ["--dataset", "synthetic"]
    found = cli(*arguments, "--data", people, *dataset, "--output", tmp_path / "run")
    assert "Traceback" not in found.err
    assert found.out == ""
    assert not (tmp_path / "run").exists()
    return found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "none/model", "--data", "PEOPLE"], "wanted the folder of a saved model"),
        (["evaluate", "MODEL", "--data", "nowhere", "--dataset", "folder"], "nowhere' does not exist"),
        (["evaluate", "MODEL", "--data", "PEOPLE", "--occluders", "nowhere"], "'nowhere' is no folder"),
        (["index", "PEOPLE", "--model", "MODEL", "--data", "PEOPLE"], "is no gallery"),
        (["search", "nowhere", "a.png", "--model", "MODEL"], "there is no gallery 'nowhere'"),
    ],
)
def test_what_is_not_there_is_named(
    cli: Cli, people: Path, trained: Path, tmp_path: Path, monkeypatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"PEOPLE": str(people), "MODEL": str(trained / "model")}
    found = cli(*(places.get(argument, argument) for argument in arguments))
    assert found.code == 2
    assert message in found.err
    assert list(tmp_path.iterdir()) == []


def test_pictures_and_reports_that_cannot_be_written(cli: Cli, people: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    asked = next((people / "query").iterdir())
    model = ["--model", trained / "model"]
    data = ["--data", people, "--dataset", "synthetic"]
    assert cli("index", tmp_path / "gallery", *model, *data, "--split", "query").code == 0
    found = cli("index", tmp_path / "file" / "gallery", *model, *data)
    assert found.code == 2
    assert "is a file; give a folder to write to" in found.err
    assert "Traceback" not in found.err
    # What computes for long looks at its output first.
    for option, arguments in (
        ("--report", ["evaluate", trained / "model", *data, "--report", tmp_path / "file" / "report"]),
        ("--picture", ["search", tmp_path / "gallery", asked, *model, "--picture", tmp_path / "file" / "hits.png"]),
        ("--picture", ["search", tmp_path / "gallery", asked, *model, "--picture", tmp_path / "hits.txt"]),
    ):
        found = cli(*arguments)
        assert found.code == 2
        assert option in found.err
        assert found.out == ""
    assert (tmp_path / "file").read_text() == "in the way"


def test_ctrl_c_is_130(cli: Cli, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("occluded_reid.data.verify.verify_dataset", interrupted)
    assert cli("data", "verify", "synthetic", people).code == 130


def test_list_names_what_can_be_named(cli: Cli) -> None:
    for kind, names in {
        "models": list_models(),
        "heads": HEADS.names(),
        "losses": LOSSES.names(),
        "matchers": MATCHERS.names(),
        "datasets": DATASETS.names(),
    }.items():
        assert cli("list", kind).out.split() == names
        assert cli("list", kind, "--json").json == names
    backbones = cli("list", "backbones", "--json").json
    assert {"resnet50", "tf_efficientnet_lite0", *(set(BACKBONES.names()) - {"timm"})} <= set(backbones)
    assert cli("list", "backbones", "resnet5*").out.split() == [n for n in backbones if n.startswith("resnet5")]
    nothing = cli("list", "heads", "zebra*")
    assert nothing.code == 0
    assert "nothing among the heads matches 'zebra*'" in nothing.out


def test_the_installed_command_speaks_to_the_shell(people: Path, tmp_path: Path) -> None:
    """In a process of its own: JSON alone on stdout, messages on stderr, and the exit code."""

    def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from occluded_reid.cli import main; main()", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    good = shell("data", "verify", "synthetic", people, "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["ok"] is True
    empty = tmp_path / "empty"
    empty.mkdir()
    failed = shell("data", "verify", "market1501", empty, "--json")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"DataError: the folder '{empty}' is empty")
    assert shell("data").returncode == 2
