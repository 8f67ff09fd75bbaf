"""The package's face: what it promises to export, how little it loads, and how a type checker sees it."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.metadata
import importlib.resources
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import occluded_reid

ROOT = Path(__file__).parents[1]
STUB = Path(occluded_reid.__file__).with_suffix(".pyi")
HEAVY = ("torch", "numpy", "PIL", "timm", "pydantic", "yaml", "lancedb", "pyarrow", "accelerate", "sklearn", "faiss")


def fresh(code: str) -> list[str]:
    """Run code in a new interpreter and return the modules that are loaded afterwards."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return modules


def homes() -> dict[str, str]:
    """The public names and their modules, as the face's stub says them."""
    return {
        alias.name: str(node.module)
        for node in ast.parse(STUB.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_is_complete_and_sorted() -> None:
    assert sorted(occluded_reid.__all__) == sorted(homes())
    assert set(occluded_reid.__all__) <= set(dir(occluded_reid))
    (shown,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(STUB.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    constants = [name for name in shown if name.isupper()]
    classes = [name for name in shown if name[0].isupper() and not name.isupper()]
    functions = [name for name in shown if not name[0].isupper()]
    assert shown == sorted(constants) + sorted(classes) + sorted(functions)
    assert sorted(shown) == sorted(homes()), "what a type checker takes from `import *` is what Python takes"


@pytest.mark.parametrize("name", sorted(homes()))
def test_every_name_is_the_object_of_its_home(name: str) -> None:
    home = importlib.import_module(f"occluded_reid.{homes()[name]}")
    assert getattr(occluded_reid, name) is getattr(home, name)
    assert name == "__version__" or name in home.__all__
    assert getattr(occluded_reid, name) is occluded_reid.__dict__[name], "a second look-up is not a second import"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No occluded_reid attribute bulid_model"):
        occluded_reid.bulid_model  # noqa: B018 - looking it up is the test
    with pytest.raises(ImportError, match="bulid_model"):
        exec("from occluded_reid import bulid_model")  # noqa: S102


def test_import_loads_nothing_heavy() -> None:
    loaded = fresh("import occluded_reid; assert occluded_reid.__version__")
    assert not {*HEAVY, "typer", "rich"} & set(loaded)
    # The counter-test: what needs torch loads it on first use.
    assert "torch" in fresh("import occluded_reid; occluded_reid.PartEmbeddings")


def test_registries_can_be_read_without_torch() -> None:
    assert "torch" not in fresh("import occluded_reid; assert 'local' in occluded_reid.HEADS.names()")


def test_command_line_help_loads_nothing_heavy() -> None:
    run = "import sys; from occluded_reid.cli import main; sys.argv = ['occluded-reid', {}]\ntry: main()\n"
    for argument in ("'--help'", "'--version'", "'train', '--help'"):
        loaded = fresh(run.format(argument) + "except SystemExit as stopped: assert not stopped.code")
        assert "typer" in loaded
        # typer itself brings pydantic along where it finds it.
        assert not (set(HEAVY) - {"pydantic"}) & set(loaded), argument


def test_the_types_are_shipped() -> None:
    assert importlib.resources.files("occluded_reid").joinpath("py.typed").is_file()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    data = [name.strip() for name in setup["options.package_data"]["occluded_reid"].split(",")]
    assert "py.typed" in data
    assert "*.pyi" in data
    assert "recipes/*.yaml" in data
    assert "weights/*/*" in data


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("from occluded_reid import build_model, Gallery", None),
        (
            "from occluded_reid import bulid_model",
            'Module "occluded_reid" has no attribute "bulid_model"; maybe "build_model"',
        ),
        (
            "import occluded_reid\noccluded_reid.load_modle",
            'Module has no attribute "load_modle"; maybe "load_model"',
        ),
    ],
)
def test_mypy_knows_the_names(tmp_path: Path, line: str, complaint: str | None) -> None:
    """Only the package's face is read: following its imports through torch would take minutes."""
    user = tmp_path / "user.py"
    user.write_text(line + "\n", encoding="utf-8")
    options = ["--follow-imports=skip", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, str(user), str(STUB)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    about_user = [text for text in done.stdout.splitlines() if text.startswith("user.py")]
    if complaint is None:
        assert about_user == [], done.stdout + done.stderr
    else:
        assert len(about_user) == 1, done.stdout + done.stderr
        assert complaint in about_user[0]


def test_version_is_the_same_everywhere() -> None:
    version = occluded_reid.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:\.dev\d+|a\d+|b\d+|rc\d+)?", version)
    assert importlib.metadata.version("occluded-reid") == version
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections
    assert sections[0] in ("Unreleased", version)


def python_blocks(file: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_python_in_the_documentation_compiles_and_imports_what_exists() -> None:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    assert len(python_blocks(files[0])) >= 2
    for file in files:
        for block in python_blocks(file):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                tree = ast.parse(block, str(file))
                compile(tree, str(file), "exec")
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "occluded_reid":
                    home = importlib.import_module(str(node.module))
                    missing = [alias.name for alias in node.names if not hasattr(home, alias.name)]
                    assert not missing, f"{file.name}: {node.module} has no {', '.join(missing)}"
