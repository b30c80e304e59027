"""Repairs of a few examples with many rows each: ridges are chosen on rows held out of them."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks

pytestmark = untrained_networks


class PointNetwork(nn.Module):
    """A perceptron of points, whose outputs are averaged over the points of each example."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, points: Tensor) -> Tensor:
        features = torch.relu(self.second(torch.relu(self.first(points))))
        outputs: Tensor = self.last(features.mean(1))
        return outputs


@pytest.mark.parametrize("examples", [2, 3, 4])
def test_a_refit_of_a_few_examples_with_many_rows_helps(examples: int) -> None:
    torch.manual_seed(0)
    model, points = PointNetwork().eval(), torch.randn(examples, 200, 3)
    network = sc.trace(model, points[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), {"macs": 0.5})
    small = sc.cut(model, plan)
    others = torch.randn(64, 200, 3)
    before = (small(others) - model(others)).square().mean()
    sc.repair(small, model, plan, points, how="refit", progress=False)
    assert (small(others) - model(others)).square().mean() < 0.1 * before
