"""Networks are compared at a temperature at which the dense one is not certain."""

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.evaluation.comparison_temperature import comparison_temperature
from secateur.evaluation.divergence import divergence
from secateur.evaluation.holdout import improves


def test_divergence_at_a_temperature_is_that_of_divided_scores() -> None:
    torch.manual_seed(0)
    dense, small = 5 * torch.randn(6, 4), 5 * torch.randn(6, 4)
    expected = 9 * divergence(small / 3, dense / 3)
    assert torch.allclose(divergence(small, dense, temperature=3.0), expected)
    probabilities = divergence(small.softmax(1), dense.softmax(1), temperature=3.0)
    assert torch.allclose(probabilities, expected, rtol=1e-4)
    centred = (small - dense) - (small - dense).mean(1, keepdim=True)
    assert torch.allclose(divergence(small, dense, temperature=1e3), centred.double().square().mean(1) / 2, rtol=1e-2)


def test_temperature_rises_until_the_network_is_not_certain() -> None:
    scores = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    temperatures = [comparison_temperature([factor * scores[:32], factor * scores[32:]]) for factor in (1, 4, 10, 1e3)]
    assert temperatures == sorted(temperatures) and temperatures[0] == 1 and temperatures[-1] == 8
    assert comparison_temperature([torch.sigmoid(1e3 * scores)]) == 1  # activations, which are no class scores
    assert comparison_temperature([torch.randn(4, 3, 8, 8)]) == 1


def test_one_example_does_not_outvote_all_others() -> None:
    """Of a certain network: 63 outputs come nearer, and the top class of one changes."""
    torch.manual_seed(0)
    dense = 4 * torch.randn(64, 10) + 24 * torch.eye(10)[torch.randint(10, (64,))]
    before, after = dense + 3 * torch.randn(64, 10), dense + 1.5 * torch.randn(64, 10)
    after[:2] = dense[:2].roll(1, 1)
    temperature = comparison_temperature([dense])
    assert temperature > 1
    assert not improves(divergence(before, dense), divergence(after, dense), allowance=0.0)
    softened = [divergence(output, dense, temperature=temperature) for output in (before, after)]
    assert improves(*softened, allowance=1.0)


@untrained_networks
@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_repairs_say_at_which_temperature_they_were_judged(factor: float) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).eval(), torch.randn(64, 6)
    with torch.no_grad():
        model[2].weight.mul_(factor)
    report = sc.prune(model, x, {"units": 0.5}, repair="refit", progress=False).report
    assert (report.settings["repairs"][0]["temperature"] == 1) == (factor == 1)
    assert ("at temperature" in str(report)) == (factor > 1)
