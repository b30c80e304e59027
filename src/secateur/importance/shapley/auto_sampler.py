"""Which estimator serves a group, and when it has done enough, from what the user asked for and what a trial shows."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from secateur.errors import NameMatchError, SecateurError
from secateur.importance.shapley.aggregates import Aggregate, mean
from secateur.importance.shapley.control_variate import (
    ControlVariate,
    OrderMarginals,
    joining,
    order_marginals,
    weights_by,
)
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.samplers.registry import SAMPLERS, find_sampler
from secateur.importance.shapley.sampling_blocks import DesignScheme, SamplingScheme
from secateur.importance.shapley.stopping import Coalitions, PerUnit, Rule, StandardError
from secateur.utils.rng import generator_for

FEWEST, MOST = 2, 32  # examples of a block
EVALUATIONS = 1024  # coalitions times examples of a block, about
SPREAD = 20  # examples among the pairs of a regression's block: each then has about n / 4 pairs
UNEXPLAINED, MANY = 0.3, 48  # with fewer units plain orders gave as small errors in the same time
RELATIVE_ERROR, PER_UNIT = 0.5, 64
PAPER_ORDERS = 5


def scheme_for(game: Game, options: Mapping[str, Any], aggregate: Aggregate, seed: int, name: str) -> SamplingScheme:
    """What a block of a group's estimate is.

    By default it is exact where that costs no more than a few orders; else gradients corrected along orders, where
    there are many units and a trial order shows that gradients explain most of their marginals; else orders with
    their reverses.

    Raises:
        NameMatchError: an unknown protocol or estimator.
        SecateurError: "controlled" was asked for, and the game has no gradients.
    """
    protocol, wanted = options.get("protocol"), options.get("estimator") or "auto"
    if protocol not in (None, "paper"):
        raise NameMatchError(f"protocol={protocol!r} is unknown; the one known is 'paper'")
    if protocol == "paper":
        return DesignScheme("permutation", SAMPLERS["permutation"], 0, every=True)
    if wanted == "auto" and 2**game.players <= 8 * game.players:
        wanted = "exact"
    if wanted not in ("auto", "controlled"):
        return _drawn(wanted, game, aggregate)
    if wanted == "controlled":
        return controlled_for(game, aggregate, seed, name)
    return corrected(game, aggregate, seed, name) or _drawn("antithetic", game, aggregate)


def asks_for_slopes(options: Mapping[str, Any]) -> bool:
    """Whether an estimate by these options takes gradients, or a trial of them."""
    return options.get("protocol") is None and (options.get("estimator") or "auto") in ("auto", "controlled")


def corrected(game: Game, aggregate: Aggregate, seed: int, name: str) -> ControlVariate | None:
    """Gradients corrected along orders, where a trial order shows that they explain enough."""
    try:
        trial = _trial(game, seed, name)
    except (RuntimeError, TypeError, ValueError, SecateurError):  # what can't be differentiated
        return None
    return _controlled(game, aggregate, trial) if _explains(trial) else None


def controlled_for(game: Game, aggregate: Aggregate, seed: int, name: str) -> ControlVariate:
    """Gradients corrected along orders.

    Raises:
        SecateurError: the game has no gradients.
    """
    return _controlled(game, aggregate, _trial(game, seed, name))


def _controlled(game: Game, aggregate: Aggregate, trial: OrderMarginals) -> ControlVariate:
    return ControlVariate(game.sizes, _pairs(game, aggregate), weights_by(trial))


def _drawn(wanted: str | Callable[..., Any], game: Game, aggregate: Aggregate) -> SamplingScheme:
    if callable(wanted):
        label, estimator = getattr(wanted, "__name__", type(wanted).__name__), wanted
    else:
        label, estimator = wanted, find_sampler(wanted)
    if label == "exact":
        return DesignScheme(label, estimator, 0)
    free = game.players > 1 and estimator(game.players, torch.Generator().manual_seed(0)).free
    if free and aggregate is mean:
        return DesignScheme(label, estimator, SPREAD, spread=True)
    few = FEWEST if aggregate is mean else min(max(EVALUATIONS // (2 * game.players), FEWEST), MOST)
    return DesignScheme(label, estimator, few)


def _trial(game: Game, seed: int, name: str) -> OrderMarginals:
    """Marginals and trapezoids along one order."""
    return order_marginals(game, 0, 0, joining(game.sizes, generator_for(seed, name, "trial")))


def _explains(trial: OrderMarginals) -> bool:
    """Whether there are many units, and trapezoids leave little of their marginals."""
    left = (trial.marginals - trial.trapezoids).square().sum()
    many = len(trial.marginals) >= MANY
    return many and bool(left <= UNEXPLAINED * trial.marginals.square().sum())


def _pairs(game: Game, aggregate: Aggregate) -> int:
    """Pairs for a group and example of a block: about as many coalitions as along an order, two to know their noise."""
    least = 1 if aggregate is mean else 2
    return min(max(game.players // (2 * MOST * len(game.sizes)), least), 4)


def stopping_rule_for(game: Game, options: Mapping[str, Any], layout: SamplingScheme) -> Rule | None:
    """When the estimate is good enough; None where the number of blocks is fixed.

    By default when the largest standard error is half of the spread of the units' scores, but at the latest after 64
    evaluations for each unit, times what part of the operators comes after the cut: shallow groups may have more.
    """
    stop, coalitions = options.get("stop"), options.get("coalitions")
    if options.get("protocol") == "paper" or layout.name == "exact":
        return None
    if not isinstance(stop, Rule | None):
        raise NameMatchError(
            f"stop={stop!r} is no rule; give one of secateur.stopping, such as Error(0.2) | Seconds(60)"
        )
    if coalitions is not None:
        limit = Coalitions(coalitions)
        return limit if stop is None else stop | limit
    if stop is not None:
        return stop
    depth = (game.end - game.cut) / max(game.end - game.program.first, 1)
    return StandardError(RELATIVE_ERROR) | PerUnit(PER_UNIT, max(depth, 0.125))


def fixed_blocks(options: Mapping[str, Any], cells: int) -> int:
    """How many blocks there are where no rule stops them."""
    return PAPER_ORDERS if options.get("protocol") == "paper" else cells
