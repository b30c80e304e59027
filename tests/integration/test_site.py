"""The documentation site: it builds, every link leads somewhere, and the reference describes every public name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import secateur

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("site")  # it is built once


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return folder


def test_the_reference_describes_every_public_name(site: Path) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").rglob("*.html"))
    described = set(re.findall(r'id="secateur\.(\w+)"', pages))
    assert set(secateur.__all__) - {"SecateurError", "SecateurWarning", "__version__"} <= described


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        assert not loaded, page


def test_the_reference_shows_values_where_the_source_has_names(site: Path) -> None:
    page = (site / "reference" / "pruning" / "index.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert 'by: CriterionLike = "obs"' in text and "rounds: int = 1" in text and "DEFAULTS" not in text
