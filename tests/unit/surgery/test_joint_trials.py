"""Trials that share runs: networks that need no change pass, and each trial notices what it is for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from label_traces import trace_without_trials
from secateur.surgery.joint_trials import Trial, pass_together
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_shares import draw_means, draw_shares
from secateur.surgery.validate import _all_trials
from zoo import grow

X = torch.randn(2, 6, generator=torch.Generator().manual_seed(8))


class Net(nn.Module):
    """Two layers, and what a test lets the code do to the result beside."""

    def __init__(self, change: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(12, 8), nn.Linear(8, 3)
        self.change = change
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self, self.c(self.b(self.a(x).relu()).relu()))


def unchanged(net: Net, y: Tensor) -> Tensor:
    return y


def clipped(net: Net, y: Tensor) -> Tensor:
    return y.clamp(-2, 2)


def doubled_with_one_unit(net: Net, y: Tensor) -> Tensor:
    return y * 2 if net.a.weight.shape[0] == 1 else y


def without_bias(net: Net, y: Tensor) -> Tensor:
    return y - net.c.bias


@pytest.mark.parametrize("name", ["vgg", "residual", "conv3d", "glu by chunk"])
def test_a_network_that_needs_no_change_passes_without_another_trial(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = grow(name)
    monkeypatch.setattr(TrialCutter, "run", None)
    assert sc.trace(model, x).groups


@pytest.mark.parametrize(
    ("change", "failing"), [(unchanged, []), (clipped, [1]), (doubled_with_one_unit, [3]), (without_bias, [0, 1, 2, 3])]
)
def test_each_trial_notices_what_it_is_for(change: Callable[[Net, Tensor], Tensor], failing: list[int]) -> None:
    """The code does something that the program, which is another model's, does not."""
    network = trace_without_trials(Net(unchanged).eval(), X)
    cutter = TrialCutter(Net(change).eval())
    trials = _all_trials(network, 0)
    assert [number for number in range(4) if not pass_together(cutter, network, trials[number : number + 1])] == failing
    assert pass_together(cutter, network, trials) is not bool(failing)


def test_means_are_those_of_each_trial() -> None:
    model = Net(unchanged).eval()
    network, shares = trace_without_trials(model, X), {name: torch.arange(3) for name in ("a", "b")}
    means = draw_means(network)
    trials = [Trial(draw_shares(network, 0), means), Trial(shares, {}), Trial(shares, means), Trial(shares, {})]
    assert pass_together(TrialCutter(model), network, trials)


class Summed(Net):
    """The result of all examples together."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum(0)


def test_networks_whose_examples_are_not_told_apart_are_tried_one_by_one() -> None:
    model = Summed(unchanged).eval()
    network = trace_without_trials(model, X)
    assert not pass_together(TrialCutter(model), network, _all_trials(network, 0))
