"""Absent units count as nothing, also where their values are infinite."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from random_plans import plan_of
from secateur.data.batch import Batch
from secateur.masking.ablation import MeanAblation, run_masked
from secateur.masking.operand_overrides import without_absent


class Overflowing(nn.Module):
    """A layer whose third unit is infinite on all examples, as the output is all the same finite."""

    def __init__(self, norm: type[nn.Module] | None = None) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 6), nn.Identity() if norm is None else norm(6)
        self.second, self.last = nn.Linear(6, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.first.bias[2] = 200.0
            self.second.weight[:, 2] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.norm(self.first(x).exp())
        scores: Tensor = self.last(torch.nan_to_num(self.second(values)).tanh())
        return scores


@pytest.mark.parametrize("norm", [None, nn.RMSNorm, nn.LayerNorm])
def test_an_infinite_unit_that_is_absent_is_as_one_that_is_cut(norm: type[nn.Module] | None) -> None:
    torch.manual_seed(0)
    model, x = Overflowing(norm), torch.randn(8, 3)
    network = sc.trace(model, x)
    present = torch.ones(network.units + 1, dtype=torch.bool)
    present[network.by_name["first"].offset + 2] = False
    plan = plan_of(network, {"first": torch.tensor([0, 1, 3, 4, 5])}, {})
    expected = sc.cut(model, plan)(x)
    torch.testing.assert_close(run_masked(network, Batch((x,), {}), present, {}), expected)
    everyone = torch.ones_like(present)
    both = torch.stack([present, everyone])
    stacked = Batch((x.repeat(2, 1),), {})
    with torch.no_grad():
        output = network.program.forward(stacked, MeanAblation({}).handlers(network, both))
    torch.testing.assert_close(output.chunk(2)[0], expected)


@pytest.mark.parametrize("by", ["leave-one-out", "shapley"])
def test_units_are_scored_beside_an_infinite_one(by: str) -> None:
    torch.manual_seed(0)
    model, x = Overflowing(), torch.randn(40, 3)
    scores = sc.score(sc.trace(model, x), x, by=by, ablation="zero", progress=False)["first"].values
    assert bool(torch.isfinite(scores).all()) and float(scores[2]) > 0


def test_gates_with_gradients_are_products_alone() -> None:
    x, gates = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(without_absent(x, gates, 1, 0).sum(), gates)
    assert torch.equal(slope, x)
    infinite, present = torch.tensor([[torch.inf, 2.0]]), torch.tensor([[False, True]])
    assert torch.equal(without_absent(infinite, present, 1, 0), torch.tensor([[0.0, 2.0]]))
