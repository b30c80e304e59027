"""Results of a program's operators on the example: their shapes and their MACs."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from secateur.coupling.label_walk import shapes_of
from secateur.data.batch import Batch
from secateur.graph.program import OpFn, OpOverride, Program


@dataclass(frozen=True)
class Results:
    """Results of every operator on the example.

    Args:
        shapes: its result, with `torch.Size` in place of tensors.
        macs: the MACs that torch counts in it.
    """

    shapes: dict[Node, Any]
    macs: dict[Node, int]


def results_of(program: Program, example: Batch) -> Results:
    """Run the program on the example and watch every operator."""
    shapes = _bound_shapes(program, example)
    macs: dict[Node, int] = {}

    def watch(node: Node) -> OpOverride:
        def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            before = counter.get_total_flops()
            result = target(*args, **kwargs)
            macs[node] = (counter.get_total_flops() - before) // 2
            shapes[node] = shapes_of(result)
            return result

        return handler

    handlers = {node: watch(node) for node in program.nodes if node.op == "call_function"}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        program.forward(example, handlers)
    return Results(shapes, macs)


def recorded_shapes(program: Program, example: Batch) -> dict[Node, Any]:
    """Return the results' shapes as the export recorded them, without running an operator.

    Where a length depends on values in tensors, or the program was exported with an example of other sizes, the program
    is run.
    """
    shapes = _bound_shapes(program, example)
    try:
        _check_recorded_inputs(program, example)
        return {**shapes, **{node: _recorded_result(node) for node in program.nodes if node.op == "call_function"}}
    except UnrecordedLengthError:
        return results_of(program, example).shapes


def counted_macs(program: Program, example: Batch, nodes: Iterable[Node]) -> dict[Node, int]:
    """Return the MACs that torch counts in some operators on the example, run on tensors without data.

    Where an operator can't be run so, or the program was exported with an example of other sizes, the program is run.
    """
    selected_nodes = list(nodes)
    try:
        _check_recorded_inputs(program, example)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            return {node: _macs_of(node, counter) for node in selected_nodes if _may_count(node.target)}
    except Exception:  # noqa: BLE001 operators raise many types where they need data
        macs = results_of(program, example).macs
        return {node: macs[node] for node in selected_nodes if node in macs}


class UnrecordedLengthError(Exception):
    """The error for a length that an export did not record as a number."""


def _bound_shapes(program: Program, example: Batch) -> dict[Node, Any]:
    """Return the shapes of inputs, parameters, buffers and constants."""
    return {node: shapes_of(value) for node, value in {**program.bind(example), **program.fixed()}.items()}


def _check_recorded_inputs(program: Program, example: Batch) -> None:
    """Check that an example has the sizes of the one that the program was exported with.

    Raises:
        UnrecordedLengthError: it has others.
    """
    for node, value in program.bind(example).items():
        if isinstance(value, Tensor) and _recorded_result(node) != value.shape:
            raise UnrecordedLengthError


def _recorded_result(node: Node) -> Any:
    """Return an operator's result as the export recorded it.

    Raises:
        UnrecordedLengthError: it has a length that was no number.
    """
    if "val" not in node.meta:
        raise UnrecordedLengthError
    return pytree.tree_map(_without_symbols, node.meta["val"])


def _without_symbols(value: Any) -> Any:
    """Return the shape of a tensor, or a number, with the example's value in place of symbols."""
    if isinstance(value, Tensor):
        return torch.Size([_without_symbols(length) for length in value.shape])
    if not isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return value
    hint = value.node.hint
    if hint is None:
        raise UnrecordedLengthError
    return hint


ATEN: Any = torch.ops.aten
NORMS = (ATEN.batch_norm, ATEN.layer_norm, ATEN.group_norm, ATEN.instance_norm, ATEN.rms_norm)
WITHOUT_MACS = (*NORMS, ATEN.dropout, ATEN.pad, ATEN.softmax, ATEN.to, ATEN.max_pool2d, ATEN.adaptive_avg_pool2d)
"""Operators that torch would take apart in vain; they are in most networks."""


@cache
def _may_count(operator: Any) -> bool:
    """Return whether torch counts MACs in an operator: by a formula, or in the operators that it consists of."""
    if not isinstance(operator, torch._ops.OpOverload) or torch.Tag.pointwise in operator.tags:
        return False
    if operator.overloadpacket in WITHOUT_MACS or any(r.alias_info is not None for r in operator._schema.returns):
        return False
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return operator.overloadpacket in flop_registry or operator.has_kernel_for_dispatch_key(composite)


def _macs_of(node: Node, counter: FlopCounterMode) -> int:
    """Return the MACs of an operator, run on tensors without data."""
    args, kwargs = torch.fx.map_arg(
        (node.args, node.kwargs), lambda operand: pytree.tree_map(_without_data, operand.meta["val"])
    )
    before: int = counter.get_total_flops()
    assert callable(node.target)
    node.target(*args, **kwargs)
    return (counter.get_total_flops() - before) // 2


def _without_data(value: Any) -> Any:
    """Return a tensor without data of the example's shape, or a number."""
    number = _without_symbols(value)
    return torch.empty(number, dtype=value.dtype, device="meta") if isinstance(value, Tensor) else number
