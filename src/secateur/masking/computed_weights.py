"""Weights that are computed from kept units, and so differ between coalitions.

A weight that is standardised or scaled to length 1 over its inputs is another where some of these are absent. Where a
batch holds several coalitions, the operators that use such a weight run for each coalition by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.errors import SecateurError
from secateur.graph.operators import module_path, operator_name
from secateur.graph.program import OpFn, OpOverride, Program

Handlers = Mapping[Node, OpOverride]


def is_shared_by_batch(program: Program, operand: Node) -> bool:
    """Return whether an operand is computed from parameters alone, and the same for all examples of a batch."""
    return operand in program.state_only and program.batch_axis(operand.meta.get("val")) is None


def by_coalition(program: Program, masked_nodes: Sequence[Node], by_mask: Sequence[Handlers]) -> dict[Node, OpOverride]:
    """Return the overrides of operators whose weights differ between coalitions.

    Args:
        program: the program.
        masked_nodes: the operators that read units of weights that are computed from parameters alone.
        by_mask: the overrides of all consumers for each coalition, in the order of the batch.
    """
    computed_nodes = _computed_from(program, [node for node in masked_nodes if node in program.state_only])
    users = [
        node
        for node in program.nodes
        if node.op == "call_function"
        and node not in computed_nodes
        and (computed_nodes & {*node.all_input_nodes} or node in masked_nodes)
    ]
    values = [_weights(program, computed_nodes, overrides) for overrides in by_mask]

    def run_each(node: Node, target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        results = []
        for at, (overrides, weights) in enumerate(zip(by_mask, values, strict=True)):
            arguments = _of_coalition(program, node, (args, kwargs), weights, at, len(by_mask))
            results.append(
                overrides[node](target, *arguments) if node in overrides else target(*arguments[0], **arguments[1])
            )
        return _stack_coalitions(program, node, results)

    return {node: _handler(run_each, node) for node in users}


def _handler(run_each: Callable[..., Any], node: Node) -> OpOverride:
    return lambda target, args, kwargs: run_each(node, target, args, kwargs)


def _computed_from(program: Program, sources: Sequence[Node]) -> set[Node]:
    """Return the operators on parameters alone that depend on some nodes, including the nodes."""
    dependent = {*sources}
    for node in program.nodes:
        if node in program.state_only and dependent & {*node.all_input_nodes}:
            dependent.add(node)
    return dependent


def _weights(program: Program, computed_nodes: set[Node], handlers: Handlers) -> dict[Node, Any]:
    """Compute the values of these operators with one coalition's overrides."""
    values: dict[Node, Any] = program.fixed()

    def value_of(node: Node) -> Any:
        if node not in values:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), value_of)
            handler = handlers.get(node)
            assert callable(node.target)
            values[node] = handler(node.target, args, kwargs) if handler else node.target(*args, **kwargs)
        return values[node]

    return {node: value_of(node) for node in program.nodes if node in computed_nodes}


def _of_coalition(
    program: Program, node: Node, arguments: Any, weights: Mapping[Node, Any], at: int, coalitions: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return an operator's arguments with one coalition's weights and its share of the batch."""

    def select(source: Any, value: Any) -> Any:
        if isinstance(source, Node) and source in weights:
            return weights[source]
        axis = program.batch_axis(source.meta.get("val")) if isinstance(source, Node) else None
        return value if axis is None or not isinstance(value, Tensor) else value.chunk(coalitions, axis)[at]

    sources = pytree.tree_leaves((node.args, node.kwargs))
    leaves, spec = pytree.tree_flatten(arguments)
    arguments_of_coalition: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(
        [select(source, value) for source, value in zip(sources, leaves, strict=True)], spec
    )
    return arguments_of_coalition


def _stack_coalitions(program: Program, node: Node, results: Sequence[Any]) -> Any:
    """Concatenate the coalitions' results to one batch.

    Raises:
        SecateurError: the result has no batch axis.
    """
    axis = program.batch_axis(node.meta.get("val"))
    if axis is None:
        raise SecateurError(
            f"{operator_name(node)} in {module_path(node) or 'the model itself'} gives one result for the whole batch, "
            "so several coalitions can't share one"
        )
    return torch.cat(list(results), axis)
