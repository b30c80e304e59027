"""The numbers of units that groups lose: curves, orders, simulations, bounds, latency and rounds."""

import numpy as np
import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.allocation.loss_order import REFRESHES, hull_slopes, loss_aware
from secateur.allocation.remaining_fractions import fractions
from secateur.allocation.strategies import OrderContext, halfway_order
from secateur.data.conversion import as_batches
from secateur.evaluation.measured_latency import measure_latency

pytestmark = untrained_networks


def test_units_go_where_the_loss_grows_least_for_what_is_saved() -> None:
    """Of two alike groups with convex curves the best split by enumeration."""
    model = linear_stack(6, 12, 12, 3)
    network = sc.trace(model, torch.randn(2, 6))
    curves = {"0": torch.arange(13).double().square(), "2": 3 * torch.arange(13).double().square()}
    scores = sc.score(network, by="l2")
    plan = sc.plan(network, scores, {"units": 0.5}, allocation="loss", curves=curves)
    lost = {name: network[name].size - len(kept) for name, kept in plan.kept.items()}
    best = min(range(13), key=lambda a: float(curves["0"][a] + curves["2"][12 - a]))
    assert lost == {"0": best, "2": 12 - best}


@pytest.mark.parametrize("units", [("macs",), ("params", "units"), ("bytes", "latency")])
def test_the_order_by_the_loss_is_that_of_costs_taken_from_masks(units: tuple[str, ...]) -> None:
    """The same rule, in which every saving is worked out from the masks of two whole plans."""
    model = linear_stack(6, 40, 30, 20, 3)
    network = sc.trace(model, torch.randn(2, 6))
    groups, draws = network.groups, torch.Generator().manual_seed(0)
    curves = {group.name: torch.rand(group.size + 1, generator=draws).double().cumsum(0) for group in groups}
    table = measure_latency(network, as_batches(torch.randn(2, 6))[0]) if "latency" in units else None
    context = OrderContext(network, groups, units, curves, table)
    values = [torch.rand(group.size, generator=draws) for group in groups]
    slopes = [hull_slopes(curves[group.name].numpy()) for group in groups]

    def remaining_cost(gone: np.ndarray) -> float:
        kept = {g.name: torch.arange(max(g.size - int(n), 0)) for g, n in zip(groups, gone, strict=True)}
        return sum(fractions(network, kept, network.cost(kept), units, table).values())

    gone, expected = np.zeros(len(groups), int), list[int]()
    total = sum(group.size for group in groups)
    for step in range(total):
        if step % (total // REFRESHES) == 0:
            saved = [
                max(remaining_cost(gone) - remaining_cost(gone + one), 1e-12) for one in np.eye(len(groups), dtype=int)
            ]
        growth = [slopes[at][gone[at]] if gone[at] < group.size else np.inf for at, group in enumerate(groups)]
        expected.append(int(np.argmin(np.array(growth) / saved)))
        gone[expected[-1]] += 1
    assert loss_aware(context, values).tolist() == expected


def test_a_cheap_drop_behind_a_dear_one_is_seen() -> None:
    """A curve that is flat after its first step: the whole of it goes at the mean price."""
    model = linear_stack(6, 8, 8, 3)
    network = sc.trace(model, torch.randn(2, 6))
    flat = torch.tensor([0.0, 4, 4, 4, 4, 4, 4, 4, 4])
    curves = {"0": flat.double(), "2": torch.arange(9).double()}
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6}, allocation="loss", curves=curves)
    assert len(plan.kept["0"]) < 3
    assert len(plan.kept["2"]) == 8


def test_half_way_between_two_orders() -> None:
    assert halfway_order([np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])]).tolist() == [0, 0, 1, 1]
    assert sorted(halfway_order([np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])]).tolist()) == [0, 0, 1, 1]
    assert halfway_order([np.array([0, 0, 0, 1]), np.array([0, 1, 0, 0])]).tolist()[0] == 0


def test_scores_that_are_no_losses_need_curves() -> None:
    network = sc.trace(linear_stack(6, 8, 3), torch.randn(2, 6))
    with pytest.raises(sc.SecateurError, match=r"scores by 'l2' don't tell; give curves=, or rank by 'obs'"):
        sc.plan(network, sc.score(network, by="l2"), {"units": 0.5}, allocation="loss")


def test_compare_takes_the_allocations_that_prune_takes() -> None:
    model, x = linear_stack(6, 24, 24, 3), torch.randn(96, 6)
    comparison = sc.compare(model, x, by=("l1", "l2"), keep={"macs": 0.5}, allocation="auto", progress=False)
    assert comparison.repairs == ("none", "refit")
    assert all(trial.macs <= 0.5 for trial in comparison.trials)
