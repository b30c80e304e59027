"""The choice of plans: another than equal shares is taken only where it is nearer by more than its error."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.allocation.candidate_plans import Candidate, may_be_nearest, ranked_by_evidence
from secateur.allocation.plan_sizes import Allocation

UNIFORM, LOSS = Allocation(("uniform",)), Allocation(("loss",))


@pytest.fixture(scope="module")
def plan() -> sc.Plan:
    network = sc.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    return sc.plan(network, sc.score(network, by="l1"), {"macs": 0.5})


def first(plan: sc.Plan, uniform: Tensor, loss: Tensor | None) -> Candidate:
    return ranked_by_evidence([Candidate(plan, LOSS, loss), Candidate(plan, UNIFORM, uniform)])[0]


def test_a_difference_within_its_error_leaves_equal_shares(plan: sc.Plan) -> None:
    gains = torch.tensor([0.5, -0.4, 0.5, -0.4])  # mean .05, standard error .26
    best = first(plan, torch.ones(4) + gains, torch.ones(4))
    assert best.allocation == UNIFORM and "within its standard error of 0.2598" in best.plan.notes[-1]


def test_a_clear_difference_takes_the_nearer_plan(plan: sc.Plan) -> None:
    gains = torch.tensor([0.5, 0.4, 0.5, 0.4])
    assert first(plan, torch.ones(4) + gains, torch.ones(4)).allocation == LOSS


def test_examples_are_paired(plan: sc.Plan) -> None:
    """Losses that differ much between examples, and little but always in one direction between plans."""
    losses = torch.tensor([0.01, 1.0, 5.0, 20.0])
    assert first(plan, losses + 0.02, losses).allocation == LOSS


def test_one_example_is_no_evidence(plan: sc.Plan) -> None:
    assert first(plan, torch.tensor([2.0]), torch.tensor([1.0])).allocation == UNIFORM


def test_equal_shares_that_are_nearest_need_no_note(plan: sc.Plan) -> None:
    best = first(plan, torch.zeros(4), torch.ones(4))
    assert best.allocation == UNIFORM and best.plan.notes == plan.notes


def test_plans_that_were_not_simulated_come_last(plan: sc.Plan) -> None:
    assert first(plan, torch.ones(4), None).allocation == UNIFORM


def test_plans_that_are_clearly_farther_on_the_first_fold_are_left_out(plan: sc.Plan) -> None:
    near = torch.tensor([1.0, 2.0, 3.0, 4.0])
    within = near + torch.tensor([0.5, -0.3, 0.5, -0.3])  # .1 farther, with a standard error of .23
    beyond = near + torch.tensor([0.5, 0.3, 0.5, 0.3])  # .4 farther, with a standard error of .06
    plans = [Candidate(plan, LOSS, first_losses=losses) for losses in (beyond, within, None, near)]
    assert may_be_nearest(plans) == [3, 1]


def test_one_example_leaves_no_plan_out(plan: sc.Plan) -> None:
    plans = [Candidate(plan, LOSS, first_losses=torch.tensor([losses])) for losses in (9.0, 1.0)]
    assert may_be_nearest(plans) == [1, 0]


def test_plans_of_the_first_fold_alone_come_behind_those_of_all_and_are_compared_with_each_other(plan: sc.Plan) -> None:
    far, near, half = torch.full((4,), 5.0), torch.ones(4), torch.tensor([0.1, 0.1])
    whole, of_first_fold = Candidate(plan, LOSS, far), Candidate(plan, UNIFORM, None, 1.0, half)
    assert ranked_by_evidence([of_first_fold, whole])[0].allocation == LOSS
    uncertain = near + torch.tensor([0.5, -0.4, 0.5, -0.4])
    candidates = [Candidate(plan, LOSS, None, 1.0, near), Candidate(plan, UNIFORM, None, 1.0, uncertain)]
    best = ranked_by_evidence(candidates)[0]
    assert best.allocation == UNIFORM and "within its standard error" in best.plan.notes[-1]
