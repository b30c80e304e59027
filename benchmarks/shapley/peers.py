"""Peers on the same value function: the mean of minus the losses on all examples, one coalition at a time.

All start from the same stored activations, in the memory layout that is fastest here. None of them samples examples,
stacks coalitions, or uses the structure of a layer; the comparison measures these differences.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import ShapleyValueSampling
from shapiq.approximator import SVARM, KernelSHAP, PermutationSamplingSV, UnbiasedKernelSHAP
from torch import Tensor

from secateur.importance.shapley.batching import select_reference
from secateur.importance.shapley.game import Game

Value = Callable[[Tensor], float]


@dataclass(frozen=True)
class PeerEstimate:
    """A peer's values (units,), with the number of coalitions and the seconds that they took."""

    values: Tensor
    coalitions: int
    seconds: float


class CoalitionValue:
    """The value of one coalition on all examples: one forward pass from the layer on, with one mask."""

    def __init__(self, game: Game) -> None:
        cursor, numbers = game.cursor, range(len(game.context.microbatches))
        self.game, self.evaluated = game, 0
        baselines = [cursor.dense_baseline(number) for number in numbers]
        live_values = [cursor.live_values(number, game.cut) for number in numbers]
        self.examples = sum(values.examples for values in baselines)
        self.live = {node: torch.cat([values[node] for values in live_values]) for node in live_values[0]}
        labels = torch.cat([values.reference.labels for values in baselines])
        self.reference = select_reference(type(baselines[0].reference)(labels, None), torch.arange(self.examples))

    def __call__(self, coalition: Tensor) -> float:
        self.evaluated += 1
        handlers = self.game.runner.ablation.handlers(
            self.game.network, self.game.runner.masks(coalition[None].bool()), self.game.runner.consumers
        )
        with torch.no_grad():
            return float(self.game.runner.run(dict(self.live), handlers, self.reference, self.examples).double().mean())

    def many(self, coalitions: np.ndarray) -> np.ndarray:
        """Return the values of coalitions (coalitions, players), one after another."""
        return np.array([self(torch.from_numpy(row)) for row in np.atleast_2d(coalitions).astype(bool)])


def marginals_of_orders(value: CoalitionValue, players: int, orders: int, seed: int) -> tuple[Tensor, float]:
    """Return the marginals of each random order, (orders, players), and the seconds of all."""
    generator = torch.Generator().manual_seed(seed)
    start, marginals = time.perf_counter(), torch.zeros(orders, players, dtype=torch.float64)
    full_value = value(torch.ones(players))
    for marginals_of_order in marginals:
        present, before = torch.ones(players), full_value
        for unit in torch.randperm(players, generator=generator).tolist():
            present[unit] = 0
            after = value(present)
            marginals_of_order[unit] = before - after
            before = after
    return marginals, time.perf_counter() - start


def authors_estimate(value: CoalitionValue, players: int, orders: int, seed: int) -> PeerEstimate:
    """Estimate by Ancona et al. 2020: the mean of each unit's marginals over orders, the same for all examples."""
    marginals, seconds = marginals_of_orders(value, players, orders, seed)
    return PeerEstimate(marginals.mean(0), value.evaluated, seconds)


def captum_estimate(value: CoalitionValue, players: int, orders: int, seed: int) -> PeerEstimate:
    """Estimate by captum's ShapleyValueSampling over the mask."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    method = ShapleyValueSampling(lambda masks: torch.tensor([value(mask) for mask in masks]))
    attributions = method.attribute(torch.ones(1, players), baselines=0, n_samples=orders)[0]
    return PeerEstimate(attributions.double(), value.evaluated, time.perf_counter() - start)


def shapiq_estimator(kind: type) -> Callable[[CoalitionValue, int, int, int], PeerEstimate]:
    """Return the estimator of one of shapiq's approximators, with as many coalitions as the orders would take."""

    def run(value: CoalitionValue, players: int, orders: int, seed: int) -> PeerEstimate:
        start = time.perf_counter()
        interactions = kind(n=players, random_state=seed).approximate(orders * players, value.many)
        values = np.array([interactions[(unit,)] for unit in range(players)])
        return PeerEstimate(torch.from_numpy(values).double(), value.evaluated, time.perf_counter() - start)

    return run


PEERS = {
    "authors' algorithm": authors_estimate,
    "captum ShapleyValueSampling": captum_estimate,
    "shapiq permutation": shapiq_estimator(PermutationSamplingSV),
    "shapiq KernelSHAP": shapiq_estimator(KernelSHAP),
    "shapiq unbiased KernelSHAP": shapiq_estimator(UnbiasedKernelSHAP),
    "shapiq SVARM": shapiq_estimator(SVARM),
}
