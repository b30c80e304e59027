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
SMALLER = {
    "bert": {"steps=200": "steps=60", "steps=100": "steps=40", "range(0, 256, 64)": "range(0, 64, 64)"},
    "cnn": {"[:96]": "[:48]", "[:500]": "[:200]", "range(100)": "range(3)"},
    "language-model": {
        "steps=150": "steps=20",
        "steps=60": "steps=5",
        "batch_size=16)[:6]": "batch_size=16)[:2]",
        "batch_size=16)[:4]": "batch_size=16)[:1]",
    },
    "pruning-while-training": {
        "range(6)": "range(3)",
        "range(7)": "range(3)",
        "[:1500]": "[:800]",
        "[1500:]": "[1800:]",
        "every=5": "every=1",
        "[:256]": "[:64]",
    },
    "shapley": {"Coalitions(2000)": "Coalitions(200)", "demo.test()[4:16]": "demo.test()[4:8]"},
}
"""Numbers of examples and steps that decide how good a tutorial's results are, and the smaller ones that are run."""


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
    cells = {cell["id"]: "".join(cell["source"]) for cell in cells_of(path, "code")}
    for number, smaller in SMALLER.get(path.stem, {}).items():
        assert any(number in source for source in cells.values()), number
        cells = {name: source.replace(number, smaller) for name, source in cells.items()}
    with torch.random.fork_rng():
        for name, source in cells.items():
            run_cell(source, f"{path.name}:{name}", namespace)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_has_outputs_of_a_run_without_errors_and_paths(path: Path) -> None:
    outputs = [output for cell in cells_of(path, "code") for output in cell["outputs"]]
    assert outputs and not any(output["output_type"] == "error" for output in outputs)
    stored = json.dumps(outputs)
    assert len(stored) < 200_000 and not any(root in stored for root in ("/tmp", "/home", "/work", "/root"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_ends_with_where_to_go_next(path: Path) -> None:
    assert "## Where to go next" in "".join(cells_of(path, "markdown")[-1]["source"])
