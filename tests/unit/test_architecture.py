"""The packages' order: imports run one way, from the later packages to the earlier ones."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest
import torch

import secateur
from secateur.coupling.rules.registry import BUILT_IN

SOURCE = Path(secateur.__file__).parent
ORDER = [
    "errors",
    "version",
    "utils",
    "files",
    "options",
    "data",
    "graph",
    "entry",
    "coupling",
    "masking",
    "channel_graph",
    "evaluation",
    "surgery",
    "importance",
    "recovery",
    "allocation",
    "report",
    "results",
    "tracing",
    "pipeline",
    "api",
    "comparison",
    "tradeoff_curve",
    "training",
    "sparsity",
    "demo",
    "stopping",
    "tuning",
    "cli",
]


def _imports(path: Path) -> list[str]:
    """The modules of this package that a file imports, by their dotted names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names = [f"{node.module}.{node.names[0].name}" if node.module == "secateur" else node.module for node in modules]
    return [name.removeprefix("secateur.") for name in names if name.startswith("secateur.")]


def _package(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_earlier_ones(package: str) -> None:
    allowed = set(ORDER[: ORDER.index(package) + 1])
    files = [path for path in SOURCE.rglob("*.py") if _package(path) == package]
    assert files
    wrong = {
        str(path.relative_to(SOURCE)): later
        for path in files
        if (later := [name for name in _imports(path) if name.split(".")[0] not in allowed])
    }
    assert not wrong


def test_every_package_has_a_place_in_the_order() -> None:
    assert {_package(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"} == set(ORDER)


def test_no_module_hides_a_public_function() -> None:
    """A module or package directly under `secateur` with the name of a public function would hide one of the two."""
    assert not {_package(path) for path in SOURCE.rglob("*.py")} & set(secateur.__all__)


def test_no_top_level_name_is_defined_twice() -> None:
    files = defaultdict(list)
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(str(path.relative_to(SOURCE)))
    assert not {name: paths for name, paths in files.items() if len(set(paths)) > 1}


def _modules() -> dict[str, Path]:
    dotted = {".".join(path.relative_to(SOURCE.parent).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


def test_modules_import_each_other_in_no_circle() -> None:
    modules = _modules()
    imports: dict[str, set[str]] = {}
    for name, path in modules.items():
        statements = [
            node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
        ]
        targets = {
            (whole if (whole := f"{node.module}.{alias.name}") in modules else str(node.module))
            for node in statements
            for alias in node.names
        }
        imports[name] = (targets & modules.keys()) - {name}
    while leaves := [name for name, targets in imports.items() if not targets]:
        imports = {name: targets - set(leaves) for name, targets in imports.items() if targets}
    assert not imports, "these modules import each other in circles, or import those that do"


TABLES_ELSEWHERE = {
    "graph/export.py": "operators that torch decomposes while it exports",
    "graph/export_kernels.py": "shape kernels that make exports cheap",
    "graph/shape_kernels.py": "shape kernels that make exports cheap",
    "graph/export_operators.py": "operators that exports of other sizes leave out",
    "graph/functionalize.py": "comparisons, whose in-place form changes the type",
    "graph/random_draws.py": "dropouts that return a mask besides",
    "importance/shapley/additive_layer.py": "overloads that a faster computation of the same values exists for",
}
OPERATORS = {
    schema.name.partition("::")[2] for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("aten::")
}


def _entries(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Dict):
        return [key for key in node.keys if key is not None]
    return list(node.elts) if isinstance(node, ast.Set | ast.Tuple | ast.List) else []


def _is_operator(entry: ast.expr, names: bool) -> bool:
    """Whether an entry of a collection is an operator of torch, or its name."""
    if isinstance(entry, ast.Constant):
        words = entry.value.split() if isinstance(entry.value, str) else []
        return names and bool(words) and set(words) <= OPERATORS
    return ".aten." in ast.unparse(entry) or ast.unparse(entry).startswith("ATEN.")


def test_operators_have_their_rules_in_one_registry() -> None:
    """No other collection is keyed by operators: not by their names, where a file asks for these, nor by themselves."""
    tables = set()
    for path in SOURCE.rglob("*.py"):
        name, text = path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8")
        asks_for_names = "operator_name(" in text
        for node in ast.walk(ast.parse(text)):
            entries = _entries(node)
            if len(entries) > 1 and all(_is_operator(entry, asks_for_names) for entry in entries):
                tables.add(name)
    assert {name for name in tables if not name.startswith("coupling/rules/")} <= TABLES_ELSEWHERE.keys()


def test_every_rule_names_an_operator_of_torch() -> None:
    """A rule under a name that no operator has would never be found."""
    assert {name.partition("::")[2] for name in BUILT_IN if name.startswith("aten::")} <= OPERATORS
