"""Cheap scores as control variates of orders.

A score of each unit, added to the game as an additive one, changes every marginal by itself and thus no estimate along
orders, and a game of pairs (`obs`) changes nothing along an order with its reverse. What remains is the difference
between examples: an example's scores are known for all examples from one pass, the shares from orders for a few, so the
scores of these few beyond those of all are subtracted, times a factor from the other blocks, so that there is no bias.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.importance.estimates import Sample
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.sampling_blocks import SamplingScheme
from shapley.subjects import GameSubject

GRADIENT_COST = 3  # evaluations


def scores_of_examples(game: Game, subject: GameSubject, present: bool) -> Tensor:
    """Return the slopes of minus the loss by each unit's presence, where all units are present or none.

    Returns:
        (players, examples), in the order of the examples in the data.
    """
    scores = torch.empty(game.players, subject.examples, dtype=torch.float64)
    for microbatch, numbers in enumerate(subject.numbers):
        coalitions = torch.full((len(numbers), game.players), present)
        scores[:, numbers] = game.gradients(coalitions, microbatch, torch.arange(len(numbers)))[1].T
    return scores


def controlled_by_scores(
    game: Game, subject: GameSubject, scheme: SamplingScheme, scores: Tensor, seed: int, evaluations: float
) -> Tensor:
    """Return shares along orders with scores as a control variate, (players,).

    Args:
        game: the game.
        subject: the examples.
        scheme: the sampling scheme of the orders.
        scores: of each example, (players, examples).
        seed: the seed of the orders.
        evaluations: the number of evaluations for orders, approximately.
    """
    samples: list[Sample] = []
    name = game.groups[0].name
    while len(samples) < 2 or sum(sample.evaluations for sample in samples) < evaluations:
        samples.append(scheme.sample(game, subject.numbers, seed, name, len(samples)))
    expected = scores.mean(1)
    blocks = []
    for index, sample in enumerate(samples):
        factor = _factor([*samples[:index], *samples[index + 1 :]], scores)
        beyond = scores[:, sample.examples].mean(1) - expected
        blocks.append(sample.shares.mean(1) - factor * beyond)
    return torch.stack(blocks).mean(0)


def _factor(samples: Sequence[Sample], scores: Tensor) -> float:
    """Return the slope of shares by scores over examples, the same for all units.

    It is shrunk where the scores of these few examples vary less than those of all: scores are nearly 0 for most.
    """
    shares = torch.cat([sample.shares for sample in samples], 1)  # (players, examples)
    used = scores[:, torch.cat([sample.examples for sample in samples])]
    shares, used = (values - values.mean(1, keepdim=True) for values in (shares, used))
    squares = max(float(used.square().sum()), used.shape[1] * float(scores.var(1, correction=0).sum()))
    return float((shares * used).sum()) / max(squares, 1e-300)
