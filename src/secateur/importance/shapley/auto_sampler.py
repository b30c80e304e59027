"""The sampling scheme and the stopping rule of a group, from the user's options and a trial."""

from collections.abc import Callable
from typing import Any

import torch

from secateur.errors import SecateurError
from secateur.importance.shapley.aggregates import Aggregate, mean
from secateur.importance.shapley.config import AUTO, CONTROLLED, PAPER, SamplingConfig, Shapley
from secateur.importance.shapley.control_variate import (
    ControlVariate,
    OrderMarginals,
    nested_order,
    order_marginals,
    weights_by,
)
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.samplers.checks import checked_sampler
from secateur.importance.shapley.samplers.registry import SAMPLERS
from secateur.importance.shapley.sampling_blocks import DesignScheme, SamplingScheme
from secateur.importance.shapley.stopping import Coalitions, Evaluations, Rule
from secateur.importance.shapley.stopping_statistics import StandardError
from secateur.utils.rng import generator_for

MIN_EXAMPLES, MAX_EXAMPLES = 2, 32  # of a block
EVALUATIONS = 1024  # coalitions times examples of a block, about
SPREAD = 20  # examples among the pairs of a regression's block: each then has about n / 4 pairs
MAX_UNEXPLAINED, MIN_UNITS = 0.3, 48  # with fewer units plain orders gave as small errors in the same time
RELATIVE_ERROR, PER_UNIT = 0.5, 64
PAPER_ORDERS = 5


def scheme_for(game: Game, config: Shapley, aggregate: Aggregate, seed: int, name: str) -> SamplingScheme:
    """Return the sampling scheme of a group.

    By default it is exact where that costs no more than a few orders; else gradients corrected along orders, where
    there are many units and a trial order shows that gradients explain most of their marginals; else orders with
    their reverses.

    Args:
        game: the group's game.
        config: the user's options.
        aggregate: the statistic from examples' values to scores.
        seed: the seed of the trial.
        name: the group's name.

    Raises:
        SecateurError: "controlled" was asked for, and the game has no gradients.
    """
    if config.protocol == PAPER:
        return DesignScheme("permutation", SAMPLERS["permutation"], 0, every=True, fixed_blocks=PAPER_ORDERS)
    sampler = config.sampler
    if sampler == AUTO and 2**game.players <= 8 * game.players:
        sampler = "exact"
    if sampler == CONTROLLED:
        return control_variate_for(game, aggregate, seed, name)
    if sampler == AUTO:
        trial = control_variate_if_precise(game, aggregate, seed, name)
        return trial or design_scheme("antithetic", game, aggregate)
    return design_scheme(sampler, game, aggregate)


def needs_gradients(config: Shapley) -> bool:
    """Return whether an estimate by these options computes gradients, or a trial of them."""
    return config.protocol is None and config.sampler in (AUTO, CONTROLLED)


def control_variate_if_precise(game: Game, aggregate: Aggregate, seed: int, name: str) -> ControlVariate | None:
    """Return gradients corrected along orders, or None where a trial order shows that they explain too little."""
    try:
        trial = _trial(game, seed, name)
    except (RuntimeError, TypeError, ValueError, SecateurError):  # what can't be differentiated
        return None
    return _control_variate(game, aggregate, trial) if _is_explained(trial) else None


def control_variate_for(game: Game, aggregate: Aggregate, seed: int, name: str) -> ControlVariate:
    """Return gradients corrected along orders.

    Raises:
        SecateurError: the game has no gradients.
    """
    return _control_variate(game, aggregate, _trial(game, seed, name))


def _control_variate(game: Game, aggregate: Aggregate, trial: OrderMarginals) -> ControlVariate:
    return ControlVariate(game.sizes, _pair_count(game, aggregate), weights_by(trial))


def design_scheme(sampler: str | Callable[..., Any], game: Game, aggregate: Aggregate) -> DesignScheme:
    """Return the scheme of a sampler's designs, with as many examples in a block as suit it.

    Args:
        sampler: a sampler's name or function.
        game: the group's game.
        aggregate: the statistic from examples' values to scores.
    """
    if isinstance(sampler, str):
        label, function = sampler, SAMPLERS[sampler]
    else:
        label = getattr(sampler, "__name__", type(sampler).__name__)
        function = checked_sampler(label, sampler)
    if function is SAMPLERS["exact"]:
        return DesignScheme(label, function, 0, fixed_blocks=len(game.context.microbatches))
    is_free = game.players > 1 and function(game.players, torch.Generator().manual_seed(0)).free
    if is_free and aggregate is mean:
        return DesignScheme(label, function, SPREAD, spread=True)
    examples = min(max(EVALUATIONS // (2 * game.players), MIN_EXAMPLES), MAX_EXAMPLES)
    return DesignScheme(label, function, MIN_EXAMPLES if aggregate is mean else examples)


def _trial(game: Game, seed: int, name: str) -> OrderMarginals:
    """Return marginals and trapezoids along one order."""
    return order_marginals(game, 0, 0, nested_order(game.sizes, generator_for(seed, name, "trial")))


def _is_explained(trial: OrderMarginals) -> bool:
    """Return whether there are many units, and trapezoids explain most of their marginals."""
    unexplained_squares = (trial.marginals - trial.trapezoids).square().sum()
    has_many = len(trial.marginals) >= MIN_UNITS
    return has_many and bool(unexplained_squares <= MAX_UNEXPLAINED * trial.marginals.square().sum())


def _pair_count(game: Game, aggregate: Aggregate) -> int:
    """Return the pairs per group, example and block: about one order of coalitions, two to estimate the noise."""
    fewest_pairs = 1 if aggregate is mean else 2
    return min(max(game.players // (2 * MAX_EXAMPLES * len(game.sizes)), fewest_pairs), 4)


def stopping_rule_for(game: Game, config: SamplingConfig, scheme: SamplingScheme) -> Rule | None:
    """Return the rule that ends the sampling; None where the number of blocks is fixed.

    By default sampling ends when the largest standard error is half of the spread of the units' scores, but at the
    latest after 64 evaluations for each unit, divided by the fraction of the operators that come after the cut.
    """
    if scheme.fixed_blocks is not None:
        return None
    if config.coalitions is not None:
        limit = Coalitions(config.coalitions)
        return limit if config.stop is None else config.stop | limit
    if config.stop is not None:
        return config.stop
    depth = (game.end - game.cut) / max(game.end - game.program.first, 1)
    return StandardError(RELATIVE_ERROR) | Evaluations(PER_UNIT, per_unit=True, depth=max(depth, 0.125))
