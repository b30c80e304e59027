"""Tests with the supported versions of Python and of torch: `nox -s python` and `nox -s torch`; `nox -l` lists all.

Both sessions run `QUICK`, a cross-section of a few minutes, or the tests that are named after `--`.
"""

from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
TORCHES = ["2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0"]
QUICK = [
    "tests/unit/graph/test_calls.py",  # tracing: calls of models of transformers, wrapped models
    "tests/unit/graph/test_wrappers.py",
    "tests/unit/coupling/test_operators.py",  # rules of operators, masks and second derivatives
    "tests/unit/coupling/test_any_network.py",
    "tests/unit/allocation/test_group_sizes.py",
    "tests/unit/surgery/test_cut.py",  # cuts, saved files, caches of language models
    "tests/unit/surgery/test_lineage.py",
    "tests/unit/surgery/test_cached_generation.py",
    "tests/unit/recovery/test_custom_repair.py",
    "tests/unit/deployment",  # ONNX and torch.export
    "tests/unit/cli",
    "tests/integration/test_saving.py",
]

nox.options.sessions = ["python"]
nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "uv|virtualenv"


@nox.session(python=PYTHONS)
def python(session: nox.Session) -> None:
    """Run tests with a version of Python and the other packages as constraints.txt has them."""
    session.install("--constraint", "constraints.txt", "--editable", ".[dev]")
    run_tests(session)


@nox.session(python="3.11")
@nox.parametrize("version", TORCHES)
def torch(session: nox.Session, version: str) -> None:
    """Run tests with a version of torch and the newest of the other packages."""
    session.install(f"torch=={version}", "--editable", ".[dev]")
    run_tests(session)


def run_tests(session: nox.Session) -> None:
    """Run the tests named after `--`, or the cross-section."""
    tests = session.posargs or QUICK
    session.run("python", "-m", "pytest", "-o", "addopts=", "-q", *tests, env={"OMP_NUM_THREADS": "1"})


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the sdist and from it the wheel, install the wheel, and run the demo outside of the repository."""
    folder = Path(session.create_tmp()).resolve()
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(folder), ".")
    session.install(*map(str, folder.glob("*.whl")))
    session.chdir(folder)
    session.run("secateur", "demo", "--by", "l1", "--out", "small")
