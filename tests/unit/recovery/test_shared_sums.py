"""Layers that read the same rows share sums, whichever of them were solved for before."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from plans_by_norm import microbatches_of
from secateur.recovery import shared_sums
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import Choices, refit

pytestmark = untrained_networks


class GateBeforePrunedLayer(nn.Module):
    """Two layers read the network's input; what the first gives is not changed, and the second repairs a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.first = nn.Linear(12, 6), nn.Linear(12, 24)
        self.second, self.direct = nn.Linear(24, 6), nn.Linear(12, 6)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        hidden: Tensor = self.second(torch.relu(self.first(x)))
        return hidden * (1 + gate) + self.direct(x)


def test_layers_share_no_rows_with_layers_that_are_solved_for_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missing of the gate and no options are known for it: the sums for it are of three rows of four."""
    torch.manual_seed(0)
    model, x = GateBeforePrunedLayer().eval(), torch.randn(256, 12)
    network = sc.trace(model, x[:4])
    kept = {"first": torch.arange(12)}

    def weights() -> Tensor:
        choices: Choices | None = None
        for examples in (192, 256):
            cut_network = EmbeddedPrunedNetwork.of_kept(network, kept)
            with torch.no_grad():
                choices = refit(PairedExecution(cut_network, microbatches_of(x[:examples], 64)), choices, len(x))
            assert "direct.weight" in choices and "gate.weight" not in choices
        return cut_network.state["direct.weight"]

    shared = weights()
    monkeypatch.setattr(shared_sums, "layers_by_rows", lambda layers, _: [[layer] for layer in layers])
    assert torch.equal(shared, weights())
    assert not torch.equal(shared, model.direct.weight)
