"""The benchmarks are not run here; what they take from Secateur is there."""

import ast
import importlib
from pathlib import Path

import pytest

from repository import ROOT

SCRIPTS = sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("examples/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_that_scripts_import_exist(script: Path) -> None:
    for statement in ast.walk(ast.parse(script.read_text())):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "secateur":
            module = importlib.import_module(str(statement.module))
            for each in statement.names:
                if not hasattr(module, each.name):
                    importlib.import_module(f"{statement.module}.{each.name}")
