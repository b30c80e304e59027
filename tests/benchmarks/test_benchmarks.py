"""The benchmarks are not run here; what they take from Secateur is there."""

import ast
import importlib
from pathlib import Path

import pytest
from shapley import page_texts, sections

from expected_warnings import untrained_networks
from repository import ROOT

pytestmark = untrained_networks

SCRIPTS = sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("examples/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_that_scripts_import_exist(script: Path) -> None:
    for statement in ast.walk(ast.parse(script.read_text())):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "secateur":
            module = importlib.import_module(str(statement.module))
            for alias in statement.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{statement.module}.{alias.name}")


def test_the_page_of_shapley_values_has_the_text_that_its_benchmark_writes() -> None:
    text = (ROOT / "docs" / "shapley.md").read_text(encoding="utf-8")
    assert text.startswith(page_texts.ABOUT)
    for title, introduction in page_texts.INTRODUCTIONS.items():
        assert f"\n## {title}\n\n{introduction.strip()}\n\n|" in text
    assert f"\n\n{page_texts.COMPILED.strip()}\n\n|" in text
    for title, line in ((page_texts.PRECISION, page_texts.LOW_PRECISION), (page_texts.OWEN, page_texts.WHOLE_GAME)):
        assert f"\n## {title}\n\n{line}\n\n|" in text
    assert f"\n## {page_texts.POINTS}\n\n{page_texts.CURVES}\n\n|" in text
    for title, section in sections.sections().items():
        assert f"\n## {title}\n\n{section}\n\n## " in text
