"""A game in any order of rows is the masked run, and its gradients are slopes of presence."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.data.conversion import as_batches, example_batches
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.config import EvaluationConfig
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import games_in_order
from secateur.masking.ablation import run_masked
from shapley_games import game_of
from zoo import ZOO, grow


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


class MixingExamples(nn.Module):
    """A network in which each example's scores depend on all examples of the batch."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.first, self.last, self.weight = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), weight

    def forward(self, x: Tensor) -> Tensor:
        values = self.first(x).relu()
        scores: Tensor = self.last(values)
        mixed = scores - scores.mean(0) if self.weight == 1 else scores + self.weight * scores.mean((0, 1)).tanh()
        return mixed.mean((2, 3)) * torch.tensor([1.0, -1.0])


def first_game(model: nn.Module, data: Tensor | tuple[Tensor, Tensor]) -> Game:
    network = sc.trace(model, torch.rand(4, 3, 2, 2))
    return Game(CriterionContext(network, network.groups, as_batches([data]), None, {}, 0), network.groups)


def test_a_large_loss_does_not_hide_that_examples_are_mixed() -> None:
    torch.manual_seed(0)
    model, x = MixingExamples(0.5), torch.rand(8, 3, 2, 2)
    x[3] *= 1e5
    game = first_game(model, (x, model(x).argmin(1)))
    assert float(game.everyone(0, torch.tensor([3]))) < -1000 < float(game.everyone(0, torch.tensor([0])))
    assert not game.stacks


def test_units_that_are_dead_do_not_hide_that_examples_are_mixed() -> None:
    """A single example, of which every second unit is dead: both coalitions of the trial gave the same."""
    torch.manual_seed(0)
    model = MixingExamples(1)
    with torch.no_grad():
        model.first.weight.fill_(1.0)
        model.first.bias.copy_(torch.tensor([-100.0, 0.0, -100.0, 0.0]))
    assert not first_game(model, torch.rand(1, 3, 2, 2)).stacks
