"""Shapes of results that are told at once are those that torch finds out by taking operators apart."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._decomp import decomposition_table
from torch._subclasses.fake_impls import get_fast_op_impls
from torch.nn import functional as F

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.export import export_program
from secateur.graph.shape_kernels import SYMBOLIC_KERNELS, WHOLE_KERNELS


class Function(nn.Module):
    """A function of one tensor that reads parameters."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.norm, self.rows = nn.BatchNorm2d(6), nn.LayerNorm((6, 4))
        self.linear, self.conv = nn.Linear(4, 3), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def activations(_: Any, x: Tensor) -> Tensor:
    x = F.hardswish(F.relu(x) + F.gelu(x) + F.silu(x), inplace=True)
    return F.relu6(F.hardsigmoid(F.hardtanh(x, inplace=True))).softmax(1)


FUNCTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "activations": activations,
    "activations of what lies in another order": lambda _, x: activations(_, x.transpose(1, 3)).flatten(1),
    "activations of every other entry": lambda _, x: activations(_, x[..., ::2]).flatten(1),
    "activations of whole numbers": lambda _, x: F.relu((10 * x).long()).float() + torch.sigmoid((10 * x).long()),
    "batch norm": lambda self, x: self.norm(x.transpose(1, 2).contiguous().transpose(1, 2)),
    "layer norm": lambda self, x: self.rows(x.transpose(1, 2)),
    "group norm": lambda _, x: F.group_norm(x, 3) + F.group_norm(x.transpose(1, 2), 2).transpose(1, 2),
    "linear": lambda self, x: self.linear(x) + F.linear(x[0, 0], self.weight),
    "linear in a lower type": lambda self, x: F.linear(x.bfloat16(), self.weight.bfloat16()).float(),
    "matrices by a matrix": lambda self, x: x @ self.weight.T,
    "matrices by matrices": lambda _, x: x @ x.transpose(-2, -1),
    "matrices by fewer matrices": lambda _, x: x @ x[:, :1].transpose(-2, -1) + x[0] @ x.transpose(-2, -1),
    "a matrix by matrices": lambda self, x: self.weight @ x.transpose(-2, -1),
    "convolution": lambda self, x: self.conv(x) + self.conv(x.transpose(2, 3)).transpose(2, 3),
    "convolution of channels that lie side by side": lambda self, x: self.conv(x.to(memory_format=torch.channels_last)),
    "convolution in strides": lambda self, x: F.conv2d(x, self.conv.weight, None, 2, 1, 1, 2),
    "convolution with gaps": lambda self, x: F.conv2d(x, self.conv.weight, None, 1, 2, 2, 2),
    "convolution without padding": lambda self, x: F.conv2d(x, self.conv.weight, groups=2),
    "convolution of a sequence": lambda self, x: F.conv1d(x[..., 0], self.conv.weight[..., 0], padding=1, groups=2),
    "convolution of one image": lambda self, x: self.conv(x[0]) + x,
    "transposed convolution": lambda self, x: F.conv_transpose2d(x, self.conv.weight, stride=2, groups=2),
    "interpolation": lambda _, x: (
        F.interpolate(x, size=(9, x.shape[2] * 2), mode="bilinear") + F.interpolate(x, size=(9, 2 * x.shape[2]))
    ),
    "interpolation of channels that lie side by side": lambda _, x: F.interpolate(
        x.to(memory_format=torch.channels_last), size=(9, x.shape[2] * 2), mode="bilinear"
    ),
    "interpolation of every other channel": lambda _, x: F.interpolate(
        x.to(memory_format=torch.channels_last)[:, ::2], size=(9, x.shape[2] * 2), mode="bilinear"
    ),
    "interpolation by a factor": lambda _, x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True),
    "a vector by matrices": lambda self, x: x @ self.weight[0],
}


def shapes_found(model: nn.Module, batch: Batch, axes: Any) -> list[tuple[str, str, str]]:
    """Every operator with the shape, type and order in memory of its result, as the program says them."""
    nodes = export_program(model, batch, axes).nodes
    return [
        (
            str(node.target),
            str(tuple(node.meta["val"].shape)),
            f"{node.meta['val'].dtype}, {orders(node.meta['val'])}",
        )
        for node in nodes
        if node.op == "call_function" and isinstance(node.meta.get("val"), Tensor)
    ]


def orders(tensor: Tensor) -> str:
    """The axes by descending stride."""
    hints = [int(n.node.hint) if isinstance(n, torch.SymInt) else n for n in tensor.stride()]
    return str(sorted(range(tensor.dim()), key=lambda axis: -hints[axis]))


@pytest.mark.parametrize("axes", [(), [(1, 2)]], ids=["batch", "further axes"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_shapes_are_those_that_torch_finds(name: str, axes: Any) -> None:
    torch.manual_seed(0)
    model, batch = Function(FUNCTIONS[name]).eval(), Batch((torch.randn(5, 6, 6, 4),), {})
    with patch.dict(SYMBOLIC_KERNELS, clear=True), patch.dict(WHOLE_KERNELS, clear=True):
        expected = shapes_found(model, batch, axes)
    assert shapes_found(model, batch, axes) == expected
    assert any("s" in shape for _, shape, _ in expected)


def test_nothing_is_taken_apart_whose_shape_is_plain() -> None:
    operators = [operator for operator in SYMBOLIC_KERNELS if operator in decomposition_table]
    refused = dict.fromkeys(operators, lambda *_, **__: pytest.fail("taken apart"))
    model = Function(lambda self, x: self.norm(F.hardswish(F.relu(self.rows(x)))))
    with patch.dict(decomposition_table, refused):
        export_program(model.eval(), Batch((torch.randn(5, 6, 6, 4),), {}))
    assert len(operators) > 4


def test_lengths_that_do_not_fit_are_conditions_of_the_program() -> None:
    """A free axis that a weight fixes is fixed, whoever tells the shape."""
    model = Function(lambda self, x: self.linear(x)).eval()
    program = export_program(model, Batch((torch.randn(5, 2, 6, 4),), {}), [(3,)])
    assert program.nodes[-1].all_input_nodes[0].meta["val"].shape[-1] == 3
    with pytest.raises(DataError):
        export_program(model, Batch((torch.randn(5, 2, 6, 7),), {}))


def test_torch_has_its_own_kernels_afterwards() -> None:
    fast, whole = dict(get_fast_op_impls()), {operator: dict(operator.py_kernels) for operator in WHOLE_KERNELS}
    export_program(Function(lambda self, x: self.linear(x)).eval(), Batch((torch.randn(5, 2, 6, 4),), {}))
    assert get_fast_op_impls() == fast
    assert {operator: dict(operator.py_kernels) for operator in WHOLE_KERNELS} == whole
