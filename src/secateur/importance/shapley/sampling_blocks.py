"""Numbered blocks: block k of a group draws its coalitions and examples from (seed, group, k) alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secateur.importance.estimates import Sample
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.samplers.base import CoalitionDesign, Sampler
from secateur.utils.rng import generator_for


class SamplingScheme(Protocol):
    """What one block is."""

    @property
    def name(self) -> str: ...

    def sample(self, game: Game, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        """One block.

        Args:
            game: the game.
            numbers: of each cell the numbers of its examples in the data.
            seed: of all draws.
            name: what the draws are for: the group's name.
            block: its number.
        """
        ...


@dataclass(frozen=True)
class DesignScheme:
    """A block by an estimator's design.

    Args:
        name: the estimator's.
        estimator: draws the coalitions.
        examples: how many of a cell a block uses; 0 for all of it.
        spread: whether every pair of coalitions gets one of the examples, in place of all of them.
        every: whether a block uses every cell, or one in its turn.
    """

    name: str
    estimator: Sampler
    examples: int
    spread: bool = False
    every: bool = False

    def sample(self, game: Game, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        """One block, as its number says."""
        design = self.estimator(game.players, generator_for(seed, name, block))
        found, used = [], []
        for cell in range(len(numbers)) if self.every else [in_turn(seed, name, len(numbers), block)]:
            size = len(numbers[cell])
            fewer = 0 < self.examples < size and game.stacks
            positions = taken(self.examples, size, block // len(numbers)) if fewer else torch.arange(size)
            found.append(_shares(game, design, cell, positions, self.spread and game.stacks))
            used.append(numbers[cell][positions])
        nothing = torch.zeros(game.players, dtype=torch.float64)
        examples, count = torch.cat(used), len(design.coalitions)
        evaluations = count if self.spread and game.stacks and design.free else count * len(examples)
        return Sample(examples, torch.cat(found, 1), count, evaluations, nothing, nothing / 0)

    def __str__(self) -> str:
        return f"{self.name}{f', {self.examples} examples a block' if self.examples else ''}"


def in_turn(seed: int, name: str, count: int, block: int) -> int:
    """The cell of a block: all take turns, in a new random order each time round."""
    order = torch.randperm(count, generator=generator_for(seed, name, "cells", block // count))
    return int(order[block % count])


def taken(examples: int, size: int, visit: int) -> Tensor:
    """Which examples of its cell a block uses: each visit of the cell the next ones. In ascending order."""
    few = min(examples, size)
    return ((visit * few + torch.arange(few)) % size).sort().values


def _shares(game: Game, design: CoalitionDesign, cell: int, positions: Tensor, spread: bool) -> Tensor:
    """Each example's shares. (players, examples)"""
    everyone = game.everyone(cell, positions)
    part = design.coalitions.sum(1, dtype=torch.float64) / game.players
    count, examples = len(design.coalitions), len(positions)
    if not (spread and design.free):
        nobody, values = _crossed(game, design, cell, positions)
        gain = everyone - nobody
        return design.shares(values - nobody - gain * part[:, None]) + gain / game.players
    place = torch.arange(count) // 2 * examples // ((count + 1) // 2)  # a pair has one example
    nobody, values = _apart(game, design, cell, positions, place)
    gain = everyone - nobody
    surplus = torch.zeros(count, examples, dtype=torch.float64)
    surplus[torch.arange(count), place] = (values - nobody[place] - gain[place] * part) * examples
    return design.shares(surplus) + gain / game.players


def _crossed(game: Game, design: CoalitionDesign, cell: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The values of nobody, (examples,), and of each coalition, (coalitions, examples), in the same tiles."""
    nobody = torch.zeros(1, game.players, dtype=torch.bool)
    values = game.cross(torch.cat([nobody, design.coalitions]), cell, positions)
    return values[0], values[1:]


def _apart(game: Game, design: CoalitionDesign, cell: int, positions: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """The values of nobody, (examples,), and of each coalition on the example at its place, (coalitions,)."""
    nobody = torch.zeros(len(positions), game.players, dtype=torch.bool)
    places = torch.cat([place, torch.arange(len(positions))])
    order = places.argsort(stable=True)  # rows of one example lie together
    values = torch.empty(len(places), dtype=torch.float64)
    values[order] = game.each(torch.cat([design.coalitions, nobody])[order], cell, positions[places[order]])
    return values[len(place) :], values[: len(place)]
