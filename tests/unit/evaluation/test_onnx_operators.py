"""torch's table of ONNX operators: read once, and every export gets a copy."""

import importlib

import pytest
import torch

from secateur.evaluation import onnx_operators
from secateur.evaluation.onnx_operators import onnx_operators_read_once
from secateur.graph.torch_logs import torch_logs_silenced


def test_the_table_of_onnx_operators_is_read_once_and_left_as_it_was() -> None:
    registry = importlib.import_module(onnx_operators.REGISTRATION).ONNXRegistry
    read_table = registry.from_torchlib
    with onnx_operators_read_once():
        first, second = (registry.from_torchlib().functions for _ in range(2))
    assert registry.from_torchlib == read_table
    relu = next(name for name in first if str(name).startswith("aten::relu"))
    assert first[relu][0] is second[relu][0]  # read once
    count = len(second[relu])
    first[relu].clear()
    first.pop(relu)
    assert len(second[relu]) == count and len(second) == len(first) + 1
    assert second.keys() == read_table().functions.keys()


@pytest.mark.parametrize("registration", ["torch.onnx._internal.no_such_module", "torch.onnx"])
def test_a_version_of_torch_without_such_a_table_exports_as_it_does(
    registration: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_operators, "REGISTRATION", registration)
    with torch_logs_silenced(), onnx_operators_read_once():
        program = torch.onnx.export(torch.nn.ReLU(), (torch.ones(2),), dynamo=True, verbose=False)
    assert program is not None
