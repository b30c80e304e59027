"""Walks of label tracing through a program: one for units, more for what lies within heads and for experts."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.coupling.connected_components import find_components
from secateur.coupling.label_tracer import LabelTracer
from secateur.coupling.labels import Labels, Weight, squeeze_expanded
from secateur.coupling.rules.context import OpContext, freeze_arguments, frozen, tensors
from secateur.coupling.rules.registry import rule_of
from secateur.coupling.rules.rule_checks import apply_registered, is_registered
from secateur.coupling.shape_literals import ShapeLiteral, expanded_sizes, shape_literals_of
from secateur.coupling.trace_records import TracingScope
from secateur.graph.operators import arguments, module_path
from secateur.graph.program import Program
from secateur.utils.failure_text import failure_text


def trace_labels(program: Program, shapes: Mapping[Node, Any], by_width: bool = False) -> LabelTracer:
    """Walk through the program on labels; where there are heads, walk again with the entries of each head coupled.

    Args:
        program: the program.
        shapes: for every operator, its result on the example with `torch.Size` in place of tensors.
        by_width: units of attention are the same positions of all heads, in place of heads.
    """
    tracer = _walk(program, shapes, TracingScope(by_width=by_width))
    if not tracer.attention.within_heads:
        return tracer
    size = tracer.space.size
    component = torch.from_numpy(find_components(tracer.attention.within_heads, size))
    first = torch.full((int(component.max()) + 1,), size).scatter_reduce(0, component, torch.arange(size), "amin")
    return _walk(program, shapes, TracingScope(head_labels=first[component]))


def trace_experts(program: Program, shapes: Mapping[Node, Any], first_tracer: LabelTracer) -> LabelTracer | None:
    """Walk again with labels for experts alone: axes as long as the stacks of weights that were met.

    What is chosen by size decides which weights of the stack are used, though nothing flows from one to the other: they
    are coupled where they lie in one module.

    Args:
        program: the program.
        shapes: as of `trace_labels`.
        first_tracer: the first walk.

    Returns:
        The walk; None where there are no stacks of weights.
    """
    lengths = frozenset(weight.shape[0] for _, weight, _ in first_tracer.experts.stacks)
    if not lengths:
        return None
    tracer = _walk(program, shapes, TracingScope(stack_lengths=lengths))
    for node, labels, _ in tracer.experts.choices:
        holder = module_path(node).rpartition(".")[0]
        for product, weight, _ in tracer.experts.stacks:
            if module_path(product).startswith(holder) and weight.shape[0] == len(labels):
                tracer.couple(tracer.axis_labels(weight, 0, product), labels, product)
    return tracer


def _walk(program: Program, shapes: Mapping[Node, Any], scope: TracingScope) -> LabelTracer:
    tracer = LabelTracer(scope)
    weights = {name: tracer.weight(name, program.state(name).shape) for name in program.state_names.values()}
    labels: dict[Node, Any] = {}
    for node in program.nodes[:-1]:
        if node.op == "placeholder":
            name = program.state_names.get(node)
            labels[node] = weights[name] if name else frozen(shapes[node])
        elif node.op == "call_function":
            labels[node] = _result_labels(program, tracer, node, labels, shapes)
        for operand in node.all_input_nodes:
            if program.last_use[operand] <= program.position[node]:
                labels.pop(operand, None)
    for node in program.output_nodes:
        name = f" {program.output_names[node]}" if node in program.output_names else ""
        for value in tensors(labels[node]):
            tracer.freeze(value, node, f"is the network's output{name}")
    for node, dim, heads in tracer.attention.heads:
        tracer.notes.literals.extend(expanded_sizes(node, dim, heads))
    return tracer


def _result_labels(
    program: Program, tracer: LabelTracer, node: Node, labels: Mapping[Node, Any], shapes: Mapping[Node, Any]
) -> Any:
    """Return the labels of an operator's result; of a result without tensors, the result itself."""
    if node.target is operator.getitem:
        return labels[node.args[0]][node.args[1]]  # type: ignore[index]
    if not any(_is_shape(leaf) for leaf in pytree.tree_leaves(shapes[node], is_leaf=_is_shape)):
        return shapes[node]
    args = torch.fx.map_arg(arguments(node), lambda operand: labels.get(operand))
    op = OpContext(node, tracer, dict(args), shapes[node])
    result, literals = apply_registered(op) if is_registered(node) else _apply(op)
    tracer.notes.literals.extend(literals)
    if node in program.draws:
        tracer.notes.draws.append((node, tuple(squeeze_expanded(layer) for layer in _first_labels(result))))
    return result


def _apply(op: OpContext) -> tuple[Any, Sequence[ShapeLiteral]]:
    """Return the labels and the shape literals by the rule of an operator.

    Where the rule fails, what the operator touches is frozen, with the reason.
    """
    try:
        result = rule_of(op.node).labels(op)
        return result, tuple(shape_literals_of(op, result))
    except Exception as failure:  # noqa: BLE001 (a case that a rule does not cover must not end the trace)
        return freeze_arguments(op, f"its rule does not cover these arguments ({failure_text(failure)})"), ()


def _first_labels(result: Any) -> Iterator[Tensor]:
    """Yield the tensors of labels of the first result."""
    first: Labels | None = next(iter(tensors(result)), None)
    if first is not None:
        yield from first.labels if isinstance(first, Weight) else (first,)


def _is_shape(value: Any) -> bool:
    return isinstance(value, torch.Size)


def shapes_of(value: Any) -> Any:
    """Return a result with `torch.Size` in place of tensors."""
    return pytree.tree_map(lambda leaf: leaf.shape if isinstance(leaf, Tensor) else leaf, value)
