"""Operators that write to their inputs are replaced one by one where nobody sees the write."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from secateur.data.batch import Batch
from secateur.graph.export import export_program
from secateur.graph.operators import operator_name


class Written(nn.Module):
    """A fresh tensor that is written to at places, which are booleans or whole numbers."""

    def __init__(self, operator: str) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        index = torch.tensor([2, 0])
        if self.operator == "masked_fill_":
            return x + torch.zeros_like(x > 0, dtype=x.dtype).masked_fill_(x > 0, 2.0)
        if self.operator == "index_add_":
            return torch.exp(x).index_add_(1, index, x[:, :2])
        return torch.exp(x).scatter_(1, index.expand(x.shape[0], 2), x[:, :2])


@pytest.mark.parametrize("operator", ["masked_fill_", "index_add_", "scatter_"])
def test_masks_and_indices_have_types_of_their_own(operator: str) -> None:
    """Taking a program apart means exporting it once more, so that a plain write must not lead to it."""
    model, x = Written(operator).eval(), torch.randn(4, 3)
    refused = patch.object(ExportedProgram, "run_decompositions", lambda *_: pytest.fail("taken apart"))
    with refused:
        program = export_program(model, Batch((x,), {}))
    assert not program.writes
    assert operator not in {operator_name(node) for node in program.nodes if node.op == "call_function"}
    assert torch.equal(program.forward(Batch((x,), {})), model(x))


def test_writes_that_change_the_type_are_seen() -> None:
    """`a.add_(b)` keeps the type of a where `a.add(b)` would give that of b."""

    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(x).add_((x > 0).double()) + x

    model, x = Mixed().eval(), torch.randn(4, 3)
    program = export_program(model, Batch((x,), {}))
    assert program.writes
    assert program.forward(Batch((x,), {})).dtype == model(x).dtype == torch.float32
