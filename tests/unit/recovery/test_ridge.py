"""Ridge regressions of a refit: their choice, few rows, and memory."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from repaired_networks import cut_two_fifths
from secateur.data.conversion import as_batches
from secateur.importance.context import split_microbatches
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import refit
from secateur.recovery.regression_moments import RegressionMoments
from secateur.recovery.ridge import RIDGES, Choice, RidgeFactor, System, select_ridge, solve, systems_of
from secateur.surgery.recipe import recipe_of
from zoo import grow

pytestmark = untrained_networks


def test_too_few_examples_are_told_and_how_many_would_do() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))
    small, plan = cut_two_fifths(model, torch.randn(16, 6))
    with pytest.warns(
        UserWarning, match=r"2 is refitted with care only: .* about 4\.\d times as many examples would do"
    ):
        sc.repair(small, model, plan, torch.randn(16, 6))


def test_the_number_of_examples_that_would_do_is_rounded_up() -> None:
    """One row less than twice as many as values: 1.01 times as many would do, which is more than 1.0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))
    small, plan = cut_two_fifths(model, torch.randn(16, 6))
    rows = 2 * small[2].in_features - 1
    with pytest.warns(UserWarning, match=r"about 1\.1 times as many examples would do"):
        sc.repair(small, model, plan, torch.randn(rows, 6))


@pytest.mark.parametrize("noise", [0.01, 1.0, 30.0])
def test_the_ridge_is_the_best_of_all_that_are_known(noise: float) -> None:
    """The error on held-out rows falls and rises once along the ridges, so that not all must be tried."""
    torch.manual_seed(0)
    features, weights = torch.randn(1, 90, 30).double(), torch.randn(1, 30, 4).double()
    targets = features @ weights + noise * torch.randn(1, 90, 4).double()
    fitted, held_out = (
        RegressionMoments.of(features[:, rows], targets[:, rows]) for rows in (slice(60), slice(60, 90))
    )
    errors = {
        ridge: held_out.mean_square(System(RidgeFactor(fitted, ridge, False), fitted.moment).solution)
        for ridge in RIDGES
    }
    best = min(errors, key=errors.__getitem__)
    expected = best if errors[best] < held_out.mean_square(torch.zeros_like(held_out.moment)) else None
    assert select_ridge(fitted, held_out, None, False) == Choice(expected, 0)


def test_a_choice_that_was_made_is_made_again_with_all_rows() -> None:
    torch.manual_seed(0)
    features, targets = torch.randn(2, 50, 6).double(), torch.randn(2, 50, 3).double()
    moments = RegressionMoments.of(features, targets)
    penalised_gram = moments.penalised_gram(1e-2, False)
    expected = torch.linalg.solve(penalised_gram, moments.moment)
    torch.testing.assert_close(solve(moments, None, Choice(1e-2, 0), False), expected)
    assert not bool(solve(moments, None, Choice(None, 0), False).any())


@pytest.mark.parametrize("has_constant", [True, False])
@pytest.mark.parametrize("ridge", RIDGES)
def test_few_rows_are_solved_for_as_their_products_are(ridge: float, has_constant: bool) -> None:
    """In the dual form, for any right sides, from microbatches added up; scales differ and one feature is silent."""
    torch.manual_seed(0)
    features = torch.randn(2, 20, 70, dtype=torch.float64) * torch.logspace(-1, 1, 70) + 0.5
    features[..., 7] = 0
    features[..., -1] = 1 if has_constant else features[..., -1]
    targets, other = torch.randn(2, 20, 4).double(), torch.randn(2, 70, 3).double()
    few = RegressionMoments.of(features[:, :12], targets[:, :12]).with_rows(features[:, 12:], targets[:, 12:])
    assert few.features is not None
    expected = System(RidgeFactor(few, ridge, has_constant), few.moment)
    system = systems_of(few, has_constant)(ridge)
    torch.testing.assert_close(system.solution, expected.solution, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(system.solve(other), expected.solve(other), rtol=1e-6, atol=1e-8)
    many = few.with_rows(features, targets)
    assert many.features is None
    torch.testing.assert_close(many.products.summed(), 2 * features.transpose(1, 2) @ features)
    torch.testing.assert_close(many.moment, 2 * features.transpose(1, 2) @ targets)
    few, many = (RegressionMoments.of(features, targets) for _ in range(2))
    torch.testing.assert_close(few.plus(many).products.summed(), 2 * features.transpose(1, 2) @ features)
    torch.testing.assert_close(few.moment, 2 * many.moment)


def test_values_without_room_go_on_from_where_there_was_room_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide layers between narrow ones: their values are not held, but those of the narrow ones before them are."""
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 4), nn.ReLU())]
    model, x = nn.Sequential(*layers, nn.Linear(4, 2)), torch.randn(64, 4)
    network = sc.trace(model, x[:2])
    execution = PairedExecution(
        EmbeddedPrunedNetwork.of_kept(network, {}),
        split_microbatches(as_batches(x), torch.device("cpu")),
        memory=10_000,
    )
    starts: list[int] = []
    run = type(network.program).run

    def noted(self: Any, values: Any, start: int, *rest: Any, **kwargs: Any) -> Any:
        starts.append(start)
        return run(self, values, start, *rest, **kwargs)

    monkeypatch.setattr(type(network.program), "run", noted)
    nodes = [node for node in network.program.nodes if node.op == "call_function" and "linear" in str(node.target)]
    for node in nodes:
        execution.reach(node)
    assert starts.count(network.program.first) <= 2 * len(execution.microbatches)
    assert starts[-1] > network.program.position[nodes[2]]


def test_memory_does_not_change_a_refit() -> None:
    """Values that do not fit into the memory are computed again, to the same bits."""
    model, _ = grow("residual")
    torch.manual_seed(0)
    x = torch.randn(96, 3, 8, 8)
    small, plan = cut_two_fifths(model, x)
    states = []
    for memory in (0, 1 << 30):
        cut_network = EmbeddedPrunedNetwork.of(small, plan.network, recipe_of(model, plan))
        with torch.no_grad():
            refit(PairedExecution(cut_network, split_microbatches(as_batches(x), torch.device("cpu")), memory))
        states.append(cut_network.state)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], plan.network.program.state(name)) for name in states[0])
