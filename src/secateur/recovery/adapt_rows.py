"""The number of equations of block reconstruction, compared with that of the weights that it solves for.

Each output of a compared layer is an equation, at each row. A problem of few equations is solved exactly by weights
that say nothing of other examples.
"""

from collections.abc import Sequence

from torch import Tensor

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.graph.program import Program
from secateur.recovery.adapt_memory import kept_weights
from secateur.recovery.layer_positions import counted_examples, positions_per_example
from secateur.recovery.reconstruction_layers import ReconstructionBlock, reconstruction_blocks
from secateur.utils.plurals import times_as_many

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
    most_equations = max(
        (equations_per_weight(block, mask, examples, network.program) for block in blocks), default=0.0
    )
    if not 0 < most_equations < FEWEST_EQUATIONS:
        return ""
    return (
        f"adapt was left out: the examples give at most {most_equations:.2g} equations for a weight that it solves "
        f"for; with {times_as_many(FEWEST_EQUATIONS / most_equations)} examples it would be tried"
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
    weights = sum(kept_weights(layer, mask) for layer in dict.fromkeys((*block.producers, *block.consumers)))
    kept_outputs = {layer: int(mask[layer.outputs].sum()) for layer in block.consumers}
    equations = sum(positions_per_example(layer, program) * count for layer, count in kept_outputs.items() if count)
    return examples * equations / max(weights, 1)
