"""Trial cuts: what decides in them, and what does not."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.coupling.network import Kept
from secateur.graph.model_copies import copy_model
from secateur.masking.ablation import Means, consumer_key
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_failures import Failure
from zoo import grow


def test_warnings_of_the_models_code_decide_nothing() -> None:
    """The deviation of one remaining unit makes torch warn, which is an error for who asks for that."""
    model, x = grow("standardised")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lenient = sc.trace(model, x)
        warnings.simplefilter("error")
        strict = sc.trace(model, x)
    assert [(group.name, group.size) for group in strict.groups] == [
        (group.name, group.size) for group in lenient.groups
    ]
    assert str(strict) == str(lenient)


def test_a_graph_module_is_copied_where_warnings_are_errors() -> None:
    model = torch.export.export(nn.Linear(3, 2), (torch.randn(4, 3),)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        double = copy_model(model, {})
    x = torch.randn(4, 3)
    assert torch.equal(double(x), model(x))


class Branch(nn.Module):
    """A residual block; where it normalises behind the sum, the sum alone can't stay."""

    def __init__(self, is_post_norm: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)
        self.norm = nn.LayerNorm(6) if is_post_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.norm(x + self.down(self.up(x).relu()))
        return summed


@pytest.mark.parametrize(("post_norms", "runs"), [((), 2), ((2,), 1 + 3 + 1), ((0, 3), 1 + 3 + 1 + 3)])
def test_blocks_are_tried_together_and_alone_where_that_fails(
    post_norms: tuple[int, ...], runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(Branch(number in post_norms) for number in range(6)), nn.Linear(6, 2))
    counted = [0]
    run = TrialCutter.run

    def counting(*args: object) -> object:
        counted[0] += 1
        return run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(TrialCutter, "run", counting)
    network = sc.trace(model, torch.randn(3, 6), kinds="blocks")
    assert counted[0] == runs
    assert network["blocks"].block_paths == tuple(str(number) for number in range(6) if number not in post_norms)
    assert len(network.frozen) == len(post_norms)


class CountedTrials(TrialCutter):
    """Trials that are counted; those with means fail."""

    count = 0

    def _run(self, network: sc.Network, kept: Kept, means: Means) -> Failure | None:
        self.count += 1
        return Failure("differs", None, -1) if means else None


def test_the_outcome_of_a_trial_with_means_is_no_other_trials() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.randn(5, 3)
    network = sc.trace(model, x)
    trials, kept = CountedTrials(model), {network.groups[0].name: torch.arange(2)}
    means = {consumer_key(network.consumers[0]): torch.ones(4)}
    assert trials.run(network, kept, means) is not None
    assert trials.run(network, kept, {}) is None
    assert trials.run(network, kept, {}) is None
    assert trials.count == 2
    assert trials.run(network, kept, means) is not None
    assert trials.count == 3


class ZeroBranch(nn.Module):
    """A block whose branch begins with zeros, and whose own code multiplies by the number of units in the branch."""

    def __init__(self, zeros: str) -> None:
        super().__init__()
        self.up, self.inner, self.down = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 4)
        self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.scale, self.gate = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(()))
        with torch.no_grad():
            self.get_parameter(zeros).fill_(1e-6 if zeros == "scale" else 0)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x).relu()
        branch = self.norm(self.down((self.inner(hidden) * hidden.shape[1]).relu())) * self.scale * self.gate
        result: Tensor = self.last(x + branch)
        return result


@pytest.mark.parametrize("zeros", ["norm.weight", "down.weight", "scale", "gate"])
def test_faults_show_in_branches_that_begin_with_zeros(zeros: str) -> None:
    torch.manual_seed(0)
    model, x = ZeroBranch(zeros).eval(), torch.randn(3, 4)
    before = copy.deepcopy(model.state_dict())
    network = sc.trace(model, x)
    assert {group.name: group.size for group in network.groups} == {"inner": 8}
    assert "does not follow the cut" in next(frozen.reason for frozen in network.frozen if frozen.name == "up")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    program = sc.trace(model, x, as_program=True)  # in which the number is a constant
    assert {group.name: group.size for group in program.groups} == {"up": 6, "inner": 8}
    small = sc.cut(model, sc.plan(program, sc.score(program, by="l1"), keep={"units": 0.5}))
    assert float(dict(small.named_parameters())[zeros].abs().max()) <= 1e-6


class DrawnAround(nn.Module):
    """A model that draws from distributions whose means a layer of zeros computes."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mean, self.down = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        nn.init.zeros_(self.mean.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x).relu()
        result: Tensor = self.down(hidden + torch.normal(self.mean(hidden), 1.0))
        return result


def test_numbers_are_drawn_with_the_weights_that_stand_in_for_zeros() -> None:
    torch.manual_seed(0)
    network = sc.trace(DrawnAround().eval(), torch.randn(8, 4))
    assert {group.name: group.size for group in network.groups} == {"up": 6}
