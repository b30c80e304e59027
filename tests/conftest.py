"""What all tests share."""

import os
from collections.abc import Callable

import pytest
import torch

from repository import GOLDEN


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite", action="store_true", help="write golden files anew")


def pytest_configure() -> None:
    os.environ["SECATEUR_CACHE"] = ""  # times of this machine are not kept
    torch.set_num_threads(1)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with the golden file of that name."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--overwrite"):
            path.write_text(text + "\n", encoding="utf-8")
        assert text + "\n" == path.read_text(encoding="utf-8")

    return compare
