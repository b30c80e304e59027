"""Peers on the same value function: the mean of minus the losses on all examples, one coalition at a time.

All start from the same kept activations, in the memory layout that is fastest here. None of them uses that examples
can be few, that coalitions can be stacked, or what is known of a layer: that is what is compared.
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
class Found:
    """A peer's values (units,), how many coalitions they took, and how many seconds."""

    values: Tensor
    coalitions: int
    seconds: float


class Whole:
    """The value of one coalition on all examples: one forward from the layer on, one mask."""

    def __init__(self, game: Game) -> None:
        cursor, cells = game.cursor, range(len(game.context.microbatches))
        self.game, self.evaluated = game, 0
        known = [cursor.dense_baseline(cell) for cell in cells]
        live = [cursor.live_values(cell, game.cut) for cell in cells]
        self.examples = sum(part.examples for part in known)
        self.live = {node: torch.cat([part[node] for part in live]) for node in live[0]}
        labels = torch.cat([part.reference.labels for part in known])
        self.reference = select_reference(type(known[0].reference)(labels, None), torch.arange(self.examples))

    def __call__(self, coalition: Tensor) -> float:
        self.evaluated += 1
        handlers = self.game.runner.ablation.handlers(
            self.game.network, self.game.runner.masks(coalition[None].bool()), self.game.runner.consumers
        )
        with torch.no_grad():
            return float(self.game.runner.run(dict(self.live), handlers, self.reference, self.examples).double().mean())

    def many(self, coalitions: np.ndarray) -> np.ndarray:
        return np.array([self(torch.from_numpy(row)) for row in np.atleast_2d(coalitions).astype(bool)])


def by_orders(value: Whole, players: int, orders: int, seed: int) -> tuple[Tensor, float]:
    """Each random order's own marginals, (orders, players), and the seconds that all took."""
    generator = torch.Generator().manual_seed(seed)
    start, found = time.perf_counter(), torch.zeros(orders, players, dtype=torch.float64)
    everyone = value(torch.ones(players))
    for each in found:
        present, before = torch.ones(players), everyone
        for unit in torch.randperm(players, generator=generator).tolist():
            present[unit] = 0
            after = value(present)
            each[unit] = before - after
            before = after
    return found, time.perf_counter() - start


def authors(value: Whole, players: int, orders: int, seed: int) -> Found:
    """Ancona et al. 2020: some random orders, the same for all examples, each unit's marginals averaged."""
    found, seconds = by_orders(value, players, orders, seed)
    return Found(found.mean(0), value.evaluated, seconds)


def captum(value: Whole, players: int, orders: int, seed: int) -> Found:
    """captum's ShapleyValueSampling over the mask."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    method = ShapleyValueSampling(lambda masks: torch.tensor([value(mask) for mask in masks]))
    found = method.attribute(torch.ones(1, players), baselines=0, n_samples=orders)[0]
    return Found(found.double(), value.evaluated, time.perf_counter() - start)


def shapiq(kind: type) -> Callable[[Whole, int, int, int], Found]:
    """One of shapiq's approximators, with as many coalitions as the orders would take."""

    def run(value: Whole, players: int, orders: int, seed: int) -> Found:
        start = time.perf_counter()
        found = kind(n=players, random_state=seed).approximate(orders * players, value.many)
        values = np.array([found[(unit,)] for unit in range(players)])
        return Found(torch.from_numpy(values).double(), value.evaluated, time.perf_counter() - start)

    return run


PEERS = {
    "authors' algorithm": authors,
    "captum ShapleyValueSampling": captum,
    "shapiq permutation": shapiq(PermutationSamplingSV),
    "shapiq KernelSHAP": shapiq(KernelSHAP),
    "shapiq unbiased KernelSHAP": shapiq(UnbiasedKernelSHAP),
    "shapiq SVARM": shapiq(SVARM),
}
