"""Weights that are computed from the units that stay, one for each coalition: they have no batch to stack them in.

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
from secateur.graph.program import OpFn, OpOverride, Program, module_path, operator_name

Handlers = Mapping[Node, OpOverride]


def is_shared_by_batch(program: Program, operand: Node) -> bool:
    """Whether an operand is computed from parameters alone, and the same for all examples of a batch."""
    return operand in program.state_only and program.batch_axis(operand.meta.get("val")) is None


def by_coalition(program: Program, masked: Sequence[Node], each: Sequence[Handlers]) -> dict[Node, OpOverride]:
    """Handlers of the operators that use weights which are others for each coalition.

    Args:
        program: the program.
        masked: the operators that read units of what is computed from parameters alone.
        each: every coalition's own handlers of all readers, in the order in which a batch holds them.
    """
    changed = _computed_from(program, [node for node in masked if node in program.state_only])
    users = [
        node
        for node in program.nodes
        if node.op == "call_function" and node not in changed and (changed & {*node.all_input_nodes} or node in masked)
    ]
    values = [_weights(program, changed, own) for own in each]

    def apart(node: Node, target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        results = []
        for at, (own, weights) in enumerate(zip(each, values, strict=True)):
            given = _of_coalition(program, node, (args, kwargs), weights, at, len(each))
            results.append(own[node](target, *given) if node in own else target(*given[0], **given[1]))
        return _stacked(program, node, results)

    return {node: _handler(apart, node) for node in users}


def _handler(apart: Callable[..., Any], node: Node) -> OpOverride:
    return lambda target, args, kwargs: apart(node, target, args, kwargs)


def _computed_from(program: Program, sources: Sequence[Node]) -> set[Node]:
    """Operators on parameters alone that depend on these, themselves included."""
    found = {*sources}
    for node in program.nodes:
        if node in program.state_only and found & {*node.all_input_nodes}:
            found.add(node)
    return found


def _weights(program: Program, changed: set[Node], handlers: Handlers) -> dict[Node, Any]:
    """What these operators give with one coalition's handlers."""
    values: dict[Node, Any] = program.fixed()

    def value_of(node: Node) -> Any:
        if node not in values:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), value_of)
            handler = handlers.get(node)
            assert callable(node.target)
            values[node] = handler(node.target, args, kwargs) if handler else node.target(*args, **kwargs)
        return values[node]

    return {node: value_of(node) for node in program.nodes if node in changed}


def _of_coalition(
    program: Program, node: Node, given: Any, weights: Mapping[Node, Any], at: int, coalitions: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An operator's arguments with one coalition's weights and its part of the batch."""

    def part(source: Any, value: Any) -> Any:
        if isinstance(source, Node) and source in weights:
            return weights[source]
        axis = program.batch_axis(source.meta.get("val")) if isinstance(source, Node) else None
        return value if axis is None or not isinstance(value, Tensor) else value.chunk(coalitions, axis)[at]

    sources = pytree.tree_leaves((node.args, node.kwargs))
    leaves, spec = pytree.tree_flatten(given)
    chosen: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(
        [part(source, value) for source, value in zip(sources, leaves, strict=True)], spec
    )
    return chosen


def _stacked(program: Program, node: Node, results: Sequence[Any]) -> Any:
    """The coalitions' results in one batch.

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
