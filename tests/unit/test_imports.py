"""The cost of `import secateur`: large libraries are imported when they are needed first."""

import ast
import inspect
import re
import subprocess
import sys
from types import ModuleType

import pytest

import secateur
from repository import ROOT

LATE = (
    "jinja2",
    "markupsafe",
    "matplotlib",
    "numba",
    "onnx",
    "onnxruntime",
    "pandas",
    "scipy",
    "torch._dynamo",
    "transformers",
    "typer",
)
LOADED = "print(*[name for name in {names!r} if name in sys.modules])"
MISTAKES = (
    ["prune", "--kepe", "macs=0.5"],
    ["tradeoff", "--data", "shop.py:data", "--outt", "curve"],
    ["score", "--seed", "many", "--out", "scores"],
    ["spp"],
    ["prun"],
    ["prune", "--help"],
    ["--version"],
)
COMMANDS = f"""
import sys
from typer.testing import CliRunner
from secateur.cli.main import app
for arguments in {MISTAKES!r}:
    result = CliRunner().invoke(app, arguments)
    print(result.exit_code, "--keep" in result.output)
"""


def printed_by(script: str) -> list[str]:
    """Return the lines that a script prints in a process of its own."""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return process.stdout.splitlines()


def test_large_libraries_are_not_imported_with_secateur() -> None:
    assert printed_by(f"import sys, secateur; secateur.prune; {LOADED.format(names=LATE)}") == [""]


def test_torch_is_imported_with_the_first_function() -> None:
    first = "print('prune' in dir(secateur), 'torch' in sys.modules, callable(secateur.prune), 'torch' in sys.modules)"
    assert printed_by(f"import sys, secateur; {first}") == ["True False True True"]


def test_the_command_line_answers_mistakes_without_torch() -> None:
    *answers, torch = printed_by(f"{COMMANDS}\nprint('torch' in sys.modules)")
    assert [answer.split()[0] for answer in answers] == ["2", "2", "2", "2", "2", "0", "0"]
    assert answers[0] == "2 True" and torch == "False"  # the nearest option is offered


def names_imported_by(module: ModuleType) -> list[str]:
    """Return the names that the source of a module imports from `secateur`, whether or not it is run."""
    tree = ast.parse(inspect.getsource(module))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports if str(node.module).startswith("secateur.") for alias in node.names]


def test_every_list_of_public_names_is_the_same() -> None:
    names = secateur.public.__all__
    assert names == sorted(names) == sorted(names_imported_by(secateur.public))
    assert sorted([*names, "__version__"]) == sorted(names_imported_by(secateur))
    assert sorted(secateur.__all__) == sorted([*names, "__version__"])
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    sections = re.findall(r"^::: secateur\.(\w+)$", pages, re.MULTILINE)
    assert "errors" in sections  # the page of the errors and the warning
    documented = {name for name in sections if name not in ("errors", "stopping", "training", "sparsity")}
    assert sorted([*documented, "SecateurError", "SecateurWarning"]) == names
    assert len(sections) == len(set(sections))


def test_every_public_name_is_loaded_from_the_list() -> None:
    assert all(getattr(secateur, name) is getattr(secateur.public, name) for name in secateur.public.__all__)
    assert secateur.stopping.Seconds(1) and secateur.training.TaylorSchedule
    assert printed_by("import secateur; print(secateur.report.report.Report.__name__)") == ["Report"]
    with pytest.raises(AttributeError, match="module 'secateur' has no attribute 'prunes'") as failure:
        secateur.prunes  # noqa: B018
    assert (failure.value.name, failure.value.obj) == (
        "prunes",
        secateur,
    )  # for the interpreter, which offers the nearest
    assert not hasattr(secateur, "__main__")
