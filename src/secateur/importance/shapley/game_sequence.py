"""The games of a run, one after the other, each with what is left of the memory limit beside its steps."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from secateur.errors import SecateurError
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.cursor import ProgramCursor
from secateur.importance.shapley.game import Game, Seen, first_reader
from secateur.importance.shapley.memory import StepBytes, check_limit, memory_of, room_beside
from secateur.utils.live_bytes import peak_bytes

SLOPE_ROWS = 1024  # float64 numbers of each player that weighing the slopes of a block takes, at most


def in_order(context: CriterionContext, frontier: ProgramCursor, slopes: bool = True) -> Iterator[Game]:
    """The game of each group to score, in the order of their cuts: then nothing before them runs twice.

    Args:
        context: the network and the examples.
        frontier: what the dense network's values are taken from.
        slopes: whether gradients are asked of the games.

    Raises:
        BudgetError: the memory limit is less than one step of one of the games takes.
    """
    network = context.network
    cuts = {group.name: first_reader(network, network.readers_of(group)) for group in context.groups}
    ordered = sorted(context.groups, key=lambda group: cuts[group.name])
    games = [Game(context, [group], frontier) for group in ordered]
    steps = [measure_steps(game, slopes) for game in games]
    check_limit(context.options, steps)
    for game, needed in zip(games, steps, strict=True):
        frontier.keep_within(room_beside(context.options, needed))
        yield game


def whole_game(context: CriterionContext, slopes: bool) -> Game:
    """The game of the units of all groups to score together.

    Raises:
        BudgetError: the memory limit is less than one step takes.
    """
    game = Game(context, context.groups, ProgramCursor(context, memory_of(context.options)))
    needed = measure_steps(game, slopes)
    check_limit(context.options, [needed])
    game.frontier.keep_within(room_beside(context.options, needed))
    return game


def measure_steps(game: Game, slopes: bool) -> StepBytes:
    """Run each kind of step of a game once, on the largest cell, and measure what it takes.

    Args:
        game: the game.
        slopes: whether gradients are among the steps.
    """
    frontier = game.frontier
    dense, tile = frontier.dense_bytes, game.tile
    sizes, runs = [], [game.trial_bytes]
    for cell in frontier.largest:
        sizes.append(frontier.bytes_at(cell, game.cut))
        runs.append(_run_bytes(game, game.seen(cell), tile, slopes))
        if len(frontier.largest) > 1:
            frontier.keep_within(0)
    game.forget_parts()
    cells, references = zip(*sizes, strict=True)
    return StepBytes(game.groups[0].name, dense, max(cells), max(references), max(runs))


def _run_bytes(game: Game, seen: Seen, tile: int, slopes: bool) -> int:
    """What runs of coalitions on a cell take, with the lists of coalitions and of what comes of them."""
    peak = peak_bytes(*_runs(game, seen, tile, slopes))
    rows = game.players * (game.players + 1)  # of coalitions, booleans: an order, or all without one
    listed = 3 * rows + 16 * game.players * seen.known.examples
    of_slopes = 8 * (rows + SLOPE_ROWS * game.players) if slopes and game.stacks else 0
    return peak + listed + of_slopes


def _runs(game: Game, seen: Seen, tile: int, slopes: bool) -> Iterator[Callable[[], Any]]:
    """A run of each kind: without and with gradients, all coalitions on one example, and each on another."""
    nobody = torch.zeros(tile, game.players, dtype=torch.bool)
    if not game.stacks:
        yield partial(game.values_of_cell, nobody, seen.known, seen.live)
        return
    many = (torch.arange(tile) % seen.known.examples).sort().values  # rows of one example lie together
    for positions in (torch.zeros_like(many), many):
        yield partial(game.values_of_tile, nobody, seen, positions)
        if slopes:
            half = max(tile // 2, 1)
            yield partial(_try_slopes, game, nobody[:half], seen, positions[:half])


def _try_slopes(game: Game, coalitions: Tensor, seen: Seen, positions: Tensor) -> None:
    with suppress(RuntimeError, TypeError, ValueError, SecateurError):  # what can't be differentiated
        game.slopes_of_tile(coalitions, seen, positions)
