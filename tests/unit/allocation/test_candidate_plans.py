"""The choice of plans: another than equal shares is taken only where it is nearer by more than its error."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from linear_stack import linear_stack
from secateur.allocation.candidate_plans import Candidate, indices_near_best, is_preferred, rank_by_evidence
from secateur.allocation.config import PruneConfig
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import FIRST_FOLD, OTHER_FOLDS, PlanSimulator
from secateur.allocation.tied_groups import tie_groups
from secateur.coupling.effective_macs import EffectiveMacs
from secateur.coupling.network import Kept
from secateur.data.conversion import as_batches
from secateur.evaluation.calibration import Calibration
from secateur.importance.context import split_microbatches

UNIFORM, LOSS = Allocation(("uniform",)), Allocation(("loss",))


@pytest.fixture(scope="module")
def plan() -> sc.Plan:
    network = sc.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    return sc.plan(network, sc.score(network, by="l1"), {"macs": 0.5})


def first(plan: sc.Plan, uniform: Tensor, loss: Tensor | None) -> Candidate:
    return rank_by_evidence([Candidate(plan, LOSS, loss), Candidate(plan, UNIFORM, uniform)])[0]


def test_a_difference_within_its_error_leaves_equal_shares(plan: sc.Plan) -> None:
    gains = torch.tensor([0.5, -0.4, 0.5, -0.4])  # of the roots: mean .05, standard error .26
    best = first(plan, (torch.ones(4) + gains).square(), torch.ones(4))
    assert best.allocation == UNIFORM and best.plan.notes[-1].endswith(
        "has a typical divergence of 1.0000 in place of 1.1025, a difference within its standard error"
    )


def test_a_plan_that_is_nearer_for_all_examples_but_one_is_taken(plan: sc.Plan) -> None:
    """Even where this one has so large a divergence that the mean of the other plan's divergences is smaller."""
    most, outlier = torch.full((15,), 1.0), torch.tensor([4.0])
    near, far = torch.cat([most / 4, outlier**2]), torch.cat([most, outlier])
    assert near.mean() > far.mean()
    candidates = [Candidate(plan, LOSS, near, first_losses=near), Candidate(plan, LOSS, far, first_losses=far)]
    assert rank_by_evidence(candidates)[0] is candidates[0] and indices_near_best(candidates)[0] == 0
    repeated = [Candidate(plan, LOSS, losses.repeat(8)) for losses in (near, far)]
    assert is_preferred(repeated[0], repeated[1], 0.0) and not is_preferred(repeated[1], repeated[0], 0.0)


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
    assert indices_near_best(plans) == [3, 1]


def test_one_example_leaves_no_plan_out(plan: sc.Plan) -> None:
    plans = [Candidate(plan, LOSS, first_losses=torch.tensor([losses])) for losses in (9.0, 1.0)]
    assert indices_near_best(plans) == [1, 0]


def test_plans_whose_divergences_are_not_finite_are_left_out_where_another_is(plan: sc.Plan) -> None:
    near = torch.tensor([1.0, 2.0, 3.0, 4.0])
    unknown, endless = (torch.cat([near[:3], torch.tensor([value])]) for value in (torch.nan, torch.inf))
    plans = [Candidate(plan, LOSS, first_losses=losses) for losses in (unknown, near + 0.1, endless, near)]
    assert indices_near_best(plans) == [3]
    assert indices_near_best([plans[0], Candidate(plan, LOSS), plans[2]]) == [0, 2]  # all that were simulated


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_plan_of_a_finite_divergence_comes_before_others(plan: sc.Plan, value: float) -> None:
    broken = torch.tensor([0.0, value])
    assert first(plan, broken, torch.ones(2)).allocation == LOSS
    assert first(plan, torch.ones(2), broken).allocation == UNIFORM
    of_first_fold = [Candidate(plan, LOSS, first_losses=losses) for losses in (broken, torch.ones(2))]
    assert rank_by_evidence(of_first_fold)[0] is of_first_fold[1]


@pytest.mark.parametrize(("divergence", "chosen"), [(0.02, [16, 16]), (0.09, [20, 21]), (torch.nan, [20, 21])])
def test_a_plan_that_fills_kernels_may_be_farther_than_the_only_other_one(
    divergence: float, chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a third of the time, for which five times the divergence, 0.01, is accepted; both folds compare them."""
    model, batches = linear_stack(12, 32, 32, 3), as_batches(torch.randn(16, 12))
    network = sc.trace(model, torch.randn(2, 12))
    simulator = PlanSimulator(Calibration(network, split_microbatches(batches, torch.device("cpu"))))
    folds = list[tuple[int, slice]]()

    def divergences(self: PlanSimulator, kept: Kept, layers: None, fold: slice) -> Tensor:
        count = len(kept["0"])
        folds.append((count, fold))
        return torch.full((8,), divergence if count == 16 else 0.01)

    monkeypatch.setattr(PlanSimulator, "_measure_divergences", divergences)
    tied, config = tie_groups(network, sc.score(network, by="l2")), PruneConfig(target="avx512")
    best = PlanSearch(simulator, tied, config, None, [UNIFORM]).best_of_allocations({"macs": 0.5})
    assert [len(kept) for kept in best.plan.kept.values()] == chosen
    assert folds == [(count, fold) for count in (20, 16) for fold in (FIRST_FOLD, OTHER_FOLDS)]


def test_plans_of_the_first_fold_alone_come_behind_those_of_all_and_are_compared_with_each_other(plan: sc.Plan) -> None:
    far, near, half = torch.full((4,), 5.0), torch.ones(4), torch.tensor([0.1, 0.1])
    whole, of_first_fold = Candidate(plan, LOSS, far), Candidate(plan, UNIFORM, None, 1.0, half)
    assert rank_by_evidence([of_first_fold, whole])[0].allocation == LOSS
    uncertain = (near + torch.tensor([0.5, -0.4, 0.5, -0.4])).square()
    candidates = [Candidate(plan, LOSS, None, 1.0, near), Candidate(plan, UNIFORM, None, 1.0, uncertain)]
    best = rank_by_evidence(candidates)[0]
    assert best.allocation == UNIFORM and "within its standard error" in best.plan.notes[-1]


def steps_plan(plan: sc.Plan, steps_kept: int) -> sc.Plan:
    return replace(plan, effective=EffectiveMacs(16, 100, steps_kept))


@pytest.mark.parametrize(("examples", "is_taken"), [(126, False), (128, True)])
def test_the_mean_decides_where_as_many_examples_are_compared_as_there_are_at_most(
    plan: sc.Plan, examples: int, is_taken: bool
) -> None:
    """The mean root decreases by .05, within the standard error of .09."""
    candidate = Candidate(plan, LOSS, torch.ones(examples))
    other = torch.tensor([2.1, 0.0]).square().repeat(examples // 2)
    assert is_preferred(candidate, Candidate(plan, LOSS, other), 1.5) is is_taken
    assert not is_preferred(Candidate(plan, LOSS, other), candidate, 1.5)


@pytest.mark.parametrize("examples", [8, 128])
def test_a_plan_in_a_quarter_of_the_time_may_lose_eight_times_as_much(plan: sc.Plan, examples: int) -> None:
    """Of losses to the power of 1.5 of the speed; 1 for 0."""
    other = Candidate(steps_plan(plan, 80), LOSS, torch.ones(examples))

    def is_taken(loss: float, power: float) -> bool:
        return is_preferred(Candidate(steps_plan(plan, 20), LOSS, torch.full((examples,), loss)), other, power)

    assert is_taken(7.9, 1.5) and not is_taken(8.1, 1.5)
    assert is_taken(0.9, 0.0) and not is_taken(1.1, 0.0)


def test_plans_of_any_sizes_are_counted_in_the_steps_of_the_device_that_is_planned_for() -> None:
    """Steps of 16, where this processor's may be of 8: else plans would be compared in different steps."""
    network = sc.trace(linear_stack(12, 32, 32, 3), torch.randn(2, 12))
    tied = tie_groups(network, sc.score(network, by="l2"))
    unused: Any = None
    counted = {
        target: PlanSearch(SimpleNamespace(network=network), tied, PruneConfig(target=target), unused, [UNIFORM])  # type: ignore[arg-type]
        .plan({"macs": 0.5}, UNIFORM)
        .effective
        for target in ("avx512", "avx2")
    }
    assert {target: effective and effective.step for target, effective in counted.items()} == {"avx512": 16, "avx2": 8}
