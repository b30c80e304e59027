"""Shapley values: hand-solved games, enumeration, and the laws they obey."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import secateur as sc
from random_plans import traced_without_options
from secateur import demo
from secateur.data.conversion import as_batches, example_batches
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.config import EvaluationConfig
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import games_in_order
from secateur.masking.ablation import run_masked
from secateur.stopping import Evaluations
from secateur.utils.rng import generator_for
from small_network import Small, batches
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
    aggregate = {"aggregate": "mean"} if options.get("by", "shapley") == "shapley" else {}
    options = {"ablation": "zero", "progress": False, **aggregate, **options}
    return sc.score(network, [(INPUTS, MAXIMA)], **options)["0"]


@pytest.mark.parametrize(
    ("last", "expected"),
    [([1, 0.5, 0.5, 0], [0.375, 0.375, 1.75, 0]), ([1, 0.5, 0.5, -0.1], [0.425, 0.425, 2.0, -0.4])],
)
@pytest.mark.parametrize("estimator", ["exact", "antithetic"])
def test_the_max_network_has_the_values_found_by_hand(last: list[float], expected: list[float], estimator: str) -> None:
    """Squared error is a game of pairs, so one antithetic pair is exact; a single permutation is not."""
    values = scored(max_network(last), estimator=estimator).values
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


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
    options: Any = {"ablation": "zero", "aggregate": "mean", "estimator": "antithetic", "progress": False}
    scores = sc.score(sc.trace(model, x), [(x, y)], coalitions=1, **options)
    with torch.no_grad():
        contributions = model[1](model[0](x)).double() * model[2].weight.double()
        missing = model[2].bias.double() - y.double()
        shares = -(2 * missing * contributions + contributions * contributions.sum(1, keepdim=True))
    for example in range(16):
        values = scores["0"].per_example[:, example]
        if not values.isnan().any():
            assert values.tolist() == pytest.approx(shares[example].tolist(), abs=1e-4)


def as_double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def game_of(name: str, removal: str, double: bool = False) -> tuple[Game, sc.Network]:
    if double:
        model, example = grow(name)
        example = pytree.tree_map(as_double, example)
        network = sc.trace(model.double(), example)
    else:
        _, example, network = traced_without_options(name)
    group = min(network.groups, key=lambda candidate: candidate.size)
    microbatch = example_batches(example, torch.device("cpu"))[0]
    means = sc.score(network, [microbatch], by="apoz", ablation=removal, progress=False).means
    context = CriterionContext(network, network.groups, [microbatch], None, means, 0)
    return Game(context, [group]), network


@pytest.mark.parametrize("removal", ["zero", "mean"])
@pytest.mark.parametrize("name", [name for name in ZOO if name != "unknown operator"])
def test_a_game_in_any_order_of_rows_is_the_masked_run(name: str, removal: str) -> None:
    """Stacked, summed or one at a time: always what the network gives with these units masked."""
    game, network = game_of(name, removal)
    torch.manual_seed(1)
    coalitions = torch.rand(5, game.players) < 0.5
    microbatch, group = game.context.microbatches[0], game.groups[0]
    examples = game.cursor.dense_baseline(0).examples
    values_of_coalitions = game.cross(coalitions, 0, torch.arange(examples))
    for coalition, values in zip(coalitions, values_of_coalitions, strict=True):
        mask = torch.ones(network.units + 1, dtype=torch.bool)
        mask[group.span] = coalition
        output = run_masked(network, microbatch, mask, game.runner.ablation.means)
        expected = -game.context.losses(output, game.cursor.dense_baseline(0).reference, examples).double()
        loose = 50 if name == "sixteen bits" else 1
        assert torch.allclose(
            values, expected, rtol=loose * 1e-3, atol=loose * 1e-4 * float(expected.abs().max()) + 1e-9
        )
    nobody, everyone = game.ends(0, torch.arange(examples))
    ends = torch.stack([torch.zeros(game.players), torch.ones(game.players)]).bool()
    again = game.cross(ends, 0, torch.arange(examples))
    assert torch.allclose(torch.stack([nobody, everyone]), again, rtol=loose * 1e-3, atol=loose * 1e-4)


@pytest.mark.parametrize("name", ["mlp", "residual", "encoder", "time first", "vgg", "fixed batch", "one group norm"])
def test_most_networks_take_coalitions_and_examples_in_any_mixture(name: str) -> None:
    game, _ = game_of(name, "mean")
    assert game.stacks == (name != "fixed batch")
    assert (game.stacks and game.runner.contribution_sums is not None) == (
        name in ("mlp", "vgg", "residual", "time first")
    )


@pytest.mark.parametrize("removal", ["zero", "mean"])
@pytest.mark.parametrize("name", ["mlp", "vgg", "residual", "encoder", "conv1d", "one group norm"])
def test_gradients_are_the_slopes_of_presence(name: str, removal: str) -> None:
    """Against differences of a game whose gates are a little less than open."""
    game, _ = game_of(name, removal, double=True)
    torch.manual_seed(2)
    coalitions = torch.rand(3, game.players) < 0.6
    positions = torch.zeros(3, dtype=torch.long)
    values, slopes = game.gradients(coalitions, 0, positions)
    assert torch.allclose(values, game.paired_values(coalitions, 0, positions), rtol=1e-3, atol=1e-4)
    values, step = game.microbatch_values(0), 1e-4

    def at(gates: Tensor) -> Tensor:
        with torch.no_grad():
            return game.runner.values_of_stack(
                gates.double(), values, torch.zeros(len(gates), dtype=torch.long)
            ).double()

    for player in range(min(game.players, 4)):
        up, down = coalitions.float(), coalitions.float()
        up[:, player] += step
        down[:, player] -= step
        expected = (at(up) - at(down)) / (2 * step)
        assert torch.allclose(slopes[:, player], expected, rtol=0.01, atol=1e-3 * float(slopes.abs().max()) + 1e-6)


def test_games_come_in_the_order_of_their_cuts_and_each_cell_runs_once() -> None:
    model, example = grow("vgg")
    network = sc.trace(model, example)
    microbatch = example_batches(example, torch.device("cpu"))[0]
    context = CriterionContext(network, network.groups[::-1], [microbatch], None, {}, 0)
    cursor = DenseRun(context, 1 << 30)
    cuts = []
    for game in games_in_order(context, EvaluationConfig(), cursor):
        cursor.live_values(0, game.cut)
        cuts.append(game.cut)
        assert cursor.kept_bytes > 0
    assert cuts == sorted(cuts)


def test_a_dead_unit_is_worth_exactly_nothing_and_twins_the_same() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].weight.data[:, 1] = 0
    model[0].weight.data[4], model[0].bias.data[4] = model[0].weight.data[3], model[0].bias.data[3]
    model[2].weight.data[:, 4] = model[2].weight.data[:, 3]
    x = torch.randn(20, 4)
    for removal in ("zero", "mean"):
        options = {"estimator": "exact", "aggregate": "mean", "ablation": removal, "progress": False}
        values = sc.score(sc.trace(model, x), [x], **options)["0"].values
        assert values[1].abs() < 1e-7
        assert values[3] == pytest.approx(float(values[4]), rel=1e-4)


def test_the_default_finds_the_enumerated_values() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(96, 6)
    y = model(5 * x).argmax(1)
    network = sc.trace(model, x[:2])
    options: Any = {"only": "2", "aggregate": "mean", "ablation": "zero", "progress": False}
    truth = sc.score(network, [(x, y)], estimator="exact", **options)["2"].values
    for name in ("controlled", "antithetic", "orthogonal", "leverage", "kernelshap", "adjusted", "svarm"):
        scores = sc.score(network, [(x, y)], estimator=name, stop=Evaluations(12_000), **options)["2"]
        assert float((scores.values - truth).square().sum() / truth.square().sum()) < 0.1, name
        assert bool(((scores.values - truth).abs() < 6 * scores.errors_here + 1e-6).all()), name
        assert name in scores.layout or name == "controlled"


def test_the_choice_is_said_and_follows_the_network() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 50), nn.ReLU(), nn.Linear(50, 3))
    x, y = torch.randn(64, 6), torch.randint(0, 3, (64,))
    network = sc.trace(model, x[:2])
    text = str(sc.score(network, [(x, y)], progress=False))
    assert "0: exact" in text
    assert text.startswith("shapley: 64 examples, mean ablation, mean + 2 standard deviations over examples")
    assert "2: controlled: gradients at 4 random coalitions per example, made unbiased by" in text
    limit = (
        "a largest standard error of 0.5 of the spread of the scores or 64 evaluations per unit, more in later layers"
    )
    assert f"  sampled until {limit} (heuristic: the errors are themselves estimates" in text

    def wrong(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(1) != target).double()

    assert "2: antithetic" in str(sc.score(network, [(x, y)], loss=wrong, progress=False))
    for asked in ({"estimator": "controlled"}, {"by": "expected-gradients"}):
        with pytest.raises(sc.SecateurError, match="no gradient by the"):
            sc.score(network, [(x, y)], loss=wrong, progress=False, **asked)


def test_slopes_need_a_batch_that_can_be_stacked() -> None:
    game, _ = game_of("fixed batch", "zero")
    with pytest.raises(sc.SecateurError, match="several coalitions in one batch"):
        game.gradients(torch.ones(1, game.players).bool(), 0, torch.zeros(1, dtype=torch.long))


def test_large_outputs_count_as_memory_and_are_asked_for_again() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5000))
    network = sc.trace(model, torch.randn(2, 4))
    microbatches = as_batches([torch.randn(32, 4) for _ in range(4)])
    cursor = DenseRun(CriterionContext(network, network.groups, microbatches, None, {}, 0), 1_500_000)
    for microbatch in range(4):
        assert cursor.dense_baseline(microbatch).examples == 32
    assert 0 < cursor.kept_bytes <= 1_500_000


def test_controlled_spares_most_of_the_error_of_plain_orders_at_equal_evaluations() -> None:
    """Half the squared error is promised; on a trained network it is far less."""
    network = sc.trace(demo.network(), demo.test()[0][0][:2])
    options: Any = {"only": "layer2.1.conv1", "aggregate": "mean", "ablation": "zero", "progress": False}
    data = demo.test()[:4]
    truth = sc.score(network, data, stop=Evaluations(60_000), estimator="leverage", seed=9, **options)
    errors = {}
    for name in ("permutation", "controlled"):
        runs = [sc.score(network, data, stop=Evaluations(1500), estimator=name, seed=s, **options) for s in range(3)]
        gaps = [run["layer2.1.conv1"].values - truth["layer2.1.conv1"].values for run in runs]
        errors[name] = sum(float(gap.square().sum()) for gap in gaps)
    assert errors["controlled"] < errors["permutation"] / 2


def test_the_papers_protocol_is_five_orders_for_all_examples() -> None:
    model = max_network([1, 0.5, 0.5, -0.1])
    network = sc.trace(model, INPUTS)
    scores = sc.score(network, [(INPUTS, MAXIMA)], protocol="paper", ablation="mean", progress=False)
    assert not scores.means
    group_scores = scores["0"]
    assert group_scores.coalitions == 5 * 3  # all and nobody are known
    assert not group_scores.per_example.isnan().any()
    shares = []
    for block in range(5):
        order = torch.randperm(4, generator=generator_for(0, "0", block))
        shares.append(by_hand(model, order))
    assert torch.allclose(group_scores.per_example, torch.stack(shares).mean(0), atol=1e-5)


def test_the_papers_statistic_is_numpys_to_the_bit_on_values_by_removal_one_by_one() -> None:
    """Units of a convolution are zeroed in turn, behind batch norm and ReLU, by a hook on the model itself."""
    model, network, (x, y) = *small_network(), batches(1)[0]
    group_scores = sc.score(network, [(x, y)], protocol="paper", only="conv1", seed=4, progress=False)["conv1"]
    values = np.zeros((len(y), 5))
    for block in range(5):
        order = torch.randperm(5, generator=generator_for(4, "conv1", block)).flip(0)  # the last that joined goes first
        gone: list[int] = []
        losses = [losses_without(model, x, y, gone)]
        for unit in order.tolist():
            gone.append(unit)
            losses.append(losses_without(model, x, y, gone))
            values[:, unit] += (losses[-1] - losses[-2]) / 5
    per_example = group_scores.per_example.T.numpy()
    assert np.allclose(per_example, values, atol=1e-6)
    exact = np.ascontiguousarray(per_example)
    assert np.array_equal(group_scores.values.numpy(), np.mean(exact, 0) + 2 * np.std(exact, 0))
    ours = sc.score(network, [(x, y)], protocol="paper", aggregate="robust", only="conv1", seed=4, progress=False)
    assert not np.allclose(group_scores.values.numpy(), ours["conv1"].values.numpy(), rtol=1e-3)


def small_network() -> tuple[Small, sc.Network]:
    torch.manual_seed(3)
    model = Small().eval()
    nn.init.normal_(model.bn.bias)
    return model, sc.trace(model, batches(1)[0][0])


def losses_without(model: Small, x: Tensor, y: Tensor, gone: list[int]) -> np.ndarray:
    """The loss of each example without some channels of the first convolution."""
    with torch.no_grad():
        a = F.relu(model.bn(model.conv1(x)))
        a[:, gone] = 0
        logits = model.fc(F.relu(model.conv2(a)).mean((2, 3)))
        return F.cross_entropy(logits, y, reduction="none").double().numpy()


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
    group_scores = scored(max_network([1, 0.5, 0.5, 0]), estimator="exact", aggregate=aggregate)
    shares = group_scores.per_example
    expected = {
        "mean": shares.mean(1),
        "robust": shares.mean(1) + 2 * shares.std(1),
        "absolute": shares.abs().mean(1),
        0.5: shares.quantile(0.5, dim=1),
    }
    wanted = expected[aggregate] if not callable(aggregate) else shares.amax(1)
    assert torch.allclose(group_scores.values, wanted, atol=1e-9)
    assert bool((group_scores.errors >= 0).all())


def test_bfloat16_is_near_is_said_in_the_mark_and_finds_dead_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    model[2].weight.data[:, 3] = 0.0
    network = sc.trace(model, torch.randn(2, 6))
    data = (torch.randn(64, 6), torch.arange(64) % 3)
    options: dict[str, Any] = {"ablation": "zero", "aggregate": "mean", "coalitions": 800, "progress": False}
    plain = sc.score(network, data, **options)
    rounded = sc.score(network, data, precision="bfloat16", **options)
    difference = (plain["0"].values - rounded["0"].values).norm() / plain["0"].values.norm()
    assert 0 < difference < 0.1
    assert rounded.note == "64 examples, zero ablation, mean over examples, bfloat16"
    assert abs(float(rounded["0"].values[3])) < 1e-15
    assert torch.equal(rounded["0"].values, sc.score(network, data, precision="bfloat16", **options)["0"].values)
    with pytest.raises(sc.SecateurError, match="precision"):
        sc.score(network, data, resume=plain, precision="bfloat16", **options)
    with pytest.raises(sc.SecateurError, match="known are float32, bfloat16"):
        sc.score(network, data, precision="float8", **options)
