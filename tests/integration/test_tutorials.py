"""The notebooks of the tutorials run from top to bottom; their code cells are run here without a kernel."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from expected_warnings import untrained_networks
from repository import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
NEEDS = {"bert": ("accelerate",), "cnn": ("onnxruntime",), "shapley": ("pandas",)}
"""The packages beyond Secateur's own that a tutorial needs, by its name."""


def cells_of(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def run_cell(source: str, name: str, namespace: dict[str, Any]) -> None:
    """Run a cell, and show the value of its last expression as a notebook does."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        getattr(value, "_repr_html_", value.__repr__)()


@untrained_networks
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in NEEDS.get(path.stem, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with torch.random.fork_rng():
        for cell in cells_of(path, "code"):
            run_cell("".join(cell["source"]), f"{path.name}:{cell['id']}", namespace)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_has_outputs_of_a_run_without_errors_and_paths(path: Path) -> None:
    outputs = [output for cell in cells_of(path, "code") for output in cell["outputs"]]
    assert outputs and not any(output["output_type"] == "error" for output in outputs)
    stored = json.dumps(outputs)
    assert len(stored) < 200_000 and not any(root in stored for root in ("/tmp", "/home", "/work", "/root"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_ends_with_where_to_go_next(path: Path) -> None:
    assert "## Where to go next" in "".join(cells_of(path, "markdown")[-1]["source"])
