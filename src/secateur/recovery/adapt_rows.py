"""The number of equations of block reconstruction, compared with that of the weights that it solves for.

Each output of a compared layer is an equation, at each row. A problem of few equations is solved exactly by weights
that say nothing of other examples.
"""

import math
from collections.abc import Sequence

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
    most = max((equations_per_weight(block, mask, examples) for block in blocks), default=0.0)
    if not 0 < most < FEWEST_EQUATIONS:
        return ""
    return (
        f"adapt was left out: the examples give at most {most:.2g} equations for a weight that it solves for; with "
        f"{FEWEST_EQUATIONS / most:.1f} times as many examples it would be tried"
    )


def has_enough_equations(block: ReconstructionBlock, mask: Tensor, examples: float) -> bool:
    """Return True if layers can be solved for together; see `equations_per_weight`."""
    return equations_per_weight(block, mask, examples) >= FEWEST_EQUATIONS


def equations_per_weight(block: ReconstructionBlock, mask: Tensor, examples: float) -> float:
    """Return the number of equations for each weight of the layers that are solved for together.

    Args:
        block: the layers.
        mask: which units are kept (units + 1,).
        examples: the number of examples, in those of the recorded size.
    """
    weights = sum(kept_weights(layer, mask) for layer in dict.fromkeys((*block.makers, *block.consumers)))
    outputs = sum(_positions(layer) * int(mask[layer.outputs].sum()) for layer in block.consumers)
    return examples * outputs / max(weights, 1)


def counted_examples(program: Program, microbatches: Sequence[Batch]) -> float:
    """Return the number of examples, in those of the recorded size: one of twice the length counts twice.

    Args:
        program: the program.
        microbatches: the examples.
    """
    sized = [node for node in program.inputs if getattr(node.meta.get("val"), "shape", ())]
    if not sized:
        return float(sum(microbatch.size or 1 for microbatch in microbatches))
    recorded = math.prod(map(recorded_length, sized[0].meta["val"].shape)) / recorded_examples(program)
    entries: int = sum(program.bind(microbatch)[sized[0]].numel() for microbatch in microbatches)
    return entries / max(recorded, 1)


def _positions(layer: LinearLayer) -> int:
    """Return the rows of a layer for an example of the recorded size."""
    result = layer.node.meta["val"]
    return max(math.prod(map(recorded_length, result.shape[1:])) // len(layer.outputs), 1)
