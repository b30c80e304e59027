"""Block reconstruction: each layer refitted together with the layers that read it.

A refit fits the activations of the kept units to their dense values. The contribution of removed units is lost, except
for the part that their consumers can predict from the kept ones. Here a layer is fitted together with its consumers and
theirs, so that the outputs of the last of them equal those of the dense network while the layer's own activations are
free. This is a nonlinear least squares problem of a few layers at a time, as in block-wise reconstruction (Li et al.
2021, for quantised networks). As in a refit, errors that the nonlinearity behind a layer clips do not count.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from secateur.coupling.network import Network
from secateur.evaluation.holdout import output_spread
from secateur.graph.operators import arguments
from secateur.graph.program import Program
from secateur.graph.value_bytes import example_bytes
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.recovery.block_problem import BlockProblem
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.reconstruction_terms import SharedTargets
from secateur.recovery.refit import pruned_layer_or_reason
from secateur.utils.progress import track

DEPTH = 2
FEWEST = 4
EXAMPLES = 768
STEPS = 4
POLISH = 3
MEMORY = 1 << 30


def reconstruct_blocks(
    execution: PairedExecution, steps: int = STEPS, is_time_up: Callable[[], bool] = lambda: False
) -> bool:
    """Refit every layer together with the layers that read it, in the order in which they run.

    Cells from all over the examples are looked at, 768 examples together, or as many as what the layers give for them
    takes no more than 1 GiB of memory.

    Nothing is changed where there are too few examples to hold any out: one or two can be fitted at any cost to others.

    Args:
        execution: both networks.
        steps: the most for each layer.
        is_time_up: asked before each layer; those that are left when it is stay as they are.

    Returns:
        Whether there was time for all.
    """
    if sum(microbatch.size or 1 for microbatch in execution.microbatches) < FEWEST:
        return True
    remaining = list(reconstruction_blocks(execution.within.network))
    examples = _most_examples(execution.within.network.program, remaining)
    execution = PairedExecution(execution.within, output_spread(execution.microbatches, examples), execution.memory)
    compared = {
        layer
        for stretch in remaining
        for layer in stretch.consumers
        if pruned_layer_or_reason(layer, execution.within)[0]
    }
    shared = SharedTargets(execution.within.network, compared, execution.microbatches)
    for stretch in track(tuple(remaining), "adapted layers"):
        if is_time_up():
            return False
        remaining.remove(stretch)
        choices = {
            layer: pruned_layer_or_reason(layer, execution.within)[0] for layer in (*stretch.makers, *stretch.consumers)
        }
        pruned_layers = {layer: pruned_layer for layer, pruned_layer in choices.items() if pruned_layer is not None}
        consumers = [layer for layer in stretch.consumers if layer in pruned_layers]
        if stretch.makers[0] in pruned_layers and consumers:
            BlockProblem(execution, list(pruned_layers.values()), consumers, shared).solve(steps)
        shared.forget_all_but({layer for block in remaining for layer in (*block.makers, *block.consumers)})
    return True


@dataclass(frozen=True, eq=False)
class ReconstructionBlock:
    """Layers that are refitted together.

    Args:
        makers: a layer, and those that make units of the same group before any of them is read.
        consumers: the layers that read these units next, and those that read what these make.
    """

    makers: tuple[LinearLayer, ...]
    consumers: tuple[LinearLayer, ...]


def _most_examples(program: Program, blocks: Sequence[ReconstructionBlock]) -> int:
    """Return the number of examples for which the values of the largest block fit the memory."""
    return min(EXAMPLES, MEMORY // max((_bytes_of(program, block) for block in blocks), default=1))


def _bytes_of(program: Program, stretch: ReconstructionBlock) -> int:
    """Estimate the bytes that an example takes while these layers are refitted."""
    inputs = {arguments(layer.node)[layer.argument] for layer in stretch.makers}
    return (
        1
        + 2 * sum(example_bytes(program, node) for node in inputs)
        + sum(example_bytes(program, layer.node) for layer in stretch.consumers)
    )


def reconstruction_blocks(network: Network) -> Iterator[ReconstructionBlock]:
    """Yield every layer that produces units with the layers that read them, in the order in which they run."""
    layers = layers_of(network)
    covered: set[LinearLayer] = set()
    for layer in layers:
        makers, consumers = _next(network, layer, layers)
        if layer in covered or not consumers:
            continue
        covered |= set(makers)
        ring = consumers
        for _ in range(DEPTH - 1):
            ring = [next_layer for consumer in ring for next_layer in _next(network, consumer, layers)[1]]
            consumers = consumers + ring
        yield ReconstructionBlock(tuple(makers), tuple(sorted(set(consumers), key=layers.index)))


def _next(
    network: Network, layer: LinearLayer, layers: Sequence[LinearLayer]
) -> tuple[list[LinearLayer], list[LinearLayer]]:
    """Return a layer and the others that produce units of its group, and their consumers before the next producer."""
    group = next((candidate for candidate in network.groups if candidate.owns(layer.outputs)), None)
    makers, consumers = [layer], list[LinearLayer]()
    if group is None:
        return makers, consumers
    for candidate in layers[layers.index(layer) + 1 :]:
        if candidate.reads and group.owns(candidate.inputs):
            consumers.append(candidate)
        if group.owns(candidate.outputs):
            if consumers:
                break
            makers.append(candidate)
    return makers, consumers
