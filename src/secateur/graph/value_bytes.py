"""Bytes of the values of a program for one example, as far as the export recorded their shapes."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.graph.functionalize import is_alias
from secateur.graph.program import Program


def example_bytes(program: Program, node: Any) -> int:
    """Return the bytes of an operator's result for one example; 0 for what is no tensor, or is the same for all.

    Args:
        program: the program.
        node: the operator, or an argument of one that may be another value.
    """
    recorded_value = node.meta.get("val") if isinstance(node, Node) else None
    tensors = [value for value in pytree.tree_leaves(recorded_value) if isinstance(value, Tensor)]
    if program.batched is not None:
        tensors = [value for value in tensors if program.batch_axis(value) is not None]
    return sum(map(_recorded_bytes, tensors)) // recorded_examples(program)


def examples_within(program: Program, limit: int) -> int:
    """Return the number of examples with which a pass with gradients holds at most so many bytes: a power of two.

    Usual batches are divided evenly by these. All results of operators are counted, as a backward pass may read them;
    views take no memory of their own.

    Args:
        program: the program.
        limit: the bytes that all results together may take.
    """
    operators = (node for node in program.nodes if node.op == "call_function" and not is_alias(node))
    needed_bytes = sum(example_bytes(program, node) for node in operators)
    fitting = max(limit // max(needed_bytes, 1), 1)
    return 1 << (fitting.bit_length() - 1)


def last_small_position(program: Program, share: float) -> int:
    """Return the last position before which the values take at most a share of the output's bytes; else the first.

    In a language model it is that of the product with the vocabulary.

    Args:
        program: the program.
        share: the share of the bytes of the output.
    """
    end = program.position[program.nodes[-1]]  # of the outputs
    most_bytes = share * sum(example_bytes(program, node) for node in set(program.output_nodes))
    totals = live_bytes_by_position(program)
    return max(
        (position for position in range(program.first, end) if totals[position] <= most_bytes), default=program.first
    )


def live_bytes_by_position(program: Program) -> list[int]:
    """Return the bytes of one example's values that are there before each position and are read there or later.

    Parameters, buffers and constants are none of these: they stay, wherever a run stops.
    """
    changes = [0] * (len(program.nodes) + 2)  # of the bytes of the values before each position
    for node in program.nodes:
        if node in program.state_names or node in program.constants:
            continue
        position, size = program.position[node], example_bytes(program, node)
        changes[position + 1] += size
        changes[max(program.last_use[node], position) + 1] -= size
    return list(itertools.accumulate(changes))


def recorded_examples(program: Program) -> int:
    """Return the length of the first axis of the first input in the export, along which the examples are."""
    shapes = (getattr(node.meta.get("val"), "shape", ()) for node in program.inputs)
    return next((recorded_length(shape[0]) for shape in shapes if shape), 1)


def recorded_length(length: int | torch.SymInt) -> int:
    """Return a length that the export recorded; a symbol has the example's, and stays one that may vary."""
    return length if isinstance(length, int) else int(length.node.hint or 1)


def _recorded_bytes(value: Tensor) -> int:
    return math.prod(map(recorded_length, value.shape)) * value.element_size()
