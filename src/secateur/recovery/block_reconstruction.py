"""Block reconstruction: each layer refitted together with the layers that read it.

A refit fits the activations of the kept units to their dense values. The contribution of removed units is lost, except
for the part that their consumers can predict from the kept ones. Here a layer is fitted together with its consumers and
theirs, so that the outputs of the last of them equal those of the dense network while the layer's own activations are
free. This is a nonlinear least squares problem of a few layers at a time, as in block-wise reconstruction (Li et al.
2021, for quantised networks). As in a refit, errors that the nonlinearity behind a layer clips do not count.
"""

from collections.abc import Callable, Sequence

from secateur.data.batch import Batch
from secateur.evaluation.holdout import spread_microbatches
from secateur.graph.operators import arguments
from secateur.graph.program import Program
from secateur.graph.value_bytes import example_bytes
from secateur.recovery.adapt_rows import has_enough_equations
from secateur.recovery.block_problem import BlockProblem
from secateur.recovery.layer_positions import counted_examples
from secateur.recovery.mirrored_images import mirrored
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.reconstruction_layers import ReconstructionBlock, reconstruction_blocks
from secateur.recovery.reconstruction_terms import SharedTargets
from secateur.recovery.refit import pruned_layer_or_reason
from secateur.utils.progress import track

FEWEST = 4
EXAMPLES = 768
STEPS = 4
POLISH = 3
MEMORY = 1 << 30


def reconstruct_blocks(
    execution: PairedExecution,
    steps: int = STEPS,
    is_time_up: Callable[[], bool] = lambda: False,
    counted_microbatches: Sequence[Batch] | None = None,
    adds_mirrored: bool = False,
) -> bool:
    """Refit every layer together with the layers that read it, in the order in which they run.

    Microbatches from all over the examples are used: 768 examples together, or fewer where the outputs of the layers
    for them would take more than 1 GiB of memory.

    Nothing is changed where there are too few examples to hold any out: one or two can be fitted at any cost to others.
    Layers stay as they are where the examples give fewer equations than they have weights.

    Args:
        execution: both networks.
        steps: the most for each layer.
        is_time_up: called before each layer; once it returns True, the remaining layers stay as they are.
        counted_microbatches: the examples whose equations count; those of the execution by default.
        adds_mirrored: whether examples are images whose mirror images are used as well, as far as there is room.

    Returns:
        Whether there was time for all.
    """
    if sum(microbatch.size or 1 for microbatch in execution.microbatches) < FEWEST:
        return True
    cut_network, program = execution.cut_network, execution.cut_network.network.program
    blocks = list(reconstruction_blocks(cut_network.network))
    most = _most_examples(program, blocks)
    used_microbatches = spread_microbatches(execution.microbatches, most)
    if adds_mirrored:
        used_microbatches += _mirrored_within(used_microbatches, most)
    execution = PairedExecution(cut_network, used_microbatches, execution.memory)
    examples = min(
        counted_examples(program, microbatches)
        for microbatches in (used_microbatches, counted_microbatches or used_microbatches)
    )
    remaining = [block for block in blocks if has_enough_equations(block, cut_network.mask, examples, program)]
    consumers = (layer for block in remaining for layer in block.consumers)
    compared_layers = {layer for layer in consumers if pruned_layer_or_reason(layer, cut_network)[0]}
    shared = SharedTargets(cut_network.network, compared_layers, used_microbatches)
    for block in track(tuple(remaining), "adapted layers"):
        if is_time_up():
            return False
        remaining.remove(block)
        _solve_together(execution, block, shared, steps)
        shared.forget_all_but({layer for block in remaining for layer in (*block.producers, *block.consumers)})
    return True


def _solve_together(execution: PairedExecution, block: ReconstructionBlock, shared: SharedTargets, steps: int) -> None:
    """Solve for the layers of a block that can be refitted, if its first layer and one that is compared can."""
    choices = {
        layer: pruned_layer_or_reason(layer, execution.cut_network)[0] for layer in (*block.producers, *block.consumers)
    }
    pruned_layers = {layer: pruned_layer for layer, pruned_layer in choices.items() if pruned_layer is not None}
    consumers = [layer for layer in block.consumers if layer in pruned_layers]
    if block.producers[0] in pruned_layers and consumers:
        BlockProblem(execution, list(pruned_layers.values()), consumers, shared).solve(steps)


def _mirrored_within(microbatches: Sequence[Batch], most: int) -> list[Batch]:
    """Return the mirror images of microbatches from all over, so that there are at most so many with the others."""
    room = most - sum(microbatch.size or 1 for microbatch in microbatches)
    smallest = min(microbatch.size or 1 for microbatch in microbatches)
    return [mirrored(microbatch) for microbatch in spread_microbatches(microbatches, room)] if room >= smallest else []


def _most_examples(program: Program, blocks: Sequence[ReconstructionBlock]) -> int:
    """Return the number of examples for which the values of the largest block fit the memory."""
    return min(EXAMPLES, MEMORY // max((_bytes_of(program, block) for block in blocks), default=1))


def _bytes_of(program: Program, block: ReconstructionBlock) -> int:
    """Estimate the bytes that an example takes while these layers are refitted."""
    inputs = {arguments(layer.node)[layer.argument] for layer in block.producers}
    return (
        1
        + 2 * sum(example_bytes(program, node) for node in inputs)
        + sum(example_bytes(program, layer.node) for layer in block.consumers)
    )
