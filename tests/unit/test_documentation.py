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


def test_tests_that_pages_name_exist() -> None:
    files = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py")}
    everything = "\n".join(files.values())
    prose = "\n".join(page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "CONTRIBUTING.md"])
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", prose)
    assert len(named) > 20
    assert not [(path, test) for path, test in named if path not in files or f"def {test}" not in files[path] + "def "]
    assert not [test for test in re.findall(r"`(test_\w+)`", prose) if f"def {test}(" not in everything]


def test_the_design_page_opens_with_a_map_of_its_decisions() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    subjects = page.split("## Where to find a subject")[1].split("\n## ")[0]
    headings = re.findall(r"^###+ (.+)$", page.split("\n## Decisions\n")[1].split("\n## Laws\n")[0], re.MULTILINE)
    anchors = [re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).lower()) for heading in headings]
    missing = [anchor for anchor in anchors if f"](#{anchor})" not in subjects]
    assert len(headings) > 100 and not missing, f"add to the map: {missing}"


def test_figures_of_the_first_page_are_those_of_the_page_of_published_networks() -> None:
    rows = re.findall(r"^\| [\w -]+, .+%.+\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    published = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    figures = [figure for row in rows for figure in re.findall(r"\d+\.\d+", row)]
    assert len(figures) >= 8 and not [figure for figure in figures if figure not in published]
