"""Simulators of plans for small networks, and latency tables that are known."""

from typing import Any

import torch
from torch import nn

import secateur as sc
from secateur.allocation.simulate import PlanSimulator
from secateur.data.conversion import as_batches
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.latency_table import LatencyTable, LayerLatency
from secateur.importance.context import split_microbatches
from secateur.masking.linear_layers import layers_of


def simulator_of(model: nn.Module, x: Any) -> PlanSimulator:
    batches = as_batches(x)
    network = sc.trace(model, batches[0].args[0][:2])
    return PlanSimulator(Calibration(network, split_microbatches(batches, torch.device("cpu"))))


def weights_as_times(network: sc.Network, *_: Any) -> LatencyTable:
    """A table in which a layer takes a millisecond for each of its weights."""
    layers = []
    for layer in layers_of(network):
        rows, columns = (1, len(layer.inputs)), (1, len(layer.outputs))
        seconds = torch.outer(*(torch.tensor(sizes, dtype=torch.float64) for sizes in (rows, columns))) / 1e3
        layers.append(LayerLatency(layer.inputs, layer.outputs, seconds, 0.0, rows, columns))
    return LatencyTable(tuple(layers), 0.0)
