"""Shapley values: hand-solved games, enumeration, and the laws they obey."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import secateur as sc
from secateur.data import example_batches
from secateur.importance.evidence import Evidence
from secateur.importance.seeds import generator_for
from secateur.importance.shapley.aggregates import robust
from secateur.importance.shapley.estimators import ESTIMATORS, exact
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.shapley import jackknife, pooled
from zoo import ZOO, grow

INPUTS = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
MAXIMA = INPUTS.amax(1, keepdim=True)


def max_network(last: list[float]) -> nn.Module:
    """A network of four units that computes the larger of two numbers (Ancona et al. 2020)."""
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False))
    model[0].weight.data = torch.tensor([[-0.5, 1, 1, 1], [0.5, -1, 1, 1]]).T.contiguous()
    model[2].weight.data = torch.tensor([last])
    return model


def scored(model: nn.Module, **options: Any) -> Any:
    network = sc.trace(model, INPUTS)
    options = {"removal": "zero", "aggregate": "mean", "progress": False, **options}
    return sc.score(network, [(INPUTS, MAXIMA)], **options)["0"]


@pytest.mark.parametrize(
    ("last", "expected"),
    [([1, 0.5, 0.5, 0], [0.375, 0.375, 1.75, 0]), ([1, 0.5, 0.5, -0.1], [0.425, 0.425, 2.0, -0.4])],
)
@pytest.mark.parametrize("estimator", ["exact", "antithetic"])
def test_the_max_network_has_its_published_values(last: list[float], expected: list[float], estimator: str) -> None:
    """Squared error is a game of pairs, so one antithetic pair is exact; a single permutation is not."""
    found = scored(max_network(last), estimator=estimator).values
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_max_network_by_the_other_criteria() -> None:
    """Gradients see nothing there, weight norm is 1, 2, 2, 2 and activity half, half, always, always."""
    model = max_network([1, 0.5, 0.5, 0])
    assert scored(model, by="taylor").values.tolist() == [0, 0, 0, 0]
    assert scored(model, by="sensitivity").values.tolist() == [0, 0, 0, 0]
    assert scored(model, by="l1").values.tolist() == pytest.approx([1, 2, 2, 2])
    assert scored(model, by="apoz").values.tolist() == pytest.approx([0.5, 0.5, 1, 1])


def test_a_linear_head_with_squared_error_is_a_game_of_pairs_of_any_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 1))
    x, y = torch.randn(16, 5), torch.randn(16, 1)
    scores = sc.score(sc.trace(model, x), [(x, y)], removal="zero", aggregate="mean", coalitions=1, progress=False)
    with torch.no_grad():
        parts = model[1](model[0](x)).double() * model[2].weight.double()
        missing = model[2].bias.double() - y.double()
        shares = -(2 * missing * parts + parts * parts.sum(1, keepdim=True))
    for example in range(16):
        found = scores["0"].per_example[:, example]
        if not found.isnan().any():
            assert found.tolist() == pytest.approx(shares[example].tolist(), abs=1e-4)


def game_of(name: str, removal: str) -> tuple[Game, sc.Network]:
    model, example = grow(name)
    network = sc.trace(model, example)
    group = min(network.groups, key=lambda each: each.size)
    cell = example_batches(example, torch.device("cpu"))[0]
    means = sc.score(network, [cell], by="apoz", removal=removal, progress=False).means
    return Game(Evidence(network, network.groups, [cell], None, means, 0, {}, False), group, [cell]), network


@pytest.mark.parametrize("removal", ["zero", "mean"])
@pytest.mark.parametrize("name", [name for name in ZOO if name != "unknown operator"])
def test_efficiency_on_every_network_of_the_zoo(name: str, removal: str) -> None:
    game, _ = game_of(name, removal)
    everyone = torch.stack([torch.zeros(game.players, dtype=torch.bool), torch.ones(game.players, dtype=torch.bool)])
    nobody, all_ = game(everyone, 0)
    for label, estimator in ESTIMATORS.items():
        if label == "exact" and game.players > 12:
            continue
        design = estimator(game.players, generator_for(0, "test"))
        shares = design.shares(game(design.coalitions, 0))
        gap = (shares.sum(0) - (all_ - nobody)).abs().max()
        assert gap <= 1e-5 * max(1.0, float((all_ - nobody).abs().max())), label


@pytest.mark.parametrize("name", ["mlp", "residual", "encoder", "time first", "fixed batch", "one group norm"])
def test_coalitions_stacked_give_what_each_gives_alone(name: str) -> None:
    game, _ = game_of(name, "mean")
    torch.manual_seed(1)
    coalitions = torch.rand(9, game.players) < 0.5
    together = game(coalitions, 0)
    alone = torch.cat([game._run(coalition, game.prefix(0)) for coalition in coalitions.split(1)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert game.stacks == (name != "fixed batch")


def random_game(players: int, seed: int) -> Any:
    """A game with interactions of all orders, for three examples."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(2**players, 3, dtype=torch.float64, generator=generator)
    powers = 2 ** torch.arange(players)

    def value(coalitions: Tensor) -> Tensor:
        return table[(coalitions.long() * powers).sum(1)]

    return value


@settings(max_examples=30, deadline=None, derandomize=True)
@given(players=st.integers(2, 8), seed=st.integers(0, 10**6))
def test_exact_is_the_definition(players: int, seed: int) -> None:
    """Against the average over all orders, the other form of the definition."""
    value = random_game(players, seed)
    design = exact(players, torch.Generator())
    found = design.shares(value(design.coalitions))
    if players > 6:
        everyone = torch.ones(1, players, dtype=torch.bool)
        assert torch.allclose(found.sum(0), (value(everyone) - value(~everyone))[0])
        return
    total, orders = torch.zeros(players, 3, dtype=torch.float64), 0
    for order in itertools.permutations(range(players)):
        coalition = torch.zeros(players, dtype=torch.bool)
        for player in order:
            before = value(coalition[None])[0]
            coalition = coalition.clone()
            coalition[player] = True
            total[player] += value(coalition[None])[0] - before
        orders += 1
    assert torch.allclose(found, total / orders)


@pytest.mark.parametrize("name", ["permutation", "antithetic"])
def test_estimators_are_unbiased(name: str) -> None:
    value = random_game(6, 3)
    truth = exact(6, torch.Generator())
    expected = truth.shares(value(truth.coalitions))
    runs = []
    for run in range(3000):
        design = ESTIMATORS[name](6, generator_for(run, name))
        runs.append(design.shares(value(design.coalitions)))
    found = torch.stack(runs)
    error = found.std(0) / len(runs) ** 0.5
    assert bool(((found.mean(0) - expected).abs() < 4.5 * error).all())


def test_antithetic_beats_plain_permutations_at_equal_cost_where_pairs_interact() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(8, 8, dtype=torch.float64, generator=generator)

    def value(coalitions: Tensor) -> Tensor:
        members = coalitions.double()
        return ((members @ pairs) * members).sum(1, keepdim=True)

    truth = exact(8, torch.Generator())
    expected = truth.shares(value(truth.coalitions))
    design = ESTIMATORS["antithetic"](8, generator)
    assert torch.allclose(design.shares(value(design.coalitions)), expected)
    design = ESTIMATORS["permutation"](8, generator)
    assert not torch.allclose(design.shares(value(design.coalitions)), expected)


def test_a_dead_unit_is_worth_exactly_nothing_and_twins_the_same() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].weight.data[:, 1] = 0
    model[0].weight.data[4], model[0].bias.data[4] = model[0].weight.data[3], model[0].bias.data[3]
    model[2].weight.data[:, 4] = model[2].weight.data[:, 3]
    x = torch.randn(20, 4)
    for removal in ("zero", "mean"):
        options = {"estimator": "exact", "aggregate": "mean", "removal": removal, "progress": False}
        values = sc.score(sc.trace(model, x), [x], **options)["0"].values
        assert values[1].abs() < 1e-7
        assert values[3] == pytest.approx(float(values[4]), rel=1e-4)


def test_standard_errors_cover_the_truth_at_their_nominal_rate() -> None:
    """Of 95 % intervals from 12 blocks (Student's t, 11 degrees of freedom) between 92 and 98 % hold the truth."""
    value = random_game(5, 11)
    truth = exact(5, torch.Generator())
    expected = truth.shares(value(truth.coalitions)).mean(1)
    hits = 0
    for run in range(400):
        samples = []
        for block in range(12):
            design = ESTIMATORS["permutation"](5, generator_for(run, "coverage", block))
            samples.append((torch.arange(3), design.shares(value(design.coalitions))))
        values, _ = pooled(samples, 3)
        errors = jackknife(samples, 3, lambda shares, noise: shares.nanmean(1))
        hits += int(((values.mean(1) - expected).abs() <= 2.201 * errors).sum())
    assert 0.92 <= hits / 2000 <= 0.98


def test_the_robust_aggregate_takes_out_the_noise_of_estimation() -> None:
    """Examples that do not differ have no spread, however noisy their estimates."""
    generator = torch.Generator().manual_seed(0)
    samples = [
        (torch.arange(200), torch.ones(1, 200, dtype=torch.float64) + torch.randn(1, 200, generator=generator).double())
        for _ in range(6)
    ]
    values, noise = pooled(samples, 200)
    assert float(robust(values, noise)[0]) == pytest.approx(1, abs=0.25)
    assert float(robust(values, torch.zeros(1))[0]) > 1.7


def test_the_papers_protocol_is_five_orders_for_all_examples() -> None:
    model = max_network([1, 0.5, 0.5, -0.1])
    network = sc.trace(model, INPUTS)
    scores = sc.score(network, [(INPUTS, MAXIMA)], protocol="paper", removal="mean", progress=False)
    assert not scores.means
    found = scores["0"]
    assert found.coalitions == 5 * 5
    assert not found.per_example.isnan().any()
    shares = []
    for block in range(5):
        order = torch.randperm(4, generator=generator_for(0, "0", block))
        shares.append(by_hand(model, order))
    mean = torch.stack(shares).mean(0)
    assert torch.allclose(found.per_example, mean, atol=1e-5)
    noise = torch.stack(shares).var(0).mean(1) / 5
    expected = mean.mean(1) + 2 * (mean.var(1) - noise).clamp_min(0).sqrt()
    assert torch.allclose(found.values, expected, atol=1e-5)


def by_hand(model: nn.Module, order: Tensor) -> Tensor:
    """Marginals along an order by a plain loop. (units, examples)"""
    with torch.no_grad():
        activations = torch.relu(INPUTS @ model[0].weight.T)
        mask, marginals, before = torch.zeros(4), torch.zeros(4, 4, dtype=torch.float64), None
        for player in [None, *order.tolist()]:
            if player is not None:
                mask[player] = 1
            value = -((activations * mask) @ model[2].weight.T - MAXIMA).square()[:, 0].double()
            if player is not None:
                marginals[player] = value - before
            before = value
    return marginals


@pytest.mark.parametrize("aggregate", ["mean", "robust", "absolute", 0.5, lambda shares: shares.amax(1)])
def test_aggregates(aggregate: Any) -> None:
    found = scored(max_network([1, 0.5, 0.5, 0]), estimator="exact", aggregate=aggregate)
    shares = found.per_example
    expected = {
        "mean": shares.mean(1),
        "robust": shares.mean(1) + 2 * shares.std(1),
        "absolute": shares.abs().mean(1),
        0.5: shares.quantile(0.5, dim=1),
    }
    wanted = expected[aggregate] if not callable(aggregate) else shares.amax(1)
    assert torch.allclose(found.values, wanted, atol=1e-9)
    assert bool((found.errors >= 0).all())
