"""The positions of gates of units, and the operands that a batch of several coalitions shares."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from label_traces import trace_without_trials
from secateur.graph.operators import arguments, operator_name
from secateur.masking.ablation import MeanAblation
from secateur.masking.computed_weights import is_shared_by_batch
from secateur.masking.gate_positions import GateSite, gate_positions
from secateur.masking.linear_layers import layers_of


class Sums(nn.Module):
    """A sum with an activation behind it, one that is multiplied by a computed gate, and one that is the output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block1, self.block2 = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.gate, self.last = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.stem(x)
        stream = F.relu(stream + self.block1(stream))
        stream = (stream + self.block2(stream)) * self.gate(x)
        return self.last(stream) + x


def test_gates_lie_behind_the_activation_of_a_sum_and_nothing_else() -> None:
    network = trace_without_trials(Sums(), torch.randn(3, 4))
    blocks = gate_positions(network).blocks
    assert [operator_name(position.node) for position in blocks] == ["relu", "add"]
    for position in blocks:
        assert torch.equal(position.units, torch.arange(6))


class PartlyFrozen(nn.Module):
    """A sum of which some units are the input itself, which loses none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.last = nn.Linear(4, 4), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        stream = torch.cat([self.stem(x), x], 1)
        output: Tensor = self.last(stream + self.block(stream))
        return output


def test_entries_that_lose_no_unit_have_no_gate() -> None:
    (position,) = gate_positions(trace_without_trials(PartlyFrozen(), torch.randn(3, 4))).blocks
    assert position.units.tolist() == [0, 1, 2, 3, -1, -1, -1, -1]


class Normed(nn.Module):
    """A residual stage whose convolutions batch norms follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.norm1(self.stem(x)).relu()
        stream = stream + self.norm2(self.conv(stream))
        return self.last(stream.relu().mean((2, 3)))


@pytest.mark.parametrize(("where", "operator"), [("norms", "batch_norm"), ("before norms", "conv2d")])
def test_gates_at_norms_lie_on_the_side_that_is_asked_for(where: GateSite, operator: str) -> None:
    positions = gate_positions(trace_without_trials(Normed(), torch.randn(3, 3, 4, 4)), where)
    assert not positions.blocks
    assert len(positions.norms) == 2
    assert {operator_name(position.node) for position in positions.norms} == {operator}


class Standardised(nn.Module):
    """A computed weight, a layer beside it, and the mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.beside = nn.Parameter(torch.randn(6, 4)), nn.Linear(4, 6)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(x, self.weight * 2) + self.beside(x)
        return self.last(hidden - hidden.mean(0))


def test_what_depends_on_the_batch_is_not_shared_by_its_coalitions() -> None:
    program = trace_without_trials(Standardised(), torch.randn(3, 4)).program
    shared = {operator_name(node): is_shared_by_batch(program, node) for node in program.nodes}
    assert shared["mul"]
    assert not shared["mean"]
    assert not shared["linear"]


def test_a_layer_of_a_computed_weight_hides_none_behind_it() -> None:
    network = trace_without_trials(Standardised(), torch.randn(3, 4))
    layers = layers_of(network)
    assert sorted(layer.weight for layer in layers) == ["beside.weight", "last.weight"]
    assert all(arguments(layer.node)["weight"] is not None for layer in layers)


def test_each_coalition_has_its_own_means_where_these_differ() -> None:
    same, different = torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    means = MeanAblation({"same": same, "own": different})._of_coalition(1).means
    assert torch.equal(means["same"], same)
    assert torch.equal(means["own"], different[1])
