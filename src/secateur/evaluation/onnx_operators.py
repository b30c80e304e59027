"""torch's table of the operators that ONNX can express, read once in a process."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from typing import Any
from unittest.mock import patch

from secateur.utils.process_lock import exclusive

REGISTRATION = "torch.onnx._internal.exporter._registration"


@contextmanager
def onnx_operators_read_once() -> Iterator[None]:
    """Let torch's exporter start from a copy of the table that it read first, within a context.

    It parses the source of 500 functions for the table, which takes longer than the export of a small network. A
    version of torch that has no such table is left alone.
    """
    registry = _exporter_registry()
    if registry is None:
        yield
        return
    read_table = registry.from_torchlib

    def copied_table(*args: Any, **kwargs: Any) -> Any:
        table = _first_table(read_table, *args, **kwargs)
        table_copy = copy(table)
        table_copy.functions = {operator: list(functions) for operator, functions in table.functions.items()}
        return table_copy

    with exclusive(), patch.object(registry, "from_torchlib", staticmethod(copied_table)):
        yield


def _exporter_registry() -> Any | None:
    """Return the class of the exporter's table; None where this version of torch has none of that name."""
    try:
        registry = importlib.import_module(REGISTRATION).ONNXRegistry
    except (ImportError, AttributeError):
        return None
    return registry if hasattr(registry, "from_torchlib") else None


@lru_cache
def _first_table(read_table: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the table of a version of ONNX's operators, which nobody changes."""
    return read_table(*args, **kwargs)
