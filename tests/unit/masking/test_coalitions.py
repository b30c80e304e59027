"""Several coalitions in one batch: each has the output that it has alone, for zeros, means, and means of its own."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from random_plans import drawn, means_of, traced
from secateur.data.batch import Batch
from secateur.masking.ablation import MeanAblation, run_masked
from secateur.surgery.verify import output_difference


def stacked(batch: Batch, count: int) -> Batch:
    return batch.map(lambda tensor: tensor.repeat(count, *[1] * (tensor.dim() - 1)))


@pytest.mark.parametrize("ablation", ["zero", "mean", "means of each"])
@pytest.mark.parametrize("name", ["mlp", "few groups", "standard weights", "computed weights", "gru", "glu by chunk"])
def test_each_coalition_has_the_output_that_it_has_alone(name: str, ablation: str) -> None:
    _, _, network = traced(name)
    base = {} if ablation == "zero" else means_of(name)
    factors = (1.0, -2.0, 0.5) if ablation == "means of each" else (1.0, 1.0, 1.0)
    masks = torch.stack([network.mask(drawn(network, seed)) for seed in range(3)])
    means = {key: torch.stack([factor * mean for factor in factors]) for key, mean in base.items()}
    used_means = means if ablation == "means of each" else base
    with torch.no_grad():
        outputs = network.program.forward(
            stacked(network.example, 3), MeanAblation(used_means).handlers(network, masks)
        )
    for at, (mask, factor) in enumerate(zip(masks, factors, strict=True)):
        alone = run_masked(network, network.example, mask, {key: factor * mean for key, mean in base.items()})
        output = torch.utils._pytree.tree_map(lambda value, at=at: value.chunk(3)[at], outputs)
        assert output_difference(output, alone)[0] < 1e-5


class RecurrentResidual(nn.Module):
    """A recurrent layer whose input and hidden units are the same: both are absent together."""

    def __init__(self, recurrent: type[nn.RNNBase]) -> None:
        super().__init__()
        self.first, self.recurrent, self.last = nn.Linear(4, 8), recurrent(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h + self.recurrent(h)[0])


@pytest.mark.parametrize("recurrent", [nn.RNN, nn.GRU, nn.LSTM])
def test_input_and_hidden_units_of_a_recurrent_layer_are_absent_together(recurrent: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    network = sc.trace(RecurrentResidual(recurrent).eval(), torch.randn(8, 5, 4))
    masks = torch.stack([network.mask({"first": torch.arange(count)}) for count in (1, 3, 5, 7)])
    with torch.no_grad():
        outputs = network.program.forward(stacked(network.example, 4), MeanAblation({}).handlers(network, masks))
    for output, mask in zip(outputs.chunk(4), masks, strict=True):
        torch.testing.assert_close(output, run_masked(network, network.example, mask, {}), atol=1e-6, rtol=1e-5)


def test_a_score_of_such_units_is_that_of_each_coalition_alone() -> None:
    torch.manual_seed(0)
    data = torch.randn(8, 5, 4)
    network = sc.trace(RecurrentResidual(nn.GRU).eval(), data)
    scores = sc.score(network, data, by="leave-one-out", ablation="zero", loss=summed, progress=False)
    batch = Batch((data,), {})
    dense = summed(run_masked(network, batch, network.mask({}), {}), None).mean()
    for unit in range(8):
        mask = network.mask({"first": torch.tensor([other for other in range(8) if other != unit])})
        change = summed(run_masked(network, batch, mask, {}), None).mean() - dense
        assert float(scores["first"].values[unit]) == pytest.approx(float(change), abs=1e-5)


def summed(output: Tensor, target: object) -> Tensor:
    return output.square().flatten(1).sum(1)


def test_consumers_of_whole_groups_run_as_they_are_but_for_gates() -> None:
    """Booleans that are all true change nothing; numbers that are all 1 have derivatives."""
    _, _, network = traced("mlp")
    whole = network.mask({})[None]
    assert MeanAblation({}).adds_up
    assert not MeanAblation({}).handlers(network, whole)
    gates = MeanAblation({}).handlers(network, whole.double())
    assert gates.keys() == {consumer.node for consumer in network.consumers}
    assert isinstance(network, sc.Network)
