"""Fixtures and options of all tests."""

import gc
import logging
import os
from collections.abc import Callable, Iterator

import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from kept_exports import exports_kept
from repository import GOLDEN
from residual_network import Residual
from zoo import ZOO

MOST_OBJECTS = 300_000
"""The number of objects that a garbage collection looks at."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite", action="store_true", help="write golden files anew")


def pytest_configure() -> None:
    os.environ["SECATEUR_CACHE"] = ""  # times of this machine are not kept
    torch.set_num_threads(1)
    # pytest adds handlers to each logger that does not propagate; with one, torch would write a trace of every export
    logging.getLogger("torch.__trace").propagate = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the examples of docstrings, which have no marks of their own, and the tests of one network of the zoo.

    One process runs all tests of a network, which is then traced once.
    """
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(untrained_networks)
        if (name := network_of(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(name))


def pytest_collection_finish() -> None:
    """Keep the objects of all imports, which live as long as the process, out of every garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Keep the traces that tests share out of every garbage collection, too: they outlive their file of tests."""
    if nextitem is not None and item.path != nextitem.path and len(gc.get_objects()) > MOST_OBJECTS:
        gc.collect()
        gc.freeze()


def network_of(item: pytest.Item) -> str | None:
    """Return the name of the network of the zoo that a test is about; None for others."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    name = parameters.get("name")
    return name if isinstance(name, str) and name in ZOO else None


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with the golden file of that name."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--overwrite"):
            path.write_text(text + "\n", encoding="utf-8")
        assert text + "\n" == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def golden_section(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """Compares a text with a section of the golden file of that name; writes it anew in one process only."""

    def compare(name: str, section: str, text: str) -> None:
        path = GOLDEN / name
        sections = sections_of(path.read_text(encoding="utf-8")) if path.exists() else {}
        if request.config.getoption("--overwrite"):
            sections[section] = text
            path.write_text(
                "".join(f"=== {key}\n{value}\n" for key, value in sorted(sections.items())), encoding="utf-8"
            )
        assert text == sections[section]

    return compare


@pytest.fixture
def programs_kept() -> Iterator[None]:
    """Tests that use it export a model once for each example, however often they trace it."""
    with exports_kept():
        yield


@pytest.fixture(scope="session")
def residual() -> Residual:
    """The network of tests/support/residual_network.py in evaluation mode; tests leave it as it is."""
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture(scope="session")
def traced(residual: Residual) -> sc.Network:
    """The trace of `residual`."""
    return sc.trace(residual, torch.randn(2, 3, 6, 6))


def sections_of(text: str) -> dict[str, str]:
    """Split a golden file at the lines that begin with ===."""
    sections = (section.split("\n", 1) for section in ("\n" + text).split("\n=== ")[1:])
    return {title: body.removesuffix("\n") for title, body in sections}
