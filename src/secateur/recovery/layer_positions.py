"""The numbers of examples and of a layer's rows, in a program whose sizes the export recorded."""

import math
from collections.abc import Sequence

import torch

from secateur.data.batch import Batch
from secateur.graph.program import Program
from secateur.graph.value_bytes import recorded_examples, recorded_length
from secateur.masking.linear_layers import LinearLayer


def counted_examples(program: Program, microbatches: Sequence[Batch]) -> float:
    """Return the number of examples, in those of the recorded size: one of twice the length counts twice.

    Args:
        program: the program.
        microbatches: the examples.
    """
    shapes = {node: node.meta["val"].shape for node in program.inputs if getattr(node.meta.get("val"), "shape", ())}
    varying = {node: shape for node, shape in shapes.items() if any(isinstance(size, torch.SymInt) for size in shape)}
    recorded_positions = {node: math.prod(map(recorded_length, shape)) for node, shape in (varying or shapes).items()}
    if not recorded_positions:
        return float(sum(microbatch.size or 1 for microbatch in microbatches))
    multiples = 0.0  # of the recorded inputs; one that all examples share does not grow with them
    for microbatch in microbatches:
        values = program.bind(microbatch)
        multiples += max(values[node].numel() / max(entries, 1) for node, entries in recorded_positions.items())
    return multiples * recorded_examples(program)


def positions_per_example(layer: LinearLayer, program: Program) -> float:
    """Return the rows of a layer for an example of the recorded size; infinity where their number is not recorded.

    Rows of any axes count: positions may be folded into the first one, and examples may be along another.
    """
    lengths = layer.node.meta["val"].shape
    if any(isinstance(length, torch.SymInt) and length.node.hint is None for length in lengths):
        return math.inf
    return math.prod(map(recorded_length, lengths)) / recorded_examples(program) / len(layer.outputs)
