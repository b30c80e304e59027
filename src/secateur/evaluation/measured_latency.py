"""The measurement of a latency table: the times of a network's layers at several sizes, on this machine."""

import torch
from torch import nn

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.evaluation.generation import GenerationPhase
from secateur.evaluation.generation_calls import generation_calls
from secateur.evaluation.latency_measurement import LatencyMeasurement
from secateur.evaluation.latency_table import LatencyTable, with_overhead, with_weights_read
from secateur.evaluation.runtimes import EAGER, check_runtime
from secateur.evaluation.timing import sweep_seconds
from secateur.graph.contexts import isolated_evaluation
from secateur.options.call_checks import checked_calls
from secateur.utils.progress import counted


@checked_calls
def measure_latency(network: Network, batch: Batch, runtime: str = EAGER, total: float | None = None) -> LatencyTable:
    """Time every layer of a network on one batch, as it is and smaller, and all other operators as they are.

    Layers run in the layout and on as many threads as the network does. Their times are kept on disk for the next run
    (`secateur.evaluation.saved_timings`).

    Args:
        network: the network.
        batch: the batch that it runs on.
        runtime: "eager" for torch's kernels, or "onnxruntime", which is timed layer by layer: operators between layers
            are fused with these there, so that the time of the whole network beyond its layers is divided among such
            operators by the numbers of entries that they make.
        total: seconds of the whole network; by default there is no time beyond what is timed. In torch the time beyond
            operators is a constant of each layer.

    Raises:
        OptionError: onnxruntime is not installed.

    Examples:
        >>> import secateur as sc
        >>> from secateur.data.conversion import as_batches
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> table = measure_latency(sc.trace(model, torch.randn(2, 4)), as_batches(torch.randn(2, 4))[0])
        >>> len(table.layers), table.dense_seconds > 0
        (2, True)
    """
    check_runtime(runtime)
    measurement = LatencyMeasurement(network, runtime)
    overrides = {node: measurement.override(node) for node in network.program.nodes if node.op == "call_function"}
    with torch.no_grad(), counted("timed operators", len(overrides)):
        network.program.forward(batch, overrides)
    measurement.timings.save()
    return with_overhead(measurement.table(None), total) if runtime == EAGER else measurement.table(total)


def measure_generation(
    network: Network, batch: Batch, model: nn.Module, phase: GenerationPhase, total: float
) -> LatencyTable:
    """Time every layer of a network as a phase of text generation runs it, and attention with the keys of the cache.

    Args:
        network: the network.
        batch: a batch that it runs on.
        model: the dense model.
        phase: the phase.
        total: seconds of the whole phase. Of the time beyond layers and attention, that of reading the layers' weights
            from memory goes by their bytes, and the rest is a constant of each layer.
    """
    measurement = LatencyMeasurement(network, EAGER, generation_calls(model, phase))
    nodes = [node for node in network.program.nodes if node.op == "call_function"]
    with torch.no_grad(), counted("timed operators", len(nodes)):
        network.program.forward(batch, {node: measurement.override(node) for node in nodes})
        with isolated_evaluation(model, network.program.writes):
            sweep = sweep_seconds(list(measurement.layer_calls.values()), phase.call(model), total)
    measurement.timings.save()
    return with_overhead(with_weights_read(measurement.table(None), sweep, total), total)
