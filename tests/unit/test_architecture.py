"""The packages' order: imports run one way, from the later packages to the earlier ones."""

import ast
from pathlib import Path

import pytest

import secateur

SOURCE = Path(secateur.__file__).parent
ORDER = [
    "errors",
    "version",
    "options",
    "utils",
    "files",
    "data",
    "graph",
    "entry",
    "coupling",
    "masking",
    "channel_graph",
    "evaluation",
    "surgery",
    "deployment",
    "importance",
    "recovery",
    "allocation",
    "report",
    "tracing",
    "pruning",
    "comparison",
    "tradeoff_curve",
    "training",
    "sparsity",
    "demo",
    "stopping",
    "tuning",
    "public",
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
