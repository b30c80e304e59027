"""Correction of batch norms: their outputs get the means and variances of the dense network's on the examples.

With many examples from the distribution of the training data, new statistics would have the same effect. With few or
other examples, the activations of the dense network have other statistics than its batch norms contain, and the cut
network should keep that difference. The target is therefore the dense network's output on the same examples.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments
from secateur.masking.batch_norms import has_own_statistics
from secateur.recovery.paired_run import PairedExecution
from secateur.utils.dtypes import to_widest


def match_batchnorm(execution: PairedExecution) -> None:
    """Correct the running statistics of the cut network's batch norms, each after those before it."""
    program = execution.cut_network.network.program
    names = program.state_names
    for node in program.nodes:
        is_norm = rule_of(node).norm == "batch" and not execution.cut_network.is_removed(node)
        if is_norm and has_own_statistics(node):
            by_name = arguments(node)
            _correct(execution, node, {name: names[by_name[name]] for name in ("running_mean", "running_var")}, by_name)


def _correct(execution: PairedExecution, node: Node, names: dict[str, str], by_name: dict[str, Any]) -> None:
    """Choose mean and variance so that the norm maps its present input to the dense norm's mean and variance."""
    cut_statistics, dense_statistics = Statistics(), Statistics()
    for _, dense, cut in execution.before(node):
        dense_statistics.add(dense[by_name["input"]])
        cut_statistics.add(execution.cut_network.spread(by_name["input"], cut[by_name["input"]]))
    eps, state = by_name["eps"], execution.cut_network.state
    program = execution.cut_network.network.program
    held_mean, held_variance = (to_widest(program.state(name).detach()) for name in names.values())
    ratio = (cut_statistics.variance + eps) / (dense_statistics.variance + eps)
    variance = ((held_variance + eps) * ratio - eps).clamp_min(0)
    mean = cut_statistics.mean - (dense_statistics.mean - held_mean) * ratio.sqrt()
    for name, value in zip(names.values(), (mean, variance), strict=True):
        state[name] = value.to(state[name].dtype)


class Statistics:
    """Mean and variance of each channel, (channels,), over all values added.

    Args:
        rows: how many values of each channel were.
    """

    def __init__(self) -> None:
        self.rows, self._sum, self._square = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Add values with channels along the second axis."""
        values, others = to_widest(x), [axis for axis in range(x.dim()) if axis != 1]
        self.rows += x.numel() // max(x.shape[1], 1)
        self._sum = self._sum.to(values) + values.sum(others)
        self._square = self._square.to(values) + values.square().sum(others)

    @property
    def mean(self) -> Tensor:
        """The mean of each channel."""
        return self._sum / self.rows

    @property
    def variance(self) -> Tensor:
        """The variance of each channel."""
        return (self._square / self.rows - self.mean.square()).clamp_min(0)
