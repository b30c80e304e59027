"""The package: the sdist holds all that the tests need, and the declared versions are those of the sessions."""

import re
import tomllib

from repository import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = ("tests", "docs", "tools", "examples", "benchmarks")
AUTOMATIC = {"src", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "setup.cfg", "PKG-INFO"}
MADE = {"out", "build", "dist"}


def test_the_sdist_holds_every_file_of_the_repository() -> None:
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    grafted = {line.split()[1] for line in lines if line.startswith("graft ")}
    included = {name for line in lines if line.startswith("include ") for name in line.split()[1:]}
    assert set(NEEDED) <= grafted
    entries = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - AUTOMATIC - MADE
    assert entries - grafted == included


def test_sessions_cover_the_declared_versions() -> None:
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    classifiers = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)]
    assert f"PYTHONS = {classifiers}".replace("'", '"') in text
    least = next(name for name in PROJECT["dependencies"] if name.startswith("torch"))
    assert f'TORCHES = ["{least.partition(">=")[2]}.0"' in text


def test_all_holds_every_extra_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    names = set(re.search(r"\[(.*)\]", extras["all"][0])[1].split(","))  # type: ignore[index]
    assert set(extras) - {"all", "dev", "onnxruntime"} <= names
