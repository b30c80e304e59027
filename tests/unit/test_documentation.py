"""The pages that describe the source: every package is named there, and relative links lead to files."""

import re
from pathlib import Path

import pytest

import secateur
from repository import ROOT

SOURCE = Path(secateur.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_design_page_names_every_package_and_module() -> None:
    tree = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## Label tracing")[0]
    names = [path.name for path in SOURCE.glob("*.py") if not path.name.startswith("_")]
    names += [f"{path.parent.name}/" for path in SOURCE.glob("*/__init__.py")]
    assert not [name for name in names if name not in tree]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    prose = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose)
    assert not [link for link in links if not (page.parent / link).exists()]
