"""The kept entries of a layer are read, changed and compared as those of its dense weight are."""

from itertools import pairwise
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.data.batch import Batch
from secateur.masking.linear_layers import layers_of
from secateur.recovery.batchnorm import Statistics
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.folded_layers import FoldedLayer
from secateur.recovery.layer_rows import regression_rows
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.reconstruction_terms import ReconstructionTerm
from secateur.recovery.targets import OutputContext
from secateur.surgery.recipe import recipe_of


class Mixed(nn.Module):
    """Convolutions with batch norms, one depthwise, one in groups, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.d = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=16, bias=False)
        self.b, self.m = nn.Conv2d(16, 16, 3, groups=4), nn.BatchNorm2d(16)
        self.c = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.d(torch.relu(self.n(self.a(x)))))
        z: Tensor = self.c(torch.relu(self.m(self.b(y))).mean((2, 3)))
        return z


@pytest.fixture(params=["cut", "simulated"])
def pruned_network(request: pytest.FixtureRequest) -> EmbeddedPrunedNetwork:
    """A pruned network within the dense one: from a model that was cut, or from a plan alone."""
    torch.manual_seed(0)
    model = Mixed().eval()
    network = sc.trace(model, torch.randn(4, 3, 9, 9))
    plan = sc.plan(network, sc.score(network, by="l2", ablation="zero"), {"units": 0.5})
    if request.param == "simulated":
        return EmbeddedPrunedNetwork.of_kept(network, plan.kept)
    return EmbeddedPrunedNetwork.of(sc.cut(model, plan), network, recipe_of(model, plan))


def pruned_layers(pruned_network: EmbeddedPrunedNetwork) -> list[PrunedLayer]:
    """Return what stays of the layers, with names that show that all kinds are there."""
    pruned = [PrunedLayer.of(layer, pruned_network) for layer in pruned_network.layers]
    assert [one.layer.name for one in pruned if one is not None] == ["a", "d", "b", "c"]
    return [one for one in pruned if one is not None]


def test_kept_entries_are_read_and_written_as_those_of_the_dense_weight(pruned_network: EmbeddedPrunedNetwork) -> None:
    for pruned_layer in pruned_layers(pruned_network):
        layer, features = pruned_layer.layer, pruned_layer.features.shape[1]
        before = pruned_network.state[layer.weight]
        change = torch.randn(pruned_layer.shape, dtype=torch.float64)
        assert torch.equal(
            pruned_layer.matrix(pruned_network)[..., :features], layer.matrix(before)[pruned_layer.entries]
        )
        expected = pruned_layer.weight(before, change)
        pruned_layer.write(pruned_network, change)
        assert torch.equal(pruned_network.state[layer.weight], expected)
        assert not torch.equal(expected, before)


def test_folded_weights_are_those_that_layers_compute_with(pruned_network: EmbeddedPrunedNetwork) -> None:
    """The weight after a change, times the factor of the batch norm, at the kept entries."""
    for pruned_layer in pruned_layers(pruned_network):
        change = torch.randn(pruned_layer.shape, dtype=torch.float64)
        folded = FoldedLayer.of(pruned_layer, pruned_network)
        weight, _ = folded.tensors(change)
        expected = pruned_layer.weight(pruned_network.state[pruned_layer.layer.weight], change)
        if folded.norm is not None:
            scale = {"a": "n", "b": "m"}[pruned_layer.layer.name]
            factor = (
                pruned_network.state[f"{scale}.weight"] / (pruned_network.state[f"{scale}.running_var"] + 1e-5).sqrt()
            )
            expected = expected * factor.view(-1, 1, 1, 1)
        compact = pruned_network.compact_layer(pruned_layer.layer.node)
        torch.testing.assert_close(weight, expected if compact is None else compact.weight_of(expected))


def test_picked_entries_are_those_of_each_group(pruned_network: EmbeddedPrunedNetwork) -> None:
    for pruned_layer in pruned_layers(pruned_network):
        groups, outputs = pruned_layer.layer.groups, len(pruned_layer.layer.outputs)
        results = torch.randn(7, outputs)
        by_group = results.view(7, groups, -1)
        expected = [
            by_group[:, group, kept] for group, kept in zip(pruned_layer.groups, pruned_layer.outputs, strict=True)
        ]
        assert torch.equal(pruned_layer.outputs_of(results), torch.stack(expected))


def test_rows_are_the_same_without_an_interval(pruned_network: EmbeddedPrunedNetwork) -> None:
    """Intervals of clipped outputs change the bounds alone."""
    torch.manual_seed(1)
    execution = PairedExecution(pruned_network, [Batch((torch.randn(6, 3, 9, 9),), {})])
    for pruned_layer in pruned_layers(pruned_network):
        matrix = pruned_layer.matrix(pruned_network)
        rows, plain = (
            next(regression_rows(execution, pruned_layer, matrix, has_interval=has_interval))
            for has_interval in (True, False)
        )
        assert torch.equal(rows.features, plain.features) and torch.equal(rows.targets, plain.targets)
        assert torch.equal(plain.lower, plain.targets) and torch.equal(plain.upper, plain.targets)
        assert torch.equal(rows.lower, rows.targets) == (pruned_layer.layer.name == "c")


@pytest.mark.parametrize(("low", "high"), [(0.0, inf), (-1.0, inf), (-inf, 1.0), (0.0, 1.0), (-inf, inf)])
def test_outputs_lack_what_leads_to_the_nearest_point_that_will_do(low: float, high: float) -> None:
    wanted, output = torch.linspace(-2, 2, 9).repeat_interleave(9)[None], torch.linspace(-2.1, 2.1, 9).repeat(9)[None]
    target = wanted.where(wanted > low, -inf).where(wanted < high, inf)
    node: Any = None
    context = OutputContext(node, None, None, node, low, high)
    term = ReconstructionTerm(context, 1, torch.arange(81), [target], 1.0, [None])
    lower, upper = wanted.where(wanted > low, -inf), wanted.where(wanted < high, inf)
    lower, upper = lower.clamp(max=high), upper.clamp(min=low)
    nearest = torch.minimum(torch.maximum(output, lower), upper)
    torch.testing.assert_close(term.errors(0, output), nearest - output)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_statistics_are_those_of_all_values_in_any_layout(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    values = torch.randn(6, 5, 4, 3).double() * torch.arange(1, 6).view(-1, 1, 1) + 1e4
    statistics = Statistics()
    for start, end in pairwise((0, 1, 6)):
        statistics.add(values[start:end].to(memory_format=layout))
    variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
    torch.testing.assert_close(statistics.mean, mean)
    torch.testing.assert_close(statistics.variance, variance, rtol=1e-6, atol=1e-6)
    assert statistics.rows == 6 * 4 * 3


def test_layers_of_a_pruned_network_are_those_of_the_dense_one(pruned_network: EmbeddedPrunedNetwork) -> None:
    assert [layer.node for layer in pruned_network.layers] == [
        layer.node for layer in layers_of(pruned_network.network)
    ]
