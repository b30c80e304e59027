"""Limits on how the code reads, counted by tools/naming.py; a limit is lowered when a count falls."""

from functools import cache
from pathlib import Path

import pytest
from naming import findings, modules

import secateur
from repository import ROOT

SOURCE = Path(secateur.__file__).parent
FOLDERS = {
    "source": [SOURCE],
    "benchmarks and examples": [ROOT / "benchmarks", ROOT / "examples"],
    "tests": [ROOT / "tests"],
}
LIMITS = {
    "generic names": 1,
    "docstrings that open with a question word": 0,
    "top-level names with two definitions": 0,
    "files over 200 lines": 12,
    "functions over 25 lines": 0,
    "circles of imports between packages": 0,
    "tables of operators": 16,
}
LIMITS_ELSEWHERE = {
    "benchmarks and examples": dict.fromkeys(LIMITS, 0) | {"tables of operators": 1},
    "tests": dict.fromkeys(LIMITS, 0)
    | {
        "top-level names with two definitions": 70,  # most are networks and data that one test alone uses
        "files over 200 lines": 35,
        "functions over 25 lines": 17,
        "tables of operators": 1,
    },
}
pytestmark = pytest.mark.xdist_group("style")  # the files are read once
CASES = [(folder, kind) for folder in FOLDERS for kind in LIMITS]


@cache
def locations_in(folder: str) -> dict[str, list[str]]:
    return findings(modules(FOLDERS[folder]))


@pytest.mark.parametrize(("folder", "kind"), CASES)
def test_each_folder_keeps_its_limits(folder: str, kind: str) -> None:
    locations = locations_in(folder)[kind]
    assert len(locations) <= LIMITS_ELSEWHERE.get(folder, LIMITS)[kind], "\n".join(locations)


BAD_PACKAGE = {
    "secateur/a/__init__.py": "from secateur.b import found\n",
    "secateur/b/__init__.py": '"""What b is."""\nfrom secateur.a import c\n\ndef twice(): ...\n\nfound = 1\n',
    "secateur/c.py": "def twice(): ...\n\nTABLE = {'add': 1, 'mul': 2}\n",
    "secateur/d.py": "def long():\n" + "    x = 1\n" * 210,
}


def test_each_kind_of_finding_is_counted(tmp_path: Path) -> None:
    for name, text in BAD_PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    counts = {kind: len(locations) for kind, locations in findings(modules([tmp_path])).items()}
    assert counts == dict.fromkeys(LIMITS, 1) | {"classes": 0}
