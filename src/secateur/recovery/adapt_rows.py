"""The number of equations of block reconstruction, compared with that of the weights that it solves for.

Each output of a compared layer is an equation, at each row. A problem of few equations is solved exactly by weights
that say nothing of other examples.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.graph.program import Program
from secateur.graph.value_bytes import recorded_examples, recorded_length
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.adapt_memory import kept_weights
from secateur.recovery.reconstruction_layers import ReconstructionBlock, reconstruction_blocks

FEWEST_EQUATIONS = 1.0
"""The equations for each weight below which a problem is left out: with fewer, it has solutions without any error."""


def few_equations(network: Network, mask: Tensor, microbatches: Sequence[Batch]) -> str:
    """Return a text if every problem of block reconstruction has too few equations, else "".

    Args:
        network: the dense network.
        mask: which units are kept (units + 1,).
        microbatches: the examples that are fitted.
    """
    examples = counted_examples(network.program, microbatches)
    blocks = reconstruction_blocks(network)
    most = max((equations_per_weight(block, mask, examples, network.program) for block in blocks), default=0.0)
    if not 0 < most < FEWEST_EQUATIONS:
        return ""
    return (
        f"adapt was left out: the examples give at most {most:.2g} equations for a weight that it solves for; with "
        f"{FEWEST_EQUATIONS / most:.1f} times as many examples it would be tried"
    )


def has_enough_equations(block: ReconstructionBlock, mask: Tensor, examples: float, program: Program) -> bool:
    """Return True if layers can be solved for together; see `equations_per_weight`."""
    return equations_per_weight(block, mask, examples, program) >= FEWEST_EQUATIONS


def equations_per_weight(block: ReconstructionBlock, mask: Tensor, examples: float, program: Program) -> float:
    """Return the number of equations for each weight of the layers that are solved for together.

    It is infinite where the export recorded no number of rows, as that of tokens which the values select.

    Args:
        block: the layers.
        mask: which units are kept (units + 1,).
        examples: the number of examples, in those of the recorded size.
        program: the program of the layers.
    """
    weights = sum(kept_weights(layer, mask) for layer in dict.fromkeys((*block.makers, *block.consumers)))
    kept_outputs = {layer: int(mask[layer.outputs].sum()) for layer in block.consumers}
    equations = sum(_positions(layer, program) * count for layer, count in kept_outputs.items() if count)
    return examples * equations / max(weights, 1)


def counted_examples(program: Program, microbatches: Sequence[Batch]) -> float:
    """Return the number of examples, in those of the recorded size: one of twice the length counts twice.

    Args:
        program: the program.
        microbatches: the examples.
    """
    shapes = {node: node.meta["val"].shape for node in program.inputs if getattr(node.meta.get("val"), "shape", ())}
    varying = {node: shape for node, shape in shapes.items() if any(isinstance(size, torch.SymInt) for size in shape)}
    recorded = {node: math.prod(map(recorded_length, shape)) for node, shape in (varying or shapes).items()}
    if not recorded:
        return float(sum(microbatch.size or 1 for microbatch in microbatches))
    multiples = 0.0  # of the recorded inputs; one that all examples share does not grow with them
    for microbatch in microbatches:
        values = program.bind(microbatch)
        multiples += max(values[node].numel() / max(entries, 1) for node, entries in recorded.items())
    return multiples * recorded_examples(program)


def _positions(layer: LinearLayer, program: Program) -> float:
    """Return the rows of a layer for an example of the recorded size; infinity where their number is not recorded.

    Rows of any axes count: positions may be folded into the first one, and examples may be along another.
    """
    lengths = layer.node.meta["val"].shape
    if any(isinstance(length, torch.SymInt) and length.node.hint is None for length in lengths):
        return math.inf
    return math.prod(map(recorded_length, lengths)) / recorded_examples(program) / len(layer.outputs)
