"""The house keeps its order: imports run downward, files stay short, everything public is explained."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import occluded_reid

ROOT = Path(occluded_reid.__file__).parent
# From the ground up; rooms on one floor may import each other, but only as ALONGSIDE says.
FLOORS = [
    {"_version", "errors", "moved", "printable", "yaml12"},
    {"arguments"},
    {"ahead", "options", "forked", "numbered"},
    {"registry"},
    {"files", "pixels", "screen", "sealed", "config", "embeddings", "contracts"},
    {"functional"},
    {"heads", "losses", "matchers", "backbones"},
    {"models", "parsing", "data"},
    {"search", "visualize"},
    {"calibration"},
    {"gallery", "evaluation"},
    {"association"},
    {"training"},
    {"cli", "app"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ALONGSIDE = {
    ("models", "data"),  # preprocessing decodes and resizes as data sets do
    ("models", "parsing"),  # the builder gives preprocessing its parser
    ("parsing", "data"),  # teachers and parsers read images and masks
    ("evaluation", "gallery"),
}
LONGEST_FILE = 700  # a smell, not a rule: an idea is not cut in two for it


def module_of(path: Path) -> str:
    return ".".join(("occluded_reid", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(nodes: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Every module of the package that these statements import, outside of `if TYPE_CHECKING:` blocks."""
    for node in nodes:
        if isinstance(node, ast.If) and is_type_checking(node.test):
            yield from imports(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.startswith("occluded_reid"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            if node.module == "occluded_reid":
                yield from ((f"occluded_reid.{alias.name}", node.lineno) for alias in node.names)
            elif node.module and node.module.startswith("occluded_reid."):
                for alias in node.names:
                    module = f"{node.module}.{alias.name}"
                    yield (module if module in MODULES else node.module), node.lineno
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            for child in getattr(node, field, []):
                yield from imports(child.body if isinstance(child, ast.ExceptHandler | ast.match_case) else [child])


def may_import(room: str, other: str) -> bool:
    if FLOOR[other] == FLOOR[room]:
        # On this floor there are files, not rooms; they stand side by side, and the test below refuses circles.
        return room == other or (room, other) in ALONGSIDE or FLOOR[room] == FLOOR["config"]
    return FLOOR[other] < FLOOR[room]


def test_every_room_has_its_place():
    assert {room_of(module) for module in MODULES} - {""} <= set(FLOOR)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"occluded_reid"}))
def test_imports_run_downward(module):
    room = room_of(module)
    wrong = []
    for imported, line in imports(TREES[module].body):
        if imported == "occluded_reid" or room_of(imported) not in FLOOR:
            wrong.append(f"line {line}: {imported} goes through the package's face; import it from its room")
        elif not may_import(room, room_of(imported)):
            wrong.append(f"line {line}: {imported} stands above '{room}', or beside it")
    assert not wrong, "\n".join(wrong)


def test_imports_make_no_circle():
    """Module by module, with what is imported at the top of a file only."""
    graph: dict[str, set[str]] = {}
    for module, tree in TREES.items():
        top = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
        graph[module] = {name for name, _ in imports(top) if name in MODULES} - {module}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a circle of imports: {' → '.join((*above, module))}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*above, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def every_import(tree: ast.Module) -> set[str]:
    """Modules of the package that a file imports anywhere: at its top, in functions, and for type checkers."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & set(MODULES)


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected sets of two or more (Tarjan)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in numbers:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], numbers[other])
        if lowest[module] == numbers[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(set(stack[at:]))
            del stack[at:]

    for module in sorted(graph):
        if module not in numbers:
            visit(module)
    return found


# What still imports itself through functions or type checkers' blocks, and what closes it. None may grow or be added.
CIRCLES = {
    "registry names the base class of each kind for type checkers, and data sets their benchmarks": {
        *(
            f"occluded_reid.{name}"
            for name in ("config", "contracts", "embeddings", "registry", "functional.distances")
        ),
        *(f"occluded_reid.{room}.base" for room in ("backbones", "heads", "losses", "matchers")),
        *(f"occluded_reid.backbones.{name}" for name in ("hub_files", "timm", "timm_options", "weights")),
        *(f"occluded_reid.data.{name}" for name in ("benchmark", "dataset", "holdout", "readable")),
    },
}


def test_no_circle_hides_behind_deferred_imports():
    # An __init__ hands on what its room's files hold: a file that imports a neighbour through it closes no circle.
    graph = {
        module: {other for other in every_import(tree) if MODULES[other].name != "__init__.py"} - {module}
        for module, tree in TREES.items()
        if MODULES[module].name != "__init__.py"
    }
    found = circles(graph)
    unknown = [sorted(circle) for circle in found if not any(circle <= known for known in CIRCLES.values())]
    assert not unknown, "a circle of imports:\n" + "\n".join(" · ".join(circle) for circle in unknown)


def test_files_stay_short():
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert not {module: count for module, count in lines.items() if count > LONGEST_FILE}, "cut these in two"


def public(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def test_everything_public_is_explained():
    silent = [
        f"{module}:{getattr(node, 'name', '')}"
        for module, tree in TREES.items()
        for node in (tree, *public(tree))
        if not ast.get_docstring(node)
    ]
    assert not silent, f"without a docstring: {', '.join(silent)}"


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_what_a_module_exports_is_sorted():
    wrong = []
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                if list(names) != sorted(set(names), key=order):
                    wrong.append(module)
    assert not wrong, f"__all__ is not sorted, or names something twice: {', '.join(wrong)}"


def test_nothing_is_swallowed_or_left_for_later():
    wrong = []
    for module, tree in TREES.items():
        text = MODULES[module].read_text(encoding="utf-8")
        wrong += [f"{module}: {word}" for word in ("TODO", "FIXME", "XXX") if word in text]
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and all(isinstance(s, ast.Pass) for s in node.body):
                caught = ast.unparse(node.type) if node.type else "everything"
                if caught in ("everything", "Exception", "BaseException"):
                    wrong.append(f"{module}, line {node.lineno}: {caught} is caught and forgotten")
    assert not wrong, "\n".join(wrong)
