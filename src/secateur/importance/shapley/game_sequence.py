"""The games of a run, one after the other, each with what the memory limit leaves beside its steps."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from secateur.errors import SecateurError
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.coalition_runner import MicrobatchValues, first_consumer
from secateur.importance.shapley.config import EvaluationConfig
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.memory import StepBytes
from secateur.utils.live_bytes import peak_bytes

SLOPE_ROWS = 1024  # the largest number of float64 values per player that weighing the slopes of a block takes


def games_in_order(
    context: CriterionContext, config: EvaluationConfig, cursor: DenseRun, gradients: bool = True
) -> Iterator[Game]:
    """Yield the game of each group to score, in the order of their cuts, so that nothing before them runs twice.

    Args:
        context: the network and the examples.
        config: the limit of memory and the precision.
        cursor: the source of the dense network's values.
        gradients: whether the games' gradients are needed.

    Raises:
        BudgetError: the memory limit is less than one step of one of the games needs.
    """
    network, limit = context.network, config.memory_limit
    cuts = {group.name: first_consumer(network, network.consumers_of(group)) for group in context.groups}
    ordered_groups = sorted(context.groups, key=lambda group: cuts[group.name])
    games = [Game(context, [group], config, cursor) for group in ordered_groups]
    steps = [measure_steps(game, gradients) for game in games]
    limit.check(steps)
    for game, step_bytes in zip(games, steps, strict=True):
        cursor.keep_within(limit.room_beside(step_bytes))
        yield game


def whole_game(context: CriterionContext, config: EvaluationConfig, gradients: bool) -> Game:
    """Return the game of the units of all groups to score together.

    Raises:
        BudgetError: the memory limit is less than one step needs.
    """
    game, limit = Game(context, context.groups, config), config.memory_limit
    steps = measure_steps(game, gradients)
    limit.check([steps])
    game.cursor.keep_within(limit.room_beside(steps))
    return game


def measure_steps(game: Game, gradients: bool) -> StepBytes:
    """Run each kind of step of a game once, on the largest microbatch, and measure its bytes.

    Args:
        game: the game.
        gradients: whether gradients are among the steps.
    """
    cursor = game.cursor
    dense, tile = cursor.dense_bytes, game.tile
    sizes, runs = [], [game.trial_bytes]
    for microbatch in cursor.largest:
        sizes.append(cursor.bytes_at(microbatch, game.cut))
        runs.append(_run_bytes(game, game.microbatch_values(microbatch), tile, gradients))
        if len(cursor.largest) > 1:
            cursor.keep_within(0)
    game.runner.forget_contributions()
    live, references = zip(*sizes, strict=True)
    return StepBytes(game.groups[0].name, dense, max(live), max(references), max(runs))


def _run_bytes(game: Game, values: MicrobatchValues, tile: int, gradients: bool) -> int:
    """Return the bytes of runs of coalitions on a microbatch, with the lists of coalitions and their results."""
    peak = peak_bytes(*_runs_of_each_kind(game, values, tile, gradients))
    rows = game.players * (game.players + 1)  # of coalitions, booleans: an order, or all without one
    list_bytes = 3 * rows + 16 * game.players * values.dense.examples
    of_slopes = 8 * (rows + SLOPE_ROWS * game.players) if gradients and game.stacks else 0
    return peak + list_bytes + of_slopes


def _runs_of_each_kind(game: Game, values: MicrobatchValues, tile: int, gradients: bool) -> Iterator[Callable[[], Any]]:
    """Yield a run of each kind: without and with gradients, all coalitions on one example, and each on another."""
    empty_coalitions = torch.zeros(tile, game.players, dtype=torch.bool)
    if not game.stacks:
        yield partial(game.runner.values_of_microbatch, empty_coalitions, values)
        return
    example_numbers = (torch.arange(tile) % values.dense.examples).sort().values  # rows of one example lie together
    for positions in (torch.zeros_like(example_numbers), example_numbers):
        yield partial(game.values_of_tile, empty_coalitions, values, positions)
        if gradients:
            half = max(tile // 2, 1)
            yield partial(_try_slopes, game, empty_coalitions[:half], values, positions[:half])


def _try_slopes(game: Game, coalitions: Tensor, values: MicrobatchValues, positions: Tensor) -> None:
    with suppress(RuntimeError, TypeError, ValueError, SecateurError):  # what can't be differentiated
        game.slopes_of_tile(coalitions, values, positions)
