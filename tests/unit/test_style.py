"""Limits on how the code reads, counted by tools/naming.py; a limit is lowered when a count falls."""

from pathlib import Path

import pytest
from naming import findings, modules

import secateur

SOURCE = Path(secateur.__file__).parent
LIMITS = {
    "generic names": 2,
    "docstrings that open with a question word": 0,
    "top-level names with two definitions": 0,
    "files over 200 lines": 18,
    "functions over 25 lines": 12,
    "circles of imports between packages": 0,
    "tables of operators": 16,
}


@pytest.mark.parametrize("kind", LIMITS)
def test_the_source_keeps_the_limits(kind: str) -> None:
    locations = findings(modules([SOURCE]))[kind]
    assert len(locations) <= LIMITS[kind], "\n".join(locations)


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
