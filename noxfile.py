"""Tests with the supported versions of Python and of torch: `nox -s python` and `nox -s torch`; `nox -l` lists all."""

from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
TORCHES = ["2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0"]
QUICK = ["tests/unit/surgery", "tests/unit/coupling"]

nox.options.sessions = ["python"]
nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "uv|virtualenv"


@nox.session(python=PYTHONS)
def python(session: nox.Session) -> None:
    """Run the tests of a version of Python, or those that are named after `--`."""
    session.install("--constraint", "constraints.txt", "--editable", ".[dev]")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session(python="3.11")
@nox.parametrize("version", TORCHES)
def torch(session: nox.Session, version: str) -> None:
    """Run the tests of surgery and of coupling with a version of torch, or those that are named after `--`."""
    session.install(f"torch=={version}", "--editable", ".[dev]")
    session.run("python", "-m", "pytest", "-o", "addopts=", "-q", *(session.posargs or QUICK))


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the sdist and from it the wheel, install the wheel, and run the demo outside of the repository."""
    folder = Path(session.create_tmp()).resolve()
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(folder), ".")
    session.install(*map(str, folder.glob("*.whl")))
    session.chdir(folder)
    session.run("secateur", "demo", "--by", "l1", "--out", "small")
